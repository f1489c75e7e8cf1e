"""The suite `halo`: how much neighbouring tiles must overlap.

Read `suite.py`, the definition, then `fields.py` (exact), `tiling.py` (measured) and
`tiles.py` (the error of one image's tiles).
"""
