"""Train, prune and finish a small network on several processes, and take it up again where it was stopped.

torchrun --nproc-per-node 2 docs/guides/several_machines.py --checkpoints runs/several-machines
"""

from __future__ import annotations

import argparse
import hashlib
import math
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from bmrs_torch import Pruner, Schedule, insert_noise, parameter_groups
from bmrs_torch.distributed import load_checkpoint, save_checkpoint

SAMPLES, FEATURES, CLASSES = 4096, 20, 4


def main() -> None:
    # A rank that stays away is an error after this time, not a hang.
    distributed.init_process_group("nccl" if on_gpu() else "gloo", timeout=timedelta(minutes=5))
    train(read_arguments())
    distributed.destroy_process_group()  # once nothing is left that uses it


def train(arguments: argparse.Namespace) -> None:
    rank = distributed.get_rank()
    device = torch.device("cpu")
    if on_gpu():
        device = torch.device("cuda", rank % torch.cuda.device_count())
        torch.cuda.set_device(device)

    torch.manual_seed(0)  # the same on all ranks: the rank enters the noise by itself
    data = make_data()
    example = data[:8][0].to(device)  # the same on all ranks, too
    model = nn.Sequential(
        nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES)
    ).to(device)
    insert_noise(model, example)  # before the model is wrapped or divided, and before the optimizer is made
    if arguments.fully_shard:
        fully_shard(model[2])
        wrapped: nn.Module = fully_shard(model)
    else:
        wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.Adam(parameter_groups(model, lr=5e-3))
    pruner = Pruner(
        wrapped,
        optimizer,
        num_samples=len(data),  # of the whole training set, not of a rank's part
        kl_weight=25.0,
        schedule=Schedule(start=3, finetune_from=8),
        shrink=not arguments.fully_shard,
        example_inputs=example,
    )
    last = newest(arguments.checkpoints)
    if last is not None:
        load_checkpoint(last, wrapped, optimizer, pruner)
        say(f"rank {rank} goes on after epoch {pruner.epochs}")

    sampler = DistributedSampler(data, seed=0)
    loader = DataLoader(data, batch_size=64, sampler=sampler)
    while pruner.epochs < 10:
        sampler.set_epoch(pruner.epochs)
        for x, y in loader:
            optimizer.zero_grad()
            pruner.loss(cross_entropy(wrapped(x.to(device)), y.to(device))).backward()
            optimizer.step()
        pruner.end_epoch()
        if rank == 0:
            told = pruner.history[-1]
            say(f"epoch {told['epoch']}: {told['num_kept']} structures, misfit {told['misfit']:.3f}")
        if arguments.checkpoints is not None:
            save_checkpoint(arguments.checkpoints / str(pruner.epochs), wrapped, optimizer, pruner)

    plain = pruner.finish()
    say(f"rank {rank}: {widths(plain)} {fingerprint(plain)}")


def on_gpu() -> bool:
    return torch.cuda.is_available()


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--fully-shard", action="store_true", help="divide the network (FSDP2)")
    parser.add_argument("--checkpoints", type=Path, help="a folder that all processes see")
    return parser.parse_args()


def make_data() -> TensorDataset:
    """Classes that depend on a few directions of the inputs."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(SAMPLES, FEATURES, generator=generator)
    directions = torch.randn(FEATURES, CLASSES, generator=generator) / math.sqrt(FEATURES)
    return TensorDataset(x, (x @ directions).argmax(dim=1))


def newest(folder: Path | None) -> Path | None:
    """The last checkpoint that is whole: `.metadata` is written last."""
    whole = [path.parent for path in folder.glob("*/.metadata")] if folder is not None else []
    return max(whole, key=lambda path: int(path.name), default=None)


def widths(network: nn.Module) -> str:
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    return "→".join(str(n) for n in [layers[0].in_features, *(layer.out_features for layer in layers)])


def fingerprint(network: nn.Module) -> str:
    """Of all weights, to the bit."""
    found = hashlib.sha256()
    values: list[Tensor] = list(network.state_dict().values())
    for value in values:
        found.update(value.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def say(text: str) -> None:
    print(text + "\n", end="", flush=True)  # in one piece: all ranks write to the same place


if __name__ == "__main__":
    main()
