"""The posterior and the prior of the noise as distributions beside those of torch."""

from bmrs_torch.distributions.log_uniform import LogUniform
from bmrs_torch.distributions.truncated_log_normal import TruncatedLogNormal

__all__ = ["LogUniform", "TruncatedLogNormal"]
