"""ONNX files as models: `model.OnnxModel` runs them, `interpreter` gives their gradients.

Read `opening`, `model`, `session`, then `graph` and `interpreter`; the packages are for reading and
writing (`files`), inputs and outputs (`inputs`), target and layout (`analysis`), operators
(`operators`), the gradient check (`gradient_check`), kernel padding (`kernel_padding`) and the
graph without weights (`skeleton`).
"""
