"""ONNX files on disk: `read` checks and loads, `external_data` finds weights, `write` saves."""
