"""Fused kernels of the multiplicative-noise layer: Numba on the CPU, Triton on the GPU."""
