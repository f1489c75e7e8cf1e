"""The suite `position`: how much of a feature map is position.

Read `suite.py`, the definition, then `stages.py` (which maps are measured, norms of their units),
`study.py` (the measurement), `probe.py` (the linear probe, and what is kept of an image for it) and
`embedding.py` (norms of the position embedding).
"""
