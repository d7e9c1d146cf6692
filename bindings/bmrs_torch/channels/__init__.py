"""Which channels of a network's tensors belong together, found by running it once on an example."""
