"""Bindings of the one text of the formulas to what computes them."""
