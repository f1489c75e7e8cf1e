"""The suite `shift`: what the worst of the shifts within a stride cell does.

Read `suite.py`, the definition, then `study.py` (the measurement) and `moves.py` (the shifts, and
what is compared).
"""
