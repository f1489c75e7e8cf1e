"""The report on one model that `perimetry show` prints.

Read `report`, then `finding` (the form of a finding), the rules, `tables` and `provenance`.
"""
