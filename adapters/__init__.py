"""Adapters: one runtime a file, all behind `model.Model`."""
