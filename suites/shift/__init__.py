"""The suite `shift`: what the worst of the shifts within a stride cell does.

Read `suite.py`, the definition, then `study.py` (the measurement), `moves.py` (the shifts) and
`responses.py` (what is compared).
"""
