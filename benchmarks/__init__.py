"""Measurements: the array functions and kernels against their rivals, and the demonstration."""
