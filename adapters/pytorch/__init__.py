"""Torch modules as models.

Read `model`, `target` and `nodes` (passes layer by layer); `members` keeps the weight sets of
`@init` models, `weights` hashes and calibrates weights, `skeleton` makes the module without
weights, the other files fix or replace single layers.
"""
