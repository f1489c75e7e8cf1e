"""The experiment of the `training` suite.

Read `experiment`, `study` and `trainer`, then `probe`, `report` and `figures`.
"""
