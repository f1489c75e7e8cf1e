"""ONNX operators as differentiable torch functions, one family a file.

Start with `elementwise`, which has the registry.
"""
