"""Checks of the interpreter's gradients against onnxruntime, before they are used.

Read `verify` first, then `subject` (what is checked), `derivatives` and `finite_differences`.
"""
