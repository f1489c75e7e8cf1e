"""Seeded damage of every kind of file that perimetry reads, and what must come of it.

Read `mutations` and `attacks`, then `page`; `tests/test_fuzz.py` runs a few hundred cases,
`python tests/write_reliability.py` many more, and writes docs/reliability.md.
"""
