"""``python -m benchmarks.demo``: train LeNet-5 with noise, prune it by evidence, ship a smaller network."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from benchmarks.demo.checkpoint import ResumeError, load_checkpoint, save_checkpoint
from benchmarks.demo.data import DataError, ImageData, load_images
from benchmarks.demo.figure import draw_figure
from benchmarks.demo.network import FULL_WIDTHS, LeNet5, lenet_parameters
from benchmarks.demo.training import DemoSettings, EpochRecord, Run, evaluate, run_epoch, start
from bmrs_torch import report, save_pruned

FEW_IMAGES = 10_000
TIMED_IMAGES = 32
SECONDS = 2.0
MAX_LINES = 10
EPOCHS, EPOCHS_FEW_IMAGES, EPOCHS_FULL = (5, 2), (30, 15), (15, 5)
BATCH, BATCH_FEW_IMAGES = 128, 32
KL_WEIGHT, KL_WEIGHT_FEW_IMAGES = 30.0, 3.0
"""The KL counts 1/N per image: the digits are 40 times fewer, and 30 would leave 1.4 % of the network."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; return the exit status."""
    options = _parse(arguments)
    console = Console()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    try:
        data = load_images(options.data, download_to=out / "fashion-mnist")
        run = _begin(options, data, out / "checkpoint.pt")
    except (DataError, ResumeError) as error:
        console.print(f"[red]{error}[/red]")
        return 2
    _introduce(console, run, data)
    try:
        _train(console, run, data, out / "checkpoint.pt")
        status = _finish(console, run, data, options)
    except KeyboardInterrupt:
        console.print(f"\nInterrupted. What was finished is in {out / 'checkpoint.pt'}; go on with\n")
        console.print(f"    {_command(options)}", highlight=False)
        return 130
    console.print(f"{time.monotonic() - started:.0f} s in all.")
    return status


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__)
    add = parser.add_argument
    add(
        "--data",
        help="folder with the IDX files of (Fashion-)MNIST, or 'digits'; default: Fashion-MNIST from "
        "the folder in BMRS_DATA, Debian's package, an earlier download or the network, else the digits",
    )
    add("--out", type=Path, default=Path("demo-output"), help="folder for results (default: %(default)s)")
    add("--epochs", type=int, help="epochs with noise and pruning")
    add("--finetune-epochs", type=int, help="epochs afterwards, without noise")
    add(
        "--full",
        action="store_true",
        help=f"{EPOCHS_FULL[0]} + {EPOCHS_FULL[1]} epochs instead of the short run",
    )
    weights = f"{KL_WEIGHT:g}, or {KL_WEIGHT_FEW_IMAGES:g} for few images"
    add("--kl-weight", type=float, help=f"accuracy against compression (default: {weights})")
    add("--seed", type=int, default=0)
    add("--resume", action="store_true", help="go on from the checkpoint in --out, with its settings")
    options = parser.parse_args(arguments)
    for name, least in (("epochs", 1), ("finetune_epochs", 0)):
        number = getattr(options, name)
        if number is not None and number < least:
            parser.error(f"--{name.replace('_', '-')} must be at least {least}, got {number}")
    return options


def _begin(options: argparse.Namespace, data: ImageData, checkpoint: Path) -> Run:
    if options.resume:
        return load_checkpoint(checkpoint, data)
    few = len(data.train_labels) < FEW_IMAGES
    epochs, finetune = EPOCHS_FULL if options.full else EPOCHS_FEW_IMAGES if few else EPOCHS
    settings = DemoSettings(
        epochs=epochs if options.epochs is None else options.epochs,
        finetune_epochs=finetune if options.finetune_epochs is None else options.finetune_epochs,
        batch_size=BATCH_FEW_IMAGES if few else BATCH,
        kl_weight=(KL_WEIGHT_FEW_IMAGES if few else KL_WEIGHT)
        if options.kl_weight is None
        else options.kl_weight,
        seed=options.seed,
    )
    run = start(settings)
    save_checkpoint(run, data.name, checkpoint)
    return run


def _command(options: argparse.Namespace) -> str:
    data = f" --data {options.data}" if options.data else ""
    return f"python -m benchmarks.demo --resume --out {options.out}{data}"


def _introduce(console: Console, run: Run, data: ImageData) -> None:
    settings = run.settings
    console.print(f"[bold]LeNet-5 on {data.name}[/bold] ({data.source})", highlight=False)
    console.print(
        f"{len(data.train_labels):,} training and {len(data.test_labels):,} test images. "
        f"First the whole network plainly for {settings.epochs_of('baseline')} epochs, to compare with; "
        f"then with noise for {settings.epochs} epochs, pruned where ΔF ≥ −½ log 2π and shrunk after each "
        f"(KL weight {settings.kl_weight:g}); then, the noise folded in, {settings.finetune_epochs} epochs "
        "of fine-tuning.",
        highlight=False,
    )


def _train(console: Console, run: Run, data: ImageData, checkpoint: Path) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[now]}"), console=console, transient=True) as progress:
        while run.phase != "done":
            total = run.settings.epochs_of(run.phase)
            task = progress.add_task(f"{run.phase} {run.epoch + 1}/{total}", now="")
            record = run_epoch(run, data, partial(_show, progress, task))
            progress.remove_task(task)
            if total <= MAX_LINES or _is_news(run):
                console.print(_line(record, total), highlight=False)
            save_checkpoint(run, data.name, checkpoint)


def _show(progress: Progress, task: TaskID, done: int, steps: int, now: str) -> None:
    progress.update(task, completed=done, total=steps, now=now)


def _line(record: EpochRecord, total: int) -> str:
    left = record.parameters / lenet_parameters(FULL_WIDTHS)
    kept = ", ".join(map(str, record.widths))
    return (
        f"{record.phase:>8} {record.epoch:2d}/{total}  accuracy {record.accuracy:6.2%}  "
        f"kept {kept:<14} {left:6.1%} of parameters"
    )


def _is_news(run: Run) -> bool:
    """Whether the last epoch changed the network, or ended a phase."""
    record = run.history[-1]
    before = run.history[-2].widths if len(run.history) > 1 else FULL_WIDTHS
    return run.phase != record.phase or (record.phase == "prune" and record.widths != before)


def _finish(console: Console, run: Run, data: ImageData, options: argparse.Namespace) -> int:
    out: Path = options.out
    assert isinstance(run.model, LeNet5)
    assert run.baseline is not None
    save_pruned(run.baseline, out / "lenet5-whole.safetensors")
    network = out / "lenet5-shrunk.safetensors"
    save_pruned(run.model, network)
    # Before and after: trained plainly, and pruned by BMRS.
    found = report(
        run.baseline,
        run.model,
        data.test_images[:TIMED_IMAGES],
        metrics={"test accuracy": lambda model: evaluate(model, data)},
        seconds=SECONDS,
    )
    console.print(f"\nTrained plainly, and pruned by BMRS; {TIMED_IMAGES} images:", highlight=False)
    console.print(f"\n{found}\n", highlight=False, soft_wrap=True)
    if run.model.widths() == FULL_WIDTHS:
        console.print("Nothing was pruned: the noise needs more --epochs, or a larger --kl-weight.")
    draw_figure(run, f"LeNet-5 on {data.name}, pruned by evidence", out / "demo.png")
    console.print(f"Figure: {out / 'demo.png'}   Network: {network}")
    right = round(found.after.metrics["test accuracy"] * len(data.test_labels))
    reloaded = _reload(network, data)
    same = "the same" if right == reloaded else "NOT the same"
    console.print(
        f"Loaded again in a new process: {reloaded / len(data.test_labels):.2%} of the test images right, "
        f"{same}.",
        highlight=False,
    )
    return 0 if right == reloaded else 1


def _reload(network: Path, data: ImageData) -> int:
    """Test images that the network gets right when a new process loads it, on the data it was trained on."""
    command = [sys.executable, "-m", "benchmarks.demo.reload", str(network), "--data", data.place]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(answer.stdout)


if __name__ == "__main__":
    sys.exit(main())
