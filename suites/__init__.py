"""Suites: each is one standardised test, defined by the docstring of its module.

Read `base` first, then `structure` or `deadpixel` as an example; `measuring` and `architecture`
are shared by several suites.
"""
