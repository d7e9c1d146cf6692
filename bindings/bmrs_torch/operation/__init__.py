"""The noise as a torch operator: by device, its reference, its mean, its divergence from the prior."""

from bmrs_torch.operation.multiplicative_noise import multiplicative_noise

__all__ = ["multiplicative_noise"]
