"""The noise on a GPU: all that Triton compiles, and what launches it."""
