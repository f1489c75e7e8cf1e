"""A graph as a torch module without its weights, for the `structure` suite.

Read `skeleton`, then what it recognises: `written_out`, `activations` and `dequantise`.
"""
