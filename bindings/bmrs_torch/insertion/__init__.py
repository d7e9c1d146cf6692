"""Where noise can be put in a network, and putting it there."""

from bmrs_torch.insertion.insert_noise import ALIASES, PRESETS, insert_noise, plan_insertion
from bmrs_torch.insertion.placement import InsertionPlan, Placement

__all__ = ["ALIASES", "PRESETS", "InsertionPlan", "Placement", "insert_noise", "plan_insertion"]
