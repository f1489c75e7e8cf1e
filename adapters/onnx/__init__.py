"""ONNX files as models: `model.OnnxModel` runs them, `interpreter` gives their gradients.

Read `opening`, `model`, `session`, then `graph` and `interpreter`; the packages hold reading
(`files`), inputs (`inputs`), target and layout (`analysis`), operators (`operators`), the gradient
check (`gradient_check`), kernel padding (`kernel_padding`) and the weightless graph (`skeleton`).
"""
