"""The suite `output`: how evenly the grid of a dense output is served.

Read `suite.py`, the definition, then `expected.py` (exact) and `observed.py` (measured).
"""
