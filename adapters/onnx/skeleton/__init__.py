"""A graph as a torch module without its weights, for the `structure` suite.

Read `skeleton`, then the patterns that it recognises: `written_out`, `written_activations`,
`activations` and `dequantise`.
"""
