"""What each rank of a network divided by ``fully_shard`` does; the tests beside it say what must come."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from bmrs_torch import (
    Pruner,
    Schedule,
    compact,
    fold,
    insert_noise,
    kl_divergence,
    noise_layers,
    parameter_groups,
    plan_compaction,
    prune,
    scores,
)
from bmrs_torch.distributed import gathered, load_checkpoint, save_checkpoint
from bmrs_torch.distributed.ranks import digest
from tests.bindings.distributed.launching import serve

SAMPLES = 32
EPOCHS = 4


def rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def network() -> nn.Sequential:
    """Layers of 13, 3 and 10 structures: no number that two or four processes divide, and less than four."""
    torch.manual_seed(0)
    layers = nn.Linear(6, 13), nn.ReLU(), nn.Linear(13, 3), nn.Tanh(), nn.Linear(3, 10), nn.ReLU()
    noisy = insert_noise(nn.Sequential(*layers, nn.Linear(10, 4)), example())
    assert isinstance(noisy, nn.Sequential)
    return noisy


def example() -> Tensor:
    return torch.linspace(-1, 1, 4 * 6).reshape(4, 6)


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(SAMPLES, 6, generator=generator), torch.arange(SAMPLES) % 4
    return list(zip(x.split(8), y.split(8), strict=True))


def own(batch: Tensor) -> Tensor:
    """A rank's part of a minibatch."""
    number = distributed.get_world_size() if distributed.is_initialized() else 1
    return batch[rank() :: number]


def divide(model: nn.Sequential, how: str) -> nn.Sequential:
    shape = (distributed.get_world_size(),)
    if how == "in two copies":
        mesh = init_device_mesh("cpu", (2, shape[0] // 2), mesh_dim_names=("copies", "parts"))
    else:
        mesh = init_device_mesh("cpu", shape)
    for layer in (model[0], model[2]) if how != "as one" else ():
        fully_shard(layer, mesh=mesh, reshard_after_forward=how == "by layers")
    fully_shard(model, mesh=mesh)
    return model


def learnt(how: str) -> dict[str, Tensor]:
    model = divide(expected(network()), how)
    optimizer = torch.optim.SGD(parameter_groups(model, 0.1))
    pruner = Pruner(model, optimizer, num_samples=SAMPLES)
    for x, y in batches():
        optimizer.zero_grad()
        pruner.loss(cross_entropy(model(own(x)), own(y))).backward()
        optimizer.step()
    whole = gathered(model)
    assert type(whole) is nn.Sequential
    return {
        **whole.state_dict(),
        "kl": kl_divergence(model).detach(),
        "of the copy": kl_divergence(whole).detach(),
    }


def expected(model: nn.Sequential) -> nn.Sequential:
    for layer in noise_layers(model.train()).values():
        layer.eval()
    return model


def decisions() -> dict[str, Any]:
    """Of a divided network and of the whole one, by what looks at noise, at weights and at the network."""
    found: dict[str, Any] = {}
    options: dict[str, dict[str, Any]] = {
        "noise": {"criterion": "mean", "threshold": 0.01},
        "weights": {"criterion": "l2", "amount": 0.4},
        "gradients": {"criterion": "taylor", "amount": 0.4},
        "coupled": {"criterion": "mean", "threshold": 0.01, "coupling": "all", "example_inputs": example()},
        "budget": {"criterion": "mean", "budget": {"macs": 0.5}, "example_inputs": example()},
    }
    for name, chosen in options.items():
        for model in (apart(network()), by_layers(apart(network()))):
            with_gradients(model)
            report = prune(model, **chosen)
            masks = {name: layer.mask for name, layer in noise_layers(model).items()}
            kind = type(model).__name__
            found[f"{name} {kind}"] = report.pruned_now, str(report), digest(masks)
            if kind != "Sequential":
                plan = str(plan_compaction(model, example()))
                smaller = compact(model, example())
                found[f"{name} network"] = plan, str(fold(smaller, example())), digest(smaller.state_dict())
                found[f"{name} scores"] = digest(dict(scores(model)))
    return found


def apart(model: nn.Sequential) -> nn.Sequential:
    for number, layer in enumerate(noise_layers(model).values()):
        generator = torch.Generator().manual_seed(number)
        layer.mu.data.copy_(-20 * torch.rand(layer.num_structures, generator=generator))
    return expected(model)


def with_gradients(model: nn.Module) -> None:
    """Of the same minibatch on every rank, so that their mean is that of a process alone."""
    cross_entropy(model(example()), torch.arange(4)).backward()


def made(wrap: Callable[[nn.Sequential], nn.Module]) -> tuple[nn.Module, torch.optim.Optimizer, Pruner]:
    model = wrap(network())
    optimizer = torch.optim.Adam(parameter_groups(model, 0.01))
    pruner = Pruner(
        model,
        optimizer,
        num_samples=SAMPLES,
        criterion="mean",
        amount=0.3,
        schedule=Schedule(finetune_from=3),
        example_inputs=example(),
    )
    return model, optimizer, pruner


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, pruner: Pruner, *, until: int = EPOCHS
) -> dict[str, Any]:
    while pruner.epochs < until:
        for x, y in batches():
            optimizer.zero_grad()
            pruner.loss(cross_entropy(model(own(x)), own(y))).backward()
            optimizer.step()
        pruner.end_epoch()
    finished = pruner.finish()
    return {
        "plain": str(finished),
        "finished": digest(finished.state_dict()),
        "history": pruner.history,
    }


def by_layers(model: nn.Sequential) -> nn.Module:
    return divide(model, "by layers")


def run() -> dict[str, Any]:
    return train(*made(by_layers))


def stopped() -> dict[str, Any]:
    """Saved after two epochs, and taken up by others; told: what the noise is then."""
    model, optimizer, pruner = made(by_layers)
    train(model, optimizer, pruner, until=2)
    save_checkpoint(checkpoint(), model, optimizer, pruner)
    return {"whole": digest(gathered(model).state_dict()), "history": pruner.history}


def checkpoint() -> Path:
    """Beside the folders of the runs on two and on four processes."""
    return Path(sys.argv[1]).parent / "checkpoint"


def resumed(wrap: Callable[[nn.Sequential], nn.Module] = by_layers) -> dict[str, Any]:
    model, optimizer, pruner = made(wrap)
    load_checkpoint(checkpoint(), model, optimizer, pruner)
    begun = {"whole": digest(gathered(inner(model)).state_dict()), "history then": list(pruner.history)}
    return {**begun, **train(model, optimizer, pruner)}


def inner(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, DistributedDataParallel) else model


def begun_without_values() -> dict[str, Any]:
    """Built and divided on the meta device; then it gets room, weights, and noise that begins."""
    with torch.device("meta"):
        model = insert_noise(nn.Sequential(nn.Linear(6, 13), nn.ReLU(), nn.Linear(13, 4)), example())
    fully_shard(model, mesh=init_device_mesh("cpu", (distributed.get_world_size(),)))
    model.to_empty(device="cpu")
    for layer in noise_layers(model).values():
        layer.reset_parameters()
    for name, parameter in model.named_parameters():
        if "noise" not in name:
            nn.init.constant_(parameter, 0.1)
    optimizer = torch.optim.Adam(parameter_groups(model, 0.01))
    pruner = Pruner(
        model, optimizer, num_samples=SAMPLES, criterion="mean", amount=0.3, example_inputs=example()
    )
    pruner.loss(cross_entropy(model(example()), torch.arange(4))).backward()
    optimizer.step()
    pruner.end_epoch()
    return {"plain": str(pruner.finish()), "kl": pruner.history[-1]["kl"]}


def refusals() -> dict[str, str]:
    model, optimizer, _ = made(by_layers)
    options: dict[str, Any] = {"num_samples": SAMPLES, "example_inputs": example()}
    torch.manual_seed(0)
    old = FullyShardedDataParallel(network(), device_id=torch.device("cpu"), use_orig_params=True)
    return {
        "shrink": error_of(lambda: Pruner(model, optimizer, shrink=True, **options)),
        "others": error_of(lambda: Pruner(model, optimizer, others=[network()], **options)),
        "optimizer": error_of(lambda: compact(model, example(), optimizer=optimizer)),
        "insert": error_of(lambda: insert_noise(model, example())),
        "FSDP1": error_of(lambda: Pruner(old, num_samples=SAMPLES)),
    }


def error_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except ValueError as error:
        return str(error)
    return ""


CHECKS: dict[str, Callable[[], Any]] = {
    "as one": lambda: learnt("as one"),
    "by layers": lambda: learnt("by layers"),
    "kept gathered": lambda: learnt("kept gathered"),
    "decisions": decisions,
    "run": run,
    "stopped": stopped,
    "resumed": resumed,
    "begun without values": begun_without_values,
    "refusals": refusals,
}

ON_FOUR: dict[str, Callable[[], Any]] = {
    "by layers": lambda: learnt("by layers"),
    "in two copies": lambda: learnt("in two copies"),
    "resumed": resumed,
    "resumed by DistributedDataParallel": lambda: resumed(DistributedDataParallel),
}

if __name__ == "__main__":
    serve(CHECKS if sys.argv[3] == "2" else ON_FOUR)
