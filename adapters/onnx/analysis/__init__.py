"""Analysis of a graph: its feature maps, layout, strided nodes and target.

Read `node_facts` and `layout`, then `stages`, `target` and `integer_maps`.
"""
