"""What several suites measure with.

Read `gradients` and `forward` (passes), `phases`, then `unbiased` and `bootstrap` (estimates),
`step_size` and `feature_maps`.
"""
