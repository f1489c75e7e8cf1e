"""ONNX operators as differentiable torch functions, one family per file.

Start with `elementwise`, which has the registry.
"""
