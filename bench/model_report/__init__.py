"""The report on one model that `perimetry show` prints.

Read `case` (which records), `report` (the sections), `reported` (one record and what its metrics
say of themselves), `summary` (the first three lines), `tables` and `provenance`.
"""
