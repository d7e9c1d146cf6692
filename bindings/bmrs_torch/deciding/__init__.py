"""From criteria to masks to a smaller network."""

from bmrs_torch.pruning.compaction_plan import CompactionPlan, LayerRemoval, coupled_gates, plan_compaction
from bmrs_torch.pruning.criteria import HALF_LOG_2PI
from bmrs_torch.pruning.folding import fold
from bmrs_torch.pruning.masks import LayerPruning, PruneReport, prune
from bmrs_torch.pruning.pruner import Pruner
from bmrs_torch.pruning.scores import Scores, ranks, scores
from bmrs_torch.pruning.surgery import compact
from bmrs_torch.pruning.timetable import Schedule
from bmrs_torch.pruning.verification import SurgeryError

__all__ = [
    "HALF_LOG_2PI",
    "CompactionPlan",
    "LayerPruning",
    "LayerRemoval",
    "PruneReport",
    "Pruner",
    "Schedule",
    "Scores",
    "SurgeryError",
    "compact",
    "coupled_gates",
    "fold",
    "plan_compaction",
    "prune",
    "ranks",
    "scores",
]
