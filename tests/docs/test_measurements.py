"""The figures on the README and on the pages of the site are those of the records in benchmarks/results."""

from __future__ import annotations

import json
import re
import statistics
from typing import Any

import pytest

from benchmarks.rivals.outcome import outcome
from benchmarks.rivals.protocol import Cell
from benchmarks.rivals.record import Record

from .pages import ROOT, text

RESULTS = ROOT / "benchmarks/results"
SPEED, NETWORKS, ACCURACY = (f"docs/results/{name}.md" for name in ("speed", "networks", "accuracy"))


def record(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return found


def table(page: str, heading: str) -> dict[str, list[str]]:
    """The cells of a table's rows by the first one; it is the first whose headings hold a text."""
    blocks = re.findall(r"^(?:\|.*\|\n)+", text(page), flags=re.MULTILINE)
    lines = next(block for block in blocks if heading in block.partition("\n")[0]).splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in rows}


def numbers(cell: str) -> list[str]:
    return re.findall(r"\d+(?:\.\d+)?", cell.replace(",", ""))


def shows(cell: str, *values: float) -> bool:
    """Whether the numbers in a cell are these values, each rounded to as many digits as it has there."""
    found = numbers(cell)
    last = [0.5 * 10.0 ** -len(number.partition(".")[2]) for number in found]
    pairs = zip(found, values, last, strict=True)
    return all(abs(float(number) - value) <= 1.0001 * half for number, value, half in pairs)


def test_a_wrong_digit_is_seen() -> None:
    assert shows("91.15 ± 0.5 %", 91.149, 0.47)
    assert shows("61,706", 61706)
    assert not shows("91.14", 91.1461)
    assert not shows("18.1", 18.17)


ARRAYS = {
    "log Z": "log_normalizer",
    "KL": "kl_divergence",
    "E[θ]": "mean",
    "θ(u)": "quantile",
    "ΔF_N": "delta_f_normal",
    "ΔF_U": "delta_f_uniform",
}
COLUMNS = ("ours_median", "scipy_median", "printed_median", "over_scipy", "over_printed")


@pytest.mark.parametrize(
    ("heading", "processor", "columns"),
    [("ns per element", "amd_epyc", COLUMNS), ("ratio of the medians", "intel_xeon", COLUMNS[-2:])],
)
def test_the_speed_of_functions_of_arrays(heading: str, processor: str, columns: tuple[str, ...]) -> None:
    timings = {one["function"]: one for one in record(f"arrays_speed_{processor}.json")["timings"]}
    rows = table(SPEED, heading)
    assert rows.keys() == ARRAYS.keys()
    for name, cells in rows.items():
        timing = timings[ARRAYS[name]]
        assert all(shows(cell, timing[key]) for cell, key in zip(cells, columns, strict=True)), name


NOISE = {
    "one θ per sample and filter, (32, 64, 56, 56)": ("rows", [32, 64, 56, 56]),
    "one θ per sample and structure, tokens (64, 197, 768)": ("rows", [64, 197, 768]),
    "one θ per filter for the batch, (32, 64, 56, 56)": ("batch", [32, 64, 56, 56]),
    "one θ per element, (32, 64, 56, 56)": ("elements", [32, 64, 56, 56]),
    "one θ per sample and unit, (128, 150)": ("rows", [128, 150]),
}


def test_the_speed_of_the_noise_layer() -> None:
    problems = {(p["op"], tuple(p["shape"])): p["rows"] for p in record("noise_cpu.json")["problems"]}
    rows = table(SPEED, "naive ÷ ours")
    assert rows.keys() == NOISE.keys()
    for name, (forward, backward, naive, dropout) in rows.items():
        op, shape = NOISE[name]
        kept = {(row["direction"], row["variant"]): row["kept"] for row in problems[op, tuple(shape)]}
        for cell, direction in ((forward, "forward"), (backward, "backward")):
            assert shows(cell, 100 / kept[direction, "bmrs_torch"]["times_copy"]), (name, direction)
        for cell, variant in ((naive, "naive"), (dropout, "F.dropout")):
            assert shows(cell, kept["both", variant]["times_ours"]), (name, variant)


def test_the_time_of_a_training_step() -> None:
    networks = {network["title"]: network for network in record("training_step_cpu.json")["networks"]}
    rows = table(SPEED, "free draws")
    assert rows.keys() == networks.keys()
    for name, (*measured, paper) in rows.items():
        ratios = {one["variant"]: one["ratio"] for one in networks[name]["variants"]}
        wanted = [ratios["bmrs_torch"], ratios["free draws"], ratios["naive"]]
        assert all(map(shows, measured, wanted)), name
        assert shows(paper, networks[name]["paper"]["ratio"])


@pytest.mark.parametrize(("file", "first"), [("fashion_resnet.json", 0), ("fashion_vit.json", 2)])
def test_what_larger_networks_show(file: str, first: int) -> None:
    found, rows = record(file), table(NETWORKS, "ResNet-14 | pruned")
    before, after = (found["comparison"][key] for key in ("before", "after"))

    def cells(name: str) -> list[str]:
        return rows[name][first : first + 2]

    def gone(key: str) -> float:
        return 100 * (1 - float(after[key]) / float(before[key]))

    whole, pruned = cells("parameters")
    assert shows(whole, before["parameters"])
    assert shows(pruned, after["parameters"], gone("parameters"))
    whole, pruned = cells("multiply-adds, batch of 32")
    assert shows(whole, before["macs"] / 1e6)
    assert shows(pruned, after["macs"] / 1e6, gone("macs"))
    assert shows(cells("as fast, one thread (median ratio, in turns)")[1], found["latency_ratio"])
    whole, pruned = cells("most activations at once, kB")
    assert shows(whole, before["peak_bytes"] / 1e3)
    assert shows(pruned, after["peak_bytes"] / 1e3)
    later = found["after_training"]
    assert shows(
        cells("pruned after training, 400 steps")[1],
        100 * later["accuracy_pruned"],
        100 * later["accuracy_finetuned"],
    )


def accuracy_table() -> dict[str, list[str]]:
    return table("benchmarks/results/arrays_accuracy.md", "hostile in f64")


def worst(quantity: str) -> float:
    return max(float(numbers(cell)[1]) for cell in accuracy_table()[quantity])


def test_the_worst_errors_are_those_of_the_table() -> None:
    told = " ".join(text(ACCURACY).split())
    told = told[told.index("condition number: ") :].partition(". ")[0]
    for name, quantity in {"quantile": "x(u)"}.items():
        told = told.replace(name, quantity)
    errors = dict(re.findall(r"([^\s:,]+(?: Z)?) (\d+\.\d)", told))
    assert len(errors) == 7
    assert {name: f"{worst(name):.1f}" for name in errors} == errors
    assert f"{worst('Var[θ]'):.0f} eps·κ on one" in " ".join(text("docs/explanation/numerics.md").split())


def told_of(lines: list[dict[str, Any]]) -> str:
    """Accuracy in per cent as on the page of rivals, and the parameters left."""
    points = [100 * line["test_accuracy"] for line in lines]
    spread = f" ± {statistics.stdev(points):.2f}" if len(points) > 1 else ""
    left = statistics.fmean(100 * line["parameters_left"] for line in lines)
    return f"{statistics.fmean(points):.2f}{spread} %, with {left:.1f} %"


def test_the_readme_tells_of_rivals_speed_and_accuracy_what_was_measured() -> None:
    rivals = Record(RESULTS / "rivals.jsonl", "Fashion-MNIST")
    methods = ("bmrs", "taylor", "l2")
    found = [outcome(Cell("resnet", name, 0.2, 6), rivals).lines for name in methods]
    seeds = sorted(set.intersection(*map(set, found)))
    rows = table("README.md", "measured")
    bmrs, taylor, l2 = (told_of([lines[seed] for seed in seeds]) for lines in found)
    told = (
        f"BMRS {bmrs} of the parameters; Torch-Pruning by Taylor scores {taylor}, by L2 {l2}; "
        f"{len(seeds)} seeds"
    )
    assert rows["rivals"][1] == told
    timing = next(
        one for one in record("arrays_speed_amd_epyc.json")["timings"] if one["function"] == "delta_f_normal"
    )
    assert shows(rows["speed"][1], timing["ours_median"], timing["over_scipy"])
    assert shows(rows["accuracy"][1], worst("ΔF_N"), 1)
