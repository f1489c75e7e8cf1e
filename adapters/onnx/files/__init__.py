"""ONNX files on disk: `read` checks and loads, `external_data` finds weights, `write` saves.

`protos` has the parts of messages that all others read and change.
"""
