"""The `padding` suite: `suite` is its definition.

Then read `observe` (what is run), `blind_spots`, `spatial_bias` and `mean_filters`.
"""
