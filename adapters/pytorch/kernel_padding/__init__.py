"""Kernel padding of a torch module.

Read `padded_model`, `rewrite` and `trace` (which calls are strided), `calls`, then `fit`.
"""
