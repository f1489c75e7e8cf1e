"""Suites: one standardised test a file; the module docstring is its definition."""
