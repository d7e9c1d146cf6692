"""From masks to a smaller network, an ordinary one in the end, each step verified."""

from bmrs_torch.surgery.compact import compact
from bmrs_torch.surgery.fold import NotFoldableError, fold
from bmrs_torch.surgery.plan_compaction import CompactionPlan, LayerRemoval, plan_compaction
from bmrs_torch.surgery.separate_attention import SeparateAttention, separate_attention
from bmrs_torch.surgery.verification import SurgeryError

__all__ = [
    "CompactionPlan",
    "LayerRemoval",
    "NotFoldableError",
    "SeparateAttention",
    "SurgeryError",
    "compact",
    "fold",
    "plan_compaction",
    "separate_attention",
]
