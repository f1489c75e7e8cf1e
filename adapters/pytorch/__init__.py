"""Torch modules as models.

Read `model`, `target` and `nodes` (passes layer by layer); `weights` hashes and calibrates weights
and keeps the weight sets of `@init` models, `skeleton` makes the module without weights,
`complexity` counts its operations, the other files fix or replace single layers.
"""
