"""Energy rules, one file for each kind of operation.

Read `sliding` (windows over a map) first.
"""
