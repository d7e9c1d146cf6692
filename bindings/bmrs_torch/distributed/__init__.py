"""What processes that train one network need of each other, by torch.distributed and nothing else."""

from bmrs_torch.distributed.checkpoint import load_checkpoint, save_checkpoint
from bmrs_torch.distributed.ranks import Ranks, RanksDisagreeError
from bmrs_torch.distributed.seeds import noise_rank, set_noise_rank
from bmrs_torch.distributed.sharding import gathered

__all__ = [
    "Ranks",
    "RanksDisagreeError",
    "gathered",
    "load_checkpoint",
    "noise_rank",
    "save_checkpoint",
    "set_noise_rank",
]
