"""The suite `halo`: how much neighbouring tiles must overlap.

Read `suite.py`, the definition, then `fields.py` (exact) and `tiles.py` (measured).
"""
