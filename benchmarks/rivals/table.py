"""The page of the comparison: for each network, length and budget, what each method's networks get right."""

from __future__ import annotations

import statistics
import textwrap

from benchmarks.rivals.outcome import Outcome, differences, outcome, shown
from benchmarks.rivals.protocol import LEARNING_RATES, PROCEDURES, RIVALS, SUBJECTS, TEST, Cell
from benchmarks.rivals.record import Record

PAIRS = {"bmrs": RIVALS, "bmrs_teacher": ("taylor_teacher",)}
"""Who is set against whom: each against the one of the others with the highest mean."""

_WIDTH = 120
_MISSING = "–"

_INTRODUCTION = """\
Test accuracy on {data}, in percent: mean ± standard deviation over seeds, and how many seeds. All methods
begin with the same trained network of each seed and get the same number of further epochs, those with
noise included. “scratch” gets the epochs of the base network, too. The learning rate is the best of
{rates} on the validation images, a fifth of the training set (12,000 images of Fashion-MNIST) that
nothing is trained on; it is chosen with seed 0, for each network, method, budget and length by itself. On
the vision transformer each importance of Torch-Pruning is also tried with whole heads instead of
dimensions of all heads, at the middle rate. The test images are read once, at the end of the runs that
are shown here. The budget is a part of the multiply-adds of the unpruned network: what is left is at most
that, and less where the last channel to go is a large one. “taught” learns from the unpruned network,
too: the two that do are compared with each other. {missing} is a run that is missing."""

_MADE = """\
{finals} final runs and {others} that choose settings are in [{file}]({file}), each with its command,
commit, machine and versions (`make rivals`)."""


def page(record: Record) -> str:
    """All of it in Markdown."""
    finals = sum(line["split"] == TEST for line in record.lines.values())
    told = {
        "data": record.data,
        "rates": ", ".join(f"{lr:g}" for lr in LEARNING_RATES),
        "missing": _MISSING,
        "finals": finals,
        "others": len(record.lines) - finals,
        "file": record.path.name,
    }
    lines = ["# BMRS beside what people would pick instead", ""]
    for text in (_INTRODUCTION, _MADE):
        lines += [*textwrap.wrap(text.format(**told), _WIDTH, break_on_hyphens=False), ""]
    for network, subject in SUBJECTS.items():
        lines += [f"## {subject.title}", "", *_of_network(network, record)]
    lines += ["## What each method does", ""]
    lines += [f"- **{_title(method)}**: {text}." for method, text in PROCEDURES.items()]
    return "\n".join(lines) + "\n"


def _of_network(network: str, record: Record) -> list[str]:
    finals = [line for line in record.lines.values() if line["split"] == TEST]
    known = {line["epochs"] for line in finals if line["network"] == network}
    if not known:
        return ["No final runs yet.", ""]
    lines = [f"![Accuracy against multiply-adds and parameters](rivals_{network}.png)", ""]
    lines += [*_summary(network, record), ""]
    for epochs in sorted(known):
        lines += [f"### {epochs} further epochs", "", *_rows(network, epochs, record), ""]
    return lines


def _summary(network: str, record: Record) -> list[str]:
    """BMRS less the best rival, for all settings at a glance."""
    wanted = shown(record)
    lines = [
        "| BMRS less the best rival, points, paired by seed | "
        + " | ".join(f"{100 * b:g} % of the MACs" for b in wanted.budgets)
        + " |",
        "|---|" + "---|" * len(wanted.budgets),
    ]
    for ours, rivals in PAIRS.items():
        for epochs in wanted.epochs:
            title = f"{epochs} epochs" + (", both taught" if ours != "bmrs" else "")
            cells = [
                _difference(
                    outcome(Cell(network, ours, budget, epochs), record),
                    {name: outcome(Cell(network, name, budget, epochs), record) for name in rivals},
                )
                for budget in wanted.budgets
            ]
            lines.append(_row(title, *cells))
    return lines


def _difference(ours: Outcome, rivals: dict[str, Outcome]) -> str:
    """Ours less the best rival's, over the seeds that ours and all rivals have that have any."""
    known = {name: rival for name, rival in rivals.items() if rival.lines}
    seeds = set(ours.lines).intersection(*(rival.lines for rival in known.values()))
    if not (known and seeds):
        return _MISSING
    found = {name: differences(ours, rival, seeds) for name, rival in known.items()}
    best = min(found, key=lambda name: sum(found[name]))
    unknown = [_title(name) for name, rival in rivals.items() if not (rival.lines or rival.error)]
    without = f", without {', '.join(unknown)}" if unknown else ""
    return f"{_spread(found[best], '+')} to {_title(best)}{without}"


def _rows(network: str, epochs: int, record: Record) -> list[str]:
    budgets = shown(record).budgets
    head = [text for b in budgets for text in (f"{100 * b:g} % of the MACs", "MACs, parameters left %; rate")]
    lines = [_row("", *head), "|---|" + "---|" * len(head)]
    for method in PROCEDURES:
        if method != "unpruned":
            found = [outcome(Cell(network, method, budget, epochs), record) for budget in budgets]
            lines.append(_row(_title(method), *(text for one in found for text in _texts(one))))
    whole, sizes = _texts(outcome(Cell(network, "unpruned", None, epochs), record))
    lines.append(_row("unpruned", *([whole, sizes] + [""] * (len(head) - 2))))
    return lines


def _texts(found: Outcome) -> tuple[str, str]:
    """The accuracy; what is left, and the settings that were chosen."""
    if found.run is None:
        return _MISSING, ""
    rate = f"{found.run.lr:g}" + (f", {found.run.variant}" if found.run.variant else "")
    if not found.lines:
        return (_MISSING, rate) if found.error is None else (f"fails: {found.error.replace('|', '/')}", "")
    left = f"{100 * found.mean('macs_left'):.1f}, {100 * found.mean('parameters_left'):.1f}; {rate}"
    failed = "" if found.error is None else ", fails for others"
    return _spread([line["test_accuracy"] for line in found.lines.values()]) + failed, left


def _title(method: str) -> str:
    return method.replace("_teacher", ", taught")


def _spread(shares: list[float], sign: str = "") -> str:
    points = [100 * share for share in shares]
    deviation = f" ± {statistics.stdev(points):.2f}" if len(points) > 1 else ""
    return f"{statistics.fmean(points):{sign}.2f}{deviation} ({len(points)})"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
