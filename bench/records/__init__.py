"""Records and where they are kept.

Read `record`, `store` and `archive`, then `arrays`, `selection`, `environment` and `hashing`.
"""
