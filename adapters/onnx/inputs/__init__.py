"""Which input is the image, its size, layout, value range and batch axis, and which output counts.

Read `declaration` (what the user states), `spec` and `size`, then `batch_axis`, `fixed_inputs`
and `outputs`.
"""
