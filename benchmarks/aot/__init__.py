"""Compile the GPU kernels ahead of time, on a machine without a GPU, and see what they are made of."""
