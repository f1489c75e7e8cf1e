"""The regression gate.

Read `check`, `detectors`, `tolerances` and `noise_floor`, then `report`; `reproduce` measures a
published set again.
"""
