"""Kernel padding of an ONNX graph.

Read `sites` (which nodes), `rewrite` (the new nodes), `mean_pool`, then `file`.
"""
