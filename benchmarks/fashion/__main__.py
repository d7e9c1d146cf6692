"""``python -m benchmarks.fashion``: a residual network or a vision transformer, pruned on Fashion-MNIST."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.demo.data import DataError, ImageData, load_images
from benchmarks.fashion.after_training import prune_after_training
from benchmarks.fashion.networks import NETWORKS, WHERE
from benchmarks.fashion.record import make_record
from benchmarks.fashion.training import FashionSettings, evaluate, prune_by_evidence, train_unpruned
from benchmarks.measuring.options import limited_threads
from bmrs_torch import Comparison, draw_evidence, draw_layers, load_pruned, report, save_pruned

DEFAULTS = {"resnet": (4, 4, 2, 100.0), "vit": (6, 4, 2, 10.0)}
"""Epochs of training, of pruning and of fine-tuning, and the weight of the divergence."""

POST_TRAINING_STEPS = 400
LATENCY_BATCH, LATENCY_SECONDS = 32, 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment; return the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = _parse(arguments)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    try:
        data = load_images(options.data, download_to=out / "fashion-mnist")
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    with limited_threads(options.threads):
        _run(options, arguments, data, out)
    print(f"{time.monotonic() - started:.0f} s in all; results are in {out}")
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fashion", description=__doc__)
    add = parser.add_argument
    add("--network", choices=sorted(NETWORKS), required=True)
    add("--epochs", type=int, nargs=3, metavar=("TRAIN", "PRUNE", "FINETUNE"), help="default: see --network")
    add("--kl-weight", type=float, help="accuracy against compression")
    add("--where", help=f"a preset of insert_noise (default: {WHERE})")
    add("--post-training-steps", type=int, default=POST_TRAINING_STEPS, help="0: leave that part out")
    add("--post-training-kl-weight", type=float, help="default: that of --kl-weight")
    add("--unpruned", type=Path, help="a trained network, of an earlier run's --out, instead of training one")
    add("--data", help="folder with the IDX files of (Fashion-)MNIST, or 'digits'; default: looked for")
    add("--out", type=Path, default=Path("fashion-output"), help="folder for results (default: %(default)s)")
    add("--threads", type=int, default=1, help="default: %(default)s")
    add("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    options.epochs = options.epochs or list(DEFAULTS[options.network][:3])
    if min(options.epochs) < 1 or options.threads < 1 or options.post_training_steps < 0:
        parser.error("--epochs and --threads must be at least 1, --post-training-steps at least 0")
    options.where = options.where or WHERE[options.network]
    if options.kl_weight is None:
        options.kl_weight = DEFAULTS[options.network][3]
    return options


def _run(options: argparse.Namespace, arguments: Sequence[str], data: ImageData, out: Path) -> None:
    train, prune, finetune = options.epochs
    settings = FashionSettings(
        options.network, train, prune, finetune, options.kl_weight, options.where, seed=options.seed
    )
    name = f"fashion_{options.network}"
    if options.unpruned is None:
        unpruned, training = train_unpruned(settings, data, _say)
        save_pruned(unpruned, out / f"{name}_unpruned.safetensors")
    else:
        unpruned, training = load_pruned(NETWORKS[options.network], options.unpruned), []
        _say(f"{options.unpruned}: {100 * evaluate(unpruned, data):.2f} % of the test images right")
    course = prune_by_evidence(unpruned, settings, data, _say)
    save_pruned(course.pruned, out / f"{name}_pruned.safetensors")
    comparison = _compare(course.unpruned, course.pruned, data)
    print(comparison)
    after = None
    if options.post_training_steps:
        after = prune_after_training(
            course.unpruned,
            settings,
            data,
            _say,
            steps=options.post_training_steps,
            kl_weight=options.post_training_kl_weight or options.kl_weight,
        )
    record = make_record(settings, arguments, data.name, training, course, comparison, after)
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    (out / f"{name}.json").write_text(text, encoding="utf-8")
    title = f"{options.network} on {data.name}, bmrs_n"
    draw_evidence(course.decisions, out / f"{name}_evidence.png", title=title)
    if course.decisions[-1].num_kept < sum(layer.kept.size for layer in course.decisions[-1].layers):
        draw_layers(course.decisions[-1], out / f"{name}_layers.png", title=title)
    _say(
        f"masked to shrunk: {course.difference:.1e} relative; accuracy lost: "
        f"{record['accuracy_points_lost']:.2f} points; {comparison.speedup:.2f} times as fast"
    )


def _compare(before: torch.nn.Module, after: torch.nn.Module, data: ImageData) -> Comparison:
    return report(
        before,
        after,
        data.test_images[:LATENCY_BATCH],
        metrics={"test accuracy": lambda model: evaluate(model, data)},
        seconds=LATENCY_SECONDS,
    )


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
