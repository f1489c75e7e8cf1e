"""What a graph is made of: its feature maps, layout, strided nodes and target.

Read `node_facts` and `layout`, then `stages`, `target` and `integer_maps`.
"""
