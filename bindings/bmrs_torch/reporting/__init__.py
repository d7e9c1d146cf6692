"""What pruning has brought: the network before and after, measured side by side, shown and drawn."""

from bmrs_torch.reporting.comparison import Comparison, Cost, LayerChange
from bmrs_torch.reporting.figures import draw_evidence, draw_layers
from bmrs_torch.reporting.report import report

__all__ = ["Comparison", "Cost", "LayerChange", "draw_evidence", "draw_layers", "report"]
