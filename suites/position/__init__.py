"""The suite `position`: how much of a feature map is position.

Read `suite.py`, the definition, then `stages.py` (which maps are measured), `study.py` (the
measurement), `moments.py` (what is kept of an image), `probe.py` (the linear probe), `tokens.py`
(norms of units) and `embedding.py` (norms of the position embedding).
"""
