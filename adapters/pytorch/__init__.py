"""Torch modules as models.

Read `model`, `target` and `stages`; `members` averages several initial states, `weights` reads
files, `skeleton` gives the module without weights, the other files mend or replace single layers.
"""
