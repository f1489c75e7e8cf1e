"""What can be known from the architecture alone.

Read `trace` (one symbolic pass), `windows` and `receptive_field`, then `propagate` (expected
energies, by the rules in `rules`), `rule_table`, `compact` and `channel_runs`. What is
not independent is in `fixed_functions`, with `chains`, `mixtures` and `fixed_steps`.
"""
