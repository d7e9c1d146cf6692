"""Saving a pruned network without its code, and loading it into a fresh one."""

from bmrs_torch.shipping.layout import LayoutError
from bmrs_torch.shipping.save_pruned import ShippingError, load_pruned, save_pruned

__all__ = ["LayoutError", "ShippingError", "load_pruned", "save_pruned"]
