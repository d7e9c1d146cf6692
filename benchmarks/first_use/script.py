"""Three steps of a small network, pruning and evaluation, each timed: a process of its own runs this."""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    """Print what each stage took since the one before, on the clock and of the processor, as JSON."""
    marks = {"start": (time.perf_counter(), time.process_time())}

    def reached(stage: str) -> None:
        marks[stage] = time.perf_counter(), time.process_time()

    import torch
    from torch import nn

    reached("import torch")
    from bmrs_torch import elbo_loss, insert_noise, parameter_groups, prune

    reached("import bmrs_torch")
    torch.manual_seed(0)
    x, labels = torch.randn(128, 16), torch.randint(0, 2, (128,))
    model = insert_noise(nn.Sequential(nn.Linear(16, 40), nn.ReLU(), nn.Linear(40, 2)), x)
    reached("insert_noise")
    optimizer = torch.optim.Adam(parameter_groups(model, lr=0.01))
    for stage in ("first step", "second step", "third step"):
        optimizer.zero_grad()
        misfit = nn.functional.cross_entropy(model(x), labels)
        elbo_loss(misfit, model, num_samples=len(x)).backward()
        optimizer.step()
        reached(stage)
    prune(model, criterion="bmrs_n")
    reached("prune")
    model.eval()
    with torch.no_grad():
        model(x)
    reached("evaluation")
    stages = list(marks)
    spans = {stages[i]: (stages[i - 1], stages[i]) for i in range(1, len(stages))}
    spans |= {"to the first step": ("start", "first step"), "whole script": ("start", "evaluation")}
    taken = {
        name: [after - before for before, after in zip(marks[begin], marks[end], strict=True)]
        for name, (begin, end) in spans.items()
    }
    json.dump(
        {name: {"seconds": wall, "processor_seconds": own} for name, (wall, own) in taken.items()}, sys.stdout
    )


if __name__ == "__main__":
    main()
