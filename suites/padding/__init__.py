"""The `padding` suite: `suite` is its definition.

Then read `observe` (what is run), `results`, `blind_spots`, `spatial_bias` and `mean_filters`.
"""
