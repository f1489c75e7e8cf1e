"""From references to records.

Read `settings` and `plan` (which jobs), `audit` and `workbench` (one model), `recorder`, then
`sweep` and `runner` (many models, by the `engines`), `cost` (how long it takes) and `rerun` (stored
records again).
"""
