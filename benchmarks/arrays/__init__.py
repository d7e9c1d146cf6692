"""The array functions against SciPy and the paper's formulas as printed: accuracy and speed."""
