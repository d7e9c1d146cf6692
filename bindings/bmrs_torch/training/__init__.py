"""Training with noise: rates, dates, Algorithm 1 in a loop of one's own, or the noise alone."""

from bmrs_torch.training.distillation import Distillation
from bmrs_torch.training.parameter_groups import NOISE_LR_MULTIPLIER, parameter_groups
from bmrs_torch.training.prune_trained import PostTrainingResult, prune_trained
from bmrs_torch.training.pruner import Pruner
from bmrs_torch.training.range_test import range_test
from bmrs_torch.training.schedule import Schedule

__all__ = [
    "NOISE_LR_MULTIPLIER",
    "Distillation",
    "PostTrainingResult",
    "Pruner",
    "Schedule",
    "parameter_groups",
    "prune_trained",
    "range_test",
]
