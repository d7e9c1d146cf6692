"""Bayesian model reduction for structured pruning: train with noise, prune by evidence, ship less."""

from bmrs_core import __version__
from bmrs_torch.channels import channelwise, follow_by
from bmrs_torch.deciding import (
    HALF_LOG_2PI,
    Budget,
    BudgetError,
    LayerPruning,
    PruneReport,
    Scores,
    Spending,
    coupled_gates,
    prune,
    ranks,
    scores,
)
from bmrs_torch.insertion import ALIASES, PRESETS, InsertionPlan, Placement, insert_noise, plan_insertion
from bmrs_torch.layer import MultiplicativeNoise, noise_layers
from bmrs_torch.objective import default_kl_weight, elbo_loss, kl_divergence
from bmrs_torch.operation import multiplicative_noise
from bmrs_torch.reporting import Comparison, Cost, LayerChange, draw_evidence, draw_layers, report
from bmrs_torch.shipping import LayoutError, ShippingError, load_pruned, save_pruned
from bmrs_torch.surgery import (
    CompactionPlan,
    LayerRemoval,
    NotFoldableError,
    SeparateAttention,
    SurgeryError,
    compact,
    fold,
    plan_compaction,
    separate_attention,
)
from bmrs_torch.training import (
    NOISE_LR_MULTIPLIER,
    Distillation,
    PostTrainingResult,
    Pruner,
    Schedule,
    parameter_groups,
    prune_trained,
)

__all__ = [
    "ALIASES",
    "HALF_LOG_2PI",
    "NOISE_LR_MULTIPLIER",
    "PRESETS",
    "Budget",
    "BudgetError",
    "CompactionPlan",
    "Comparison",
    "Cost",
    "Distillation",
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
    "SeparateAttention",
    "ShippingError",
    "Spending",
    "SurgeryError",
    "__version__",
    "channelwise",
    "compact",
    "coupled_gates",
    "default_kl_weight",
    "draw_evidence",
    "draw_layers",
    "elbo_loss",
    "fold",
    "follow_by",
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
    "separate_attention",
]
