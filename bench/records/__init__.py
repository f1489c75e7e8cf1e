"""Records and where they are kept.

Read `record` and its `parts`, `store` and `archive`, then `arrays`, `selection`, `references`,
`environment` and `hashing`.
"""
