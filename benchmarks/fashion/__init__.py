"""Networks with residual connections on Fashion-MNIST: trained, pruned by evidence, shrunk, measured."""
