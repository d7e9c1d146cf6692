"""The whole path walked once on real images: train with noise, prune by evidence, shrink, ship."""
