"""The board as one HTML page.

Read `page`, then its parts: `numbers`, `maps`, `model_panel` and `join`.
"""
