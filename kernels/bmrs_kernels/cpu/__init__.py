"""The noise on a CPU: all that Numba compiles, and what calls it."""
