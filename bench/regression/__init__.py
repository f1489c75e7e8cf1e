"""The regression check: is a model still as its baseline was measured?

Read `check`, `baseline`, `detectors`, `tolerances` and `noise_floor`, then `report`; `reproduce`
measures a published set again.
"""
