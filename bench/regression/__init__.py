"""The regression check: is a model still as its baseline was measured?

Read `check`, `model_check`, `baseline`, `detectors`, `tolerances` and `noise_floor`, then `result`
and `report`; `reproduce` measures a published set again.
"""
