"""What processes that train one network need of each other, by torch.distributed and nothing else."""

from bmrs_torch.distributed.ranks import Ranks, RanksDisagreeError
from bmrs_torch.distributed.seeds import noise_rank, set_noise_rank

__all__ = ["Ranks", "RanksDisagreeError", "noise_rank", "set_noise_rank"]
