"""Weights files: `read` finds the state dict in a file, `fit` matches it to an architecture."""
