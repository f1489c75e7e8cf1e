"""Kernel padding of an ONNX graph.

Read `sites` (which nodes), `rewrite` (the new nodes), `mean_pool`, `recalibrate`, then `file`.
"""
