"""What pruning has brought: the network before and after, measured side by side, shown and drawn."""

from bmrs_torch.reporting.comparison import Comparison, Cost, LayerChange
from bmrs_torch.reporting.draw_sweep import draw_sweep
from bmrs_torch.reporting.figures import draw_evidence, draw_layers
from bmrs_torch.reporting.report import report
from bmrs_torch.reporting.sweep import sweep
from bmrs_torch.reporting.sweep_result import Sweep, SweepRow

__all__ = [
    "Comparison",
    "Cost",
    "LayerChange",
    "Sweep",
    "SweepRow",
    "draw_evidence",
    "draw_layers",
    "draw_sweep",
    "report",
    "sweep",
]
