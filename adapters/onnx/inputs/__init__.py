"""The image input of a file: its size, layout, value range and batch axis; and the outputs.

Read `declaration` (what the user declares), `spec` and `size`, then `batch_axis`, `fixed_inputs`
and `outputs`.
"""
