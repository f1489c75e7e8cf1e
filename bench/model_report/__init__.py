"""The report on one model that `perimetry show` prints.

Read `case` (which records), `report` (the sections), `reported` (one record, what its metrics say
of themselves, and its tables) and `provenance`; `publishing` writes results for other places.
"""
