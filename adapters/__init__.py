"""Models of several runtimes behind one interface, `model.Model`; `load` opens them."""
