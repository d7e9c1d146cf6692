"""What each rank of DistributedDataParallel does; the tests beside it say what must come of it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

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
    report,
    scores,
)
from bmrs_torch.distributed import set_noise_rank
from bmrs_torch.distributed.ranks import digest
from tests.bindings.distributed.launching import serve

SAMPLES = 32
BATCH = 8
DRAWS = 32768


def rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    plain = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 4))
    noisy = insert_noise(plain, torch.ones(2, 6))
    assert isinstance(noisy, nn.Sequential)
    return noisy


def with_norm() -> nn.Sequential:
    """Each rank's BatchNorm sees its own minibatches."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4))
    noisy = insert_noise(plain, example())
    assert isinstance(noisy, nn.Sequential)
    return noisy


def example() -> Tensor:
    return torch.linspace(-1, 1, 4 * 6).reshape(4, 6)


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(SAMPLES, 6, generator=generator), torch.arange(SAMPLES) % 4


def expected(model: nn.Module) -> nn.Module:
    """In training mode, but for the noise, which is E[θ] and learns: nothing is drawn."""
    for layer in noise_layers(model.train()).values():
        layer.eval()
    return model


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def noise() -> dict[str, Any]:
    """θ of the layer, drawn twice from one seed; on few samples and on many, which are drawn otherwise."""
    layer = next(iter(noise_layers(network()).values()))
    layer.mu.data.fill_(-1.0)
    layer.log_sigma.data.fill_(-0.5)
    few, many = torch.ones(3, 12), torch.ones(DRAWS, 12)
    found: dict[str, Any] = {}
    for name, x in (("few", few), ("many", many)):
        torch.manual_seed(5)
        first = layer(x).detach()
        torch.manual_seed(5)
        again = layer(x).detach()
        found[name] = first
        found[f"{name} again"] = bool(first.equal(again))
    torch.manual_seed(5)
    found["compiled"] = torch.compile(layer, backend="eager", fullgraph=True)(few).detach()
    set_noise_rank(0)
    torch.manual_seed(5)
    found["by number 0"] = layer(few).detach()
    set_noise_rank(None)
    return found


def learnt(*, uneven: bool = False) -> dict[str, Tensor]:
    """Two ranks on halves of each minibatch."""
    model = expected(network())
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(parameter_groups(model, 0.1))
    pruner = Pruner(wrapped, optimizer, num_samples=SAMPLES)
    for x, y in halves(uneven=uneven)[rank()]:
        optimizer.zero_grad()
        pruner.loss(cross_entropy(wrapped(x), y)).backward()
        optimizer.step()
    return state(model)


def halves(*, uneven: bool) -> list[list[tuple[Tensor, Tensor]]]:
    """The minibatches of both ranks; the last one of rank 1, if uneven, is smaller."""
    x, y = data()
    batches = list(zip(x.split(BATCH), y.split(BATCH), strict=True))
    both = [[(a[half::2], b[half::2]) for a, b in batches] for half in (0, 1)]
    if uneven:
        a, b = both[1][-1]
        both[1][-1] = a[:1], b[:1]
    return both


def uneven_numbers() -> dict[str, Any]:
    """Rank 1 runs out of minibatches a step before rank 0 does."""
    model = network()
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(parameter_groups(model, 0.1))
    pruner = Pruner(wrapped, optimizer, num_samples=SAMPLES, criterion="mean", amount=0.5)
    for _ in range(2):
        with wrapped.join():
            for x, y in halves(uneven=False)[rank()][rank() :]:
                optimizer.zero_grad()
                pruner.loss(cross_entropy(wrapped(x), y)).backward()
                optimizer.step()
        pruner.end_epoch()
    return {"state": digest(state(model)), "history": pruner.history}


def decisions() -> dict[str, Any]:
    """Of noise that is the same on both ranks; then of noise that isn't."""
    model = network()
    for number, layer in enumerate(noise_layers(model).values()):
        generator = torch.Generator().manual_seed(number)
        layer.mu.data.copy_(-20 * torch.rand(layer.num_structures, generator=generator))
    wrapped = DistributedDataParallel(model)
    found: dict[str, Any] = {"report": str(prune(wrapped, "mean", threshold=0.01))}
    found["masks"] = {name: layer.mask.clone() for name, layer in noise_layers(wrapped).items()}
    if rank() == 1:
        noise_layers(model)["2.noise"].mu.data[3] += 1e-6
    found["apart"] = error_of(lambda: prune(wrapped, "mean", threshold=0.5))
    found["masks then"] = {name: layer.mask.clone() for name, layer in noise_layers(wrapped).items()}
    noise_layers(model)["2.noise"].mu.data[3] = torch.nan
    found["unusable"] = error_of(lambda: prune(wrapped))
    return found


def error_of(call: Any) -> str:
    try:
        call()
    except ValueError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def differing() -> dict[str, str]:
    """What the ranks are given isn't the same."""
    model = network()
    wrapped = DistributedDataParallel(model)
    pruner = Pruner(wrapped, num_samples=SAMPLES)
    return {
        "example": error_of(lambda: Pruner(wrapped, num_samples=SAMPLES, example_inputs=example() + rank())),
        "samples": error_of(lambda: Pruner(wrapped, num_samples=SAMPLES + rank())),
        "schedule": error_of(
            lambda: Pruner(wrapped, num_samples=SAMPLES, schedule=Schedule(every=1 + rank()))
        ),
        "finish": error_of(lambda: pruner.finish(example() + rank())),
        "wrapper": error_of(lambda: Pruner(network(), wrapper=wrapped, num_samples=SAMPLES)),
    }


def run(*, stop_after: int | None = None) -> dict[str, Any]:
    """A whole training that shrinks, fine-tunes and finishes, taken up from its own state if stopped."""
    model, wrapped, optimizer, average, pruner = made()
    epochs = 4
    saved: dict[str, Any] = {}
    for epoch in range(epochs):
        if epoch == stop_after:
            saved = copy.deepcopy(
                {
                    "pruner": pruner.state_dict(),
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "average": average.state_dict(),
                    "generator": torch.get_rng_state(),
                }
            )
            model, wrapped, optimizer, average, pruner = made()
            pruner.load_state_dict(saved["pruner"])
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            average.load_state_dict(saved["average"])
            torch.set_rng_state(saved["generator"])
        for x, y in halves(uneven=True)[rank()][: 3 + 1]:
            optimizer.zero_grad()
            pruner.loss(cross_entropy(wrapped(torch.cat([x, x])), torch.cat([y, y]))).backward()
            optimizer.step()
            average.update_parameters(model)
        before = digest([model[0].weight, model[3].weight])
        pruner.end_epoch()
    finished = pruner.finish()
    return {
        "finished": digest(finished.state_dict()),
        "plain": str(finished),
        "average": digest(average.module.state_dict()),
        "widths": [entry["num_kept"] for entry in pruner.history],
        "history": pruner.history,
        "last": before,
        "statistics": digest(dict(model.named_buffers())),
    }


def made() -> tuple[nn.Sequential, DistributedDataParallel, torch.optim.Optimizer, AveragedModel, Pruner]:
    model = with_norm()
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.Adam(parameter_groups(model, 0.01))
    average = AveragedModel(model)
    pruner = Pruner(
        wrapped,
        optimizer,
        num_samples=SAMPLES,
        criterion="mean",
        amount=0.25,
        schedule=Schedule(finetune_from=3),
        shrink=True,
        example_inputs=example(),
        others=[average],
    )
    return model, wrapped, optimizer, average, pruner


def wrapped_models() -> dict[str, Any]:
    """The functions of a plain model, on wrapped ones: compiled within, and without."""
    model = network()
    noise_layers(model)["0.noise"].mask[1] = 0
    found: dict[str, Any] = {}
    inside: Any = torch.compile(model, backend="eager")
    outside: Any = torch.compile(DistributedDataParallel(model), backend="eager")
    models: dict[str, Any] = {"within": DistributedDataParallel(inside), "without": outside, "plain": model}
    for name, wrapped in models.items():
        smaller = compact(wrapped, example())
        compared = report(wrapped, smaller, example(), seconds=0.01)
        found[name] = {
            "layers": list(noise_layers(wrapped)),
            "kl": kl_divergence(wrapped).item(),
            "scores": digest(dict(scores(wrapped))),
            "plan": str(plan_compaction(wrapped, example())),
            "smaller": digest(smaller.state_dict()),
            "plain": digest(fold(smaller, example()).state_dict()),
            "parameters": compared.before.parameters,
            "rows": [layer.name for layer in compared.layers],
        }
    return found


def remade() -> dict[str, Any]:
    """The wrapper after it was made anew: its arguments, its hook, and what it can't take along."""
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook

    model = with_norm()
    wrapped = DistributedDataParallel(
        model,
        broadcast_buffers=False,
        find_unused_parameters=True,
        gradient_as_bucket_view=True,
        bucket_cap_mb=3,
    )
    wrapped.register_comm_hook(None, default_hooks.allreduce_hook)
    options: dict[str, Any] = {"num_samples": SAMPLES, "criterion": "mean", "amount": 0.5}
    pruner = Pruner(wrapped, schedule=Schedule(finetune_from=1), **options)
    pruner.end_epoch()
    wrapped(example()).sum().backward()
    gradient = model[0].weight.grad
    assert gradient is not None
    stateful = DistributedDataParallel(with_norm())
    stateful.register_comm_hook(powerSGD_hook.PowerSGDState(None), powerSGD_hook.powerSGD_hook)
    return {
        "arguments": (
            wrapped.find_unused_parameters,
            wrapped.gradient_as_bucket_view,
            wrapped.bucket_bytes_cap,
            len(wrapped._comm_hooks),
        ),
        "gradient": digest(gradient),
        "stateful": error_of(lambda: Pruner(stateful, schedule=Schedule(finetune_from=1), **options)),
        "without": error_of(lambda: Pruner(stateful, **options)),
    }


CHECKS = {
    "noise": noise,
    "even": learnt,
    "uneven": lambda: learnt(uneven=True),
    "uneven numbers": uneven_numbers,
    "decisions": decisions,
    "differing": differing,
    "run": run,
    "resumed": lambda: run(stop_after=2),
    "wrapped": wrapped_models,
    "remade": remade,
}

if __name__ == "__main__":
    serve(CHECKS)
