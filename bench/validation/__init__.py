"""Known answers and published references, and what the suites make of them.

Read `validate` and `check`, then the groups of references.
"""
