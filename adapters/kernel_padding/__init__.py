"""Kernel padding: how kernels, strides and padding change, without any runtime.

Read `arithmetic` (new kernels and pads), then `call` (a strided operation as both runtimes see it).
"""
