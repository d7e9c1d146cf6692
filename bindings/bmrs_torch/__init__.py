"""Bayesian model reduction for structured pruning: train with noise, prune by evidence, ship less."""

from bmrs_torch.insertion import PRESETS, insert_noise, plan_insertion
from bmrs_torch.layer import MultiplicativeNoise, noise_layers
from bmrs_torch.layout import LayoutError
from bmrs_torch.module_graph import NotFoldableError
from bmrs_torch.noise import multiplicative_noise
from bmrs_torch.objective import KL_WEIGHT_STRONG, KL_WEIGHT_WITHOUT_LOSS, elbo_loss, kl_divergence
from bmrs_torch.optimization import NOISE_LR_MULTIPLIER, parameter_groups
from bmrs_torch.placement import InsertionPlan, Placement
from bmrs_torch.post_training import PostTrainingResult, prune_trained
from bmrs_torch.pruning import (
    HALF_LOG_2PI,
    CompactionPlan,
    LayerPruning,
    LayerRemoval,
    Pruner,
    PruneReport,
    Schedule,
    Scores,
    SurgeryError,
    compact,
    coupled_gates,
    fold,
    plan_compaction,
    prune,
    ranks,
    scores,
)
from bmrs_torch.reporting import Comparison, Cost, LayerChange, draw_evidence, draw_layers, report
from bmrs_torch.shipping import ShippingError, load_pruned, save_pruned

__all__ = [
    "HALF_LOG_2PI",
    "KL_WEIGHT_STRONG",
    "KL_WEIGHT_WITHOUT_LOSS",
    "NOISE_LR_MULTIPLIER",
    "PRESETS",
    "CompactionPlan",
    "Comparison",
    "Cost",
    "InsertionPlan",
    "LayerChange",
    "LayerPruning",
    "LayerRemoval",
    "LayoutError",
    "MultiplicativeNoise",
    "NotFoldableError",
    "Placement",
    "PostTrainingResult",
    "PruneReport",
    "Pruner",
    "Schedule",
    "Scores",
    "ShippingError",
    "SurgeryError",
    "compact",
    "coupled_gates",
    "draw_evidence",
    "draw_layers",
    "elbo_loss",
    "fold",
    "insert_noise",
    "kl_divergence",
    "load_pruned",
    "multiplicative_noise",
    "noise_layers",
    "parameter_groups",
    "plan_compaction",
    "plan_insertion",
    "prune",
    "prune_trained",
    "ranks",
    "report",
    "save_pruned",
    "scores",
]
