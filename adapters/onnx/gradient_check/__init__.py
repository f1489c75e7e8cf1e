"""Checks of the interpreter's gradients against onnxruntime, before they are used.

Read `verify` first, then `subject` (the checked graph and the verdict), `derivatives` and
`finite_differences`.
"""
