"""The paper's Table 3: a training step with noise beside the same step without."""
