"""The comparison: settings are chosen without the test images, runs resume, the page tells what is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import benchmarks.rivals.__main__ as command
from benchmarks.demo.data import ImageData
from benchmarks.fashion.networks import EncoderBlock, SmallViT
from benchmarks.measuring.source import RESULTS, ROOT
from benchmarks.rivals import few_parameters, protocol
from benchmarks.rivals.images import FASHION_MNIST, split
from benchmarks.rivals.learning import answers, misfit
from benchmarks.rivals.methods import draw_anew
from benchmarks.rivals.plan import Wanted, chosen, missing
from benchmarks.rivals.protocol import TEST, WHOLE_HEADS, Cell, Run, candidates
from benchmarks.rivals.record import Record, key_of
from benchmarks.rivals.separate import join, separate
from benchmarks.rivals.store import Store
from benchmarks.rivals.table import page

FEW = 200
QUICK = ["--networks", "mlp", "--methods", "bmrs", "unpruned", "bmrs_teacher", "--epochs", "2"]
QUICK += ["--budgets", "0.5", "--seeds", "2", "--data", "digits"]
RUNS = 3 * (3 + 2)
"""Of three methods: three learning rates, then two seeds."""


def few_images(*_: Any, **__: Any) -> ImageData:
    """Two kinds of images, the dark and the bright, that anything learns to tell apart."""
    torch.manual_seed(0)
    labels = torch.arange(FEW) % 2
    images = torch.randn(FEW, 1, 28, 28) + labels.view(-1, 1, 1, 1)
    return ImageData("few", "made here", images, labels, images[:50], labels[:50])


def run(tmp_path: Path, *arguments: str) -> list[dict[str, Any]]:
    path = tmp_path / "rivals.jsonl"
    places = ["--record", str(path), "--scratch", str(tmp_path / "scratch")]
    assert command.main([*QUICK, *places, *arguments]) == 0
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


@pytest.fixture(autouse=True)
def images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "load_images", few_images)


def test_runs_are_recorded_shown_and_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(tmp_path, "--minutes", "0") == []
    lines = run(tmp_path)
    assert len({line["key"] for line in lines}) == len(lines) == RUNS
    assert all(("test_accuracy" in line) == (line["split"] == TEST) for line in lines)
    for line in lines:
        assert line["macs_left"] == (1 if line["method"] == "unpruned" else pytest.approx(0.49, abs=0.02))
        assert {"command", "commit", "machine", "versions", "widths", "procedure"} <= line.keys()
        assert str(tmp_path) not in json.dumps(line)
    for method in ("bmrs", "unpruned", "bmrs_teacher"):
        tried = [line for line in lines if line["method"] == method and line["seed"] == 0]
        (final,) = (line for line in tried if line["split"] == TEST)
        assert final["validation_accuracy"] == max(line["validation_accuracy"] for line in tried)
    assert (tmp_path / "rivals.md").read_text() == page(Record(tmp_path / "rivals.jsonl", "few"))
    assert (tmp_path / "rivals_mlp.png").stat().st_size > 10_000

    def never(*_: Any) -> None:
        raise AssertionError("this run was finished")

    monkeypatch.setattr(command, "trained", never)
    assert run(tmp_path) == lines


class Unseen:
    """Test images that nobody may look at."""

    def __getattr__(self, name: str) -> None:
        raise AssertionError("the test images were read")


def test_runs_that_choose_settings_never_see_the_test_images(tmp_path: Path) -> None:
    some = split(few_images(), seed=0, share=5)
    blind = replace(some, test=Unseen())  # type: ignore[arg-type]
    (first, *_) = candidates(Cell("mlp", "unpruned", None, 2))
    assert "test_accuracy" not in command._outcome(first, blind, Store(tmp_path))
    with pytest.raises(AssertionError, match="were read"):
        command._outcome(first.final(0), blind, Store(tmp_path))


def test_the_parts_of_the_training_set_have_nothing_in_common() -> None:
    data = few_images()
    numbered = replace(data, train_images=torch.arange(float(FEW)).view(-1, 1, 1, 1))
    parts = split(numbered, seed=0, share=5)
    train, validation = (set(part.images.flatten().tolist()) for part in (parts.train, parts.validation))
    assert (len(train), len(validation)) == (160, 40)
    assert train.isdisjoint(validation)
    assert parts.test.images is data.test_images


def test_what_another_process_does_is_left_to_it(tmp_path: Path) -> None:
    some = split(few_images(), seed=0, share=5)
    record, store = Record(tmp_path / "r.jsonl", "few"), Store(tmp_path)
    wanted = Wanted(["mlp"], ["unpruned"], [0.5], [2], 1)
    first, second, third = missing(wanted, record)
    with store.claim(f"run-{key_of(first, 'few')}") as ours:
        assert ours
        assert command._one(wanted, record, some, store, {})
        assert [record.find(one) is None for one in (first, second, third)] == [True, False, True]
        assert command._one(wanted, record, some, store, {})
        assert command._one(wanted, record, some, store, {}) is False  # how to go on isn't known yet
    assert command._one(wanted, record, some, store, {})
    assert record.find(first) is not None
    assert command._one(wanted, record, some, store, {})
    assert command._one(wanted, record, some, store, {}) is None


def recorded(path: Path, *outcomes: tuple[Run, dict[str, Any]]) -> Record:
    record = Record(path, FASHION_MNIST)
    for one, outcome in outcomes:
        sizes = {"macs_left": 0.3, "parameters_left": 0.2, "validation_accuracy": 0.9}
        record.add(one, outcome if "error" in outcome else sizes | outcome, {})
    return Record(path, FASHION_MNIST)


def settled(method: str, *test: float) -> list[tuple[Run, dict[str, Any]]]:
    """The outcomes of a cell of which the second candidate is the best, and of its final runs."""
    tried = candidates(Cell("resnet", method, 0.33, 6))
    chosen_on = [(one, {"validation_accuracy": 0.9 + 0.01 * (i == 1)}) for i, one in enumerate(tried)]
    finals = [(tried[1].final(seed), {"test_accuracy": share}) for seed, share in enumerate(test)]
    return [*chosen_on, *finals]


def test_settings_are_chosen_by_the_validation_images_alone(tmp_path: Path) -> None:
    cell = Cell("resnet", "taylor", 0.33, 6)
    lines = settled("taylor")
    assert chosen(cell, recorded(tmp_path / "part.jsonl", *lines[:-1])) is None
    better_on_test = (lines[0][0].final(0), {"test_accuracy": 1.0})
    assert chosen(cell, recorded(tmp_path / "all.jsonl", *lines, better_on_test)) == lines[1][0]
    failing = [(one, {"error": "no"}) for one, _ in lines[1:2]]
    assert chosen(cell, recorded(tmp_path / "fail.jsonl", lines[0], *failing, lines[2])) == lines[0][0]


def test_the_page_tells_means_sizes_and_differences_by_seed(tmp_path: Path) -> None:
    ours, best = settled("bmrs", 0.92, 0.90, 0.93), settled("taylor", 0.91, 0.90)
    worse, failing = settled("l2", 0.5, 0.6), candidates(Cell("resnet", "random", 0.33, 6))
    fails = [(one, {"error": "a | b"}) for one in [*failing, failing[0].final(0)]]
    text = page(recorded(tmp_path / "r.jsonl", *ours, *best, *worse, *fails))
    assert "| bmrs | – |  | 91.67 ± 1.53 (3) | 30.0, 20.0; 0.002 |" in text
    assert "| taylor | – |  | 90.50 ± 0.71 (2) | 30.0, 20.0; 0.002 |" in text
    assert "| l2 | – |  | 55.00 ± 7.07 (2) |" in text
    assert "| random | – |  | fails: a / b |" in text
    assert "| 6 epochs | – | +0.50 ± 0.71 (2) to taylor, without scratch | – |" in text
    assert "| 6 epochs, both taught | – | – | – |" in text


def test_runs_of_a_method_that_has_changed_no_longer_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = settled("bmrs", 0.9)
    assert len(recorded(tmp_path / "r.jsonl", *lines).lines) == 4
    monkeypatch.setitem(protocol.PROCEDURES, "bmrs", "another one")
    assert Record(tmp_path / "r.jsonl", FASHION_MNIST).lines == {}


def test_a_record_on_other_images_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded(tmp_path / "rivals.jsonl", *settled("bmrs"))
    with pytest.raises(SystemExit):
        run(tmp_path)
    assert "holds runs on Fashion-MNIST, these are on few" in capsys.readouterr().err


def test_torch_pruning_may_take_whole_heads_of_the_transformer() -> None:
    assert [one.variant for one in candidates(Cell("vit", "l2", 0.5, 6))] == ["", "", "", WHOLE_HEADS]
    assert [one.variant for one in candidates(Cell("vit", "bmrs", 0.5, 6))] == [""] * 3
    assert [one.variant for one in candidates(Cell("resnet", "l2", 0.5, 6))] == [""] * 3


def test_each_cell_is_wanted_once_and_one_seed_of_all_comes_before_the_next(tmp_path: Path) -> None:
    cells = Wanted().cells()
    assert len(set(cells)) == len(cells) == 4 * (7 * 6 + 2)
    record = recorded(tmp_path / "r.jsonl", *settled("bmrs"), *settled("l2"))
    wanted = Wanted(["resnet"], ["bmrs", "l2"], [0.33], [6])
    finals = [(one.method, one.seed) for one in missing(wanted, record)]
    assert finals == [(method, seed) for seed in range(3) for method in ("bmrs", "l2")]


def test_a_block_with_separate_queries_keys_and_values_computes_the_same() -> None:
    torch.manual_seed(0)
    model, x = SmallViT().eval(), torch.randn(3, 1, 28, 28)
    before = answers(model, x)
    assert len(separate(model)) == 4
    torch.testing.assert_close(answers(model, x), before)
    join(model)
    assert sum(isinstance(module, EncoderBlock) for module in model.modules()) == 4
    assert torch.equal(answers(model, x), before)


@pytest.mark.parametrize("network", protocol.SUBJECTS)
def test_a_network_is_drawn_anew_as_its_constructor_draws_it(network: str) -> None:
    torch.manual_seed(0)
    model = protocol.SUBJECTS[network].build()
    for parameter in model.parameters():
        parameter.data.fill_(7)
    draw_anew(model)
    fresh = protocol.SUBJECTS[network].build()
    for drawn, expected in zip(model.parameters(), fresh.parameters(), strict=True):
        assert not (drawn == 7).any()
        if drawn.numel() > 50:  # enough that the spread is no accident
            spread, wanted = (float(values.detach().std()) for values in (drawn, expected))
            assert spread == pytest.approx(wanted, rel=0.3)


def test_a_teacher_that_agrees_leaves_half_of_the_loss() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 10), torch.arange(5)
    alone = float(misfit(logits, labels))
    assert float(misfit(logits, labels, logits)) == pytest.approx(alone / 2)
    assert float(misfit(logits, labels, -logits)) > alone / 2


@pytest.mark.parametrize(
    "options",
    [["--budgets", "1"], ["--epochs", "1"], ["--seeds", "0"], ["--record", "x.json"], ["--methods", "snip"]],
)
def test_settings_out_of_range_are_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--methods", "bmrs", *options])
    assert "error:" in capsys.readouterr().err


def test_methods_that_need_torch_pruning_say_so_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda _: None)
    with pytest.raises(SystemExit):
        command.main(["--methods", "bmrs", "taylor"])
    assert "taylor need Torch-Pruning" in capsys.readouterr().err


def test_the_page_in_the_results_says_what_the_record_beside_it_holds() -> None:
    record = Record(ROOT / RESULTS / "rivals.jsonl", FASHION_MNIST)
    assert (ROOT / RESULTS / "rivals.md").read_text(encoding="utf-8") == page(record)
    shown = (ROOT / "docs/results/rivals.md").read_text(encoding="utf-8")
    assert f"{{include}} ../../{RESULTS}/rivals.md" in shown


def test_few_parameters_are_recorded_and_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = few_parameters.Setting("mlp", 0.1, 2)
    monkeypatch.setattr(few_parameters, "SETTINGS", (quick,))
    monkeypatch.setattr(few_parameters, "load_images", few_images)
    record = tmp_path / "few.jsonl"
    places = ["--record", str(record), "--data", str(tmp_path)]
    assert few_parameters.main(places) == 0
    lines = few_parameters.read(record)
    assert [line["seed"] for line in lines] == list(range(5))
    assert all(line["parameters_left"] <= 0.1 for line in lines)
    assert {line["command"] for line in lines} == {"python -m benchmarks.rivals.few_parameters"}

    def never(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(few_parameters, "_outcome", never)
    assert few_parameters.main(places) == 0
    assert "| MLP 1×150 | 5 | 2 | 9" in capsys.readouterr().out


def test_the_results_hold_what_the_site_says_of_few_parameters() -> None:
    lines = few_parameters.read(ROOT / RESULTS / "few_parameters.jsonl")
    told = (ROOT / "docs/results/networks.md").read_text(encoding="utf-8")
    assert all(row in told for row in few_parameters.table(lines).splitlines())
