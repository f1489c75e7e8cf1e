"""Measuring tools that several suites share.

Read `batching`, `gradients` and `forward` (passes over the images), `phases`, then `unbiased` and
`bootstrap` (estimates) and `step_size`.
"""
