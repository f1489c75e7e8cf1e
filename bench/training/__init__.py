"""The experiment of the `training` suite.

Read `experiment`, `study` and `trainer`, then `probe`, `checkpoint`, `progress`, `records`,
`report` and `figures`.
"""
