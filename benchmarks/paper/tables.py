"""Tables 1 and 2 as Markdown, LaTeX and CSV. Imports no torch, so that a table takes no second."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from benchmarks.paper.experiments import experiments, method, runs_of
from benchmarks.paper.summary import Cell, Found, Mean, cell, published

NETWORKS = {"mlp": "MLP", "lenet5": "LeNet-5", "resnet50": "ResNet-50", "vit": "ViT-B/16"}
DATASETS = {
    "fashion_mnist": "Fashion-MNIST",
    "mnist": "MNIST",
    "mnist_5000": "MNIST, 5,000 digits",
    "cifar10": "CIFAR-10",
    "tiny_imagenet": "Tiny-ImageNet",
}
FORMATS = ("markdown", "latex", "csv")
_ORDER = ("none", "l2", "mean", "snr", "bmrs_n", "bmrs_n_strict", "bmrs_u_8", "bmrs_u_4")
_MISSING = "–"
_PLUS_MINUS = r" \pm "
_HEADER = (
    "Network",
    "Method",
    "Seeds",
    "Comp. %",
    "Acc. %",
    "Paper: comp. %",
    "Paper: acc. %",
    "Within 2 SD",
    "Released code, 1 seed: comp. %",
    "Its acc. %",
    "Really removed %",
)


def cells(table: str, datasets: Sequence[str], found: Found) -> dict[str, list[Cell]]:
    """What a table holds, by data set, in the paper's order of methods."""
    said = experiments()["experiments"][table]
    names = sorted(said["methods"], key=_ORDER.index)
    plain = {(run.dataset, run.network, run.method): run for run in runs_of(table) if run.seed == 0}
    return {
        dataset: [
            cell(table if table in published() else "table 1", plain[dataset, network, name], found)
            for network in said["networks"]
            for name in names
            if (dataset, network, name) in plain
        ]
        for dataset in datasets
    }


def variants() -> list[str]:
    """Experiments that differ from Table 1 in how the networks are trained."""
    return [name for name, said in experiments()["experiments"].items() if said.get("variant")]


def write(table: str, form: str, datasets: Sequence[str], found: Found) -> str:
    """A table as text.

    Parameters
    ----------
    table : str
        ``"table 1"``, ``"table 2"`` or one of :func:`variants`, which stand beside the paper's Table 1.
    form : {"markdown", "latex", "csv"}
        Of the text. CSV has numbers alone, means and deviations in columns of their own.
    datasets : sequence of str
        One after another.
    found : sequence of pairs of Run and dict
        All results.
    """
    held = cells(table, datasets, found)
    makers: dict[str, Callable[[dict[str, list[Cell]]], str]] = {
        "markdown": _markdown,
        "latex": _latex,
        "csv": _csv,
    }
    return makers[form](held)


def within(cell: Cell) -> bool | None:
    """Whether accuracy and compression lie within two standard deviations of the paper's; None if unknown."""
    if cell.accuracy is None or cell.paper_accuracy is None:
        return None
    if cell.published_count is None or cell.paper_count is None:
        return None
    near = [cell.accuracy.near(cell.paper_accuracy), cell.published_count.near(cell.paper_count)]
    return None if None in near else all(near)


def text(mean: Mean | None, sign: str = " ± ") -> str:
    """A mean and its deviation, in print."""
    if mean is None:
        return _MISSING
    return f"{mean.value:.2f}" + ("" if mean.deviation is None else f"{sign}{mean.deviation:.2f}")


def _best(rows: Sequence[Cell]) -> set[tuple[str, str]]:
    """Of each network the method, of those that compress, with the best accuracy: it is set in bold."""
    found: dict[str, Cell] = {}
    for held in rows:
        if held.method == "none" or held.accuracy is None:
            continue
        best = found.get(held.network)
        if best is None or best.accuracy is None or held.accuracy.value > best.accuracy.value:
            found[held.network] = held
    return {(held.network, held.method) for held in found.values()}


def _row(cell: Cell, *, best: bool) -> list[str]:
    near = within(cell)
    return [
        NETWORKS[cell.network],
        method(cell.method).title,
        str(cell.seeds or _MISSING),
        text(cell.published_count),
        f"**{text(cell.accuracy)}**" if best else text(cell.accuracy),
        text(cell.paper_count),
        text(cell.paper_accuracy),
        _MISSING if near is None else "yes" if near else "no",
        *(_MISSING if cell.released is None else f"{value:.1f}" for value in _released(cell)),
        text(cell.removed),
    ]


def _released(cell: Cell) -> tuple[float, float]:
    accuracy, count = cell.released or (0.0, 0.0)
    return count, accuracy


def _markdown(held: dict[str, list[Cell]]) -> str:
    lines: list[str] = []
    for dataset, rows in held.items():
        lines += [f"**{DATASETS[dataset]}**", ""]
        best = _best(rows)
        body = [
            list(_HEADER),
            *(_row(held_cell, best=(held_cell.network, held_cell.method) in best) for held_cell in rows),
        ]
        widths = [max(len(line[column]) for line in body) for column in range(len(_HEADER))]
        aligned = [
            "| " + " | ".join(w.ljust(n) for w, n in zip(line, widths, strict=True)) + " |" for line in body
        ]
        rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
        lines += [aligned[0], rule, *aligned[1:], ""]
    return "\n".join(lines).rstrip() + "\n"


def _latex(held: dict[str, list[Cell]]) -> str:
    r"""A `tabular` for \usepackage{booktabs}."""
    lines: list[str] = []
    for dataset, rows in held.items():
        lines += [
            f"% {DATASETS[dataset]}",
            r"\begin{tabular}{llrrrrrr}",
            r"\toprule",
            r"Network & Method & Seeds & Comp.\ (\%) & Acc. & Paper: comp.\ (\%) & Acc. & Removed (\%) \\",
            r"\midrule",
        ]
        best = _best(rows)
        for held_cell in rows:
            printed = ["--" if mean is None else f"${text(mean, _PLUS_MINUS)}$" for mean in held_cell.means]
            if (held_cell.network, held_cell.method) in best:
                printed[1] = rf"$\mathbf{{{printed[1].strip('$')}}}$"
            name = _tex(method(held_cell.method).title)
            seeds = str(held_cell.seeds or "--")
            lines.append(" & ".join([NETWORKS[held_cell.network], name, seeds, *printed]) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(lines).rstrip() + "\n"


def _tex(title: str) -> str:
    """A method's title as LaTeX sets it."""
    for letter in "NU":
        title = title.replace(f"BMRS_{letter}", rf"BMRS$_\mathcal{{{letter}}}$")
    return title.replace("E[θ]", r"$\mathbb{E}[\theta]$")


def _csv(held: dict[str, list[Cell]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    numbers = ("compression", "accuracy", "paper_compression", "paper_accuracy", "removed")
    columns = [f"{name}{end}" for name in numbers for end in ("", "_sd")]
    writer.writerow(
        ["dataset", "network", "method", "seeds", *columns, "released_compression", "released_accuracy"]
    )
    for rows in held.values():
        for held_cell in rows:
            flat = [
                v
                for mean in held_cell.means
                for v in ((None, None) if mean is None else (mean.value, mean.deviation))
            ]
            code = (None, None) if held_cell.released is None else _released(held_cell)
            name = (held_cell.dataset, held_cell.network, held_cell.method, held_cell.seeds)
            writer.writerow([*name, *(None if v is None else f"{v:.4f}" for v in flat), *code])
    return file.getvalue()
