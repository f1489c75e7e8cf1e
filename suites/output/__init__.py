"""The suite `output`: how evenly the units of a dense output vary.

Read `suite.py`, the definition, then `expected.py` (exact) and `observed.py` (measured).
"""
