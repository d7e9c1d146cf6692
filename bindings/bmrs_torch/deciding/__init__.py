"""From the noise to a decision: scores, ranks, rules, masks."""

from bmrs_torch.deciding.budget import Budget, BudgetError
from bmrs_torch.deciding.cost_weights import cost_weights
from bmrs_torch.deciding.coupled_gates import coupled_gates
from bmrs_torch.deciding.criteria import HALF_LOG_2PI
from bmrs_torch.deciding.prune import prune
from bmrs_torch.deciding.prune_report import LayerPruning, PruneReport
from bmrs_torch.deciding.scores import Scores, ranks, scores
from bmrs_torch.deciding.spending import Spending

__all__ = [
    "HALF_LOG_2PI",
    "Budget",
    "BudgetError",
    "LayerPruning",
    "PruneReport",
    "Scores",
    "Spending",
    "cost_weights",
    "coupled_gates",
    "prune",
    "ranks",
    "scores",
]
