"""The suite `objects`: how the answer to a small object depends on its size and place.

Read `suite.py`, the definition, then `layout.py` (sizes, phases and places), `cutouts.py` (labelled
cut-outs), and `responses.py` (the passes, and the metrics and table from them).
"""
