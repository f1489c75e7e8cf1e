"""The suite `position`: how much of a feature map is position.

Read `suite.py`, the definition, then `moments.py` (what is kept of an image), `probe.py` (the
linear probe) and `tokens.py` (norms of units and of the position embedding).
"""
