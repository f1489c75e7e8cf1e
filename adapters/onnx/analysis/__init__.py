"""Analysis of a graph: its feature maps, layout, strided nodes and target.

Read `node_facts`, then `target`.
"""
