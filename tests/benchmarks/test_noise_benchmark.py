"""``python -m benchmarks`` on tiny shapes: its table, its files, its refusals, what it must not report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import __main__ as benchmarks
from benchmarks.noise import command, measurement, naive, noise_rivals
from benchmarks.noise.comparison import ComparisonError, read_earlier
from benchmarks.noise.measurement import NoiseSettings, check, measure
from benchmarks.noise.problem import DTYPES, OPS, TRAINING, Problem, ProblemError, draw_inputs
from benchmarks.noise.table import short
from benchmarks.noise.variant import COMPILED, COPY, DROPOUT, HOISTED, NAIVE, OURS, REFERENCE

ONE_ROUND = ["--rounds", "1", "--no-compile"]
TINY = {"rows": (8, 30, 4, 3), "elements": (8, 30, 12), "batch": (6, 30, 2), "kl": (3, 20)}


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        benchmarks.main(list(arguments))
    assert stopped.value.code == 2
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def results() -> dict[str, measurement.Result]:
    settings = NoiseSettings(rounds=2, with_compiled=False)
    return {op: measure(Problem(op, shape), settings) for op, shape in TINY.items()}


@pytest.mark.parametrize("op", TINY)
def test_every_rival_is_measured_in_every_direction(results: dict[str, measurement.Result], op: str) -> None:
    result = results[op]
    expected = [COPY, OURS, NAIVE] if op == "kl" else [COPY, OURS, REFERENCE, NAIVE, HOISTED, DROPOUT]
    assert [(row.direction, row.variant) for row in result.rows] == [
        (direction, name) for direction in ("forward", "backward", "both") for name in expected
    ]
    assert not result.left_out
    for row in result.rows:
        assert 0 < row.kept.seconds.low <= row.kept.seconds.median <= row.kept.seconds.high
        assert len(row.kept.rounds) == 2
        if row.variant == COPY:
            assert row.kept.times_copy == 1
        if row.variant == OURS:
            assert row.kept.times_ours == 1


def test_the_report_fits_120_columns_and_is_written_as_json_and_png(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    files = ["--json", str(tmp_path / "run.json"), "--plot", str(tmp_path / "run.png")]
    status = benchmarks.main(
        ["--op", "rows", "--shape", "8,30", "--shape", "4x6x50", "--dtype", "float64", *ONE_ROUND, *files]
    )
    assert status == 0
    assert torch.get_num_threads() == threads
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 120
    assert "…" not in printed
    assert "rows 8×30 float64" in printed
    assert "structures on axis 2" in printed
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["command"].startswith("python -m benchmarks --op rows")
    assert record["machine"]["cores"] >= 1
    assert record["versions"].keys() >= {"python", "torch", "numba"}
    assert [problem["shape"] for problem in record["problems"]] == [[8, 30], [4, 6, 50]]
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_arrays_are_measured_by_the_array_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmarks.main(["--op", "arrays", "--shape", "2000", "--rounds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "delta_f_normal" in printed
    assert max(map(len, printed.splitlines())) <= 120


def test_a_run_is_compared_by_ratios_to_the_copy_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier, run = tmp_path / "earlier.json", ["--op", "rows", "--shape", "8,30", *ONE_ROUND]
    benchmarks.main([*run, "--json", str(earlier)])
    record = json.loads(earlier.read_text())
    for row in record["problems"][0]["rows"]:
        row["kept"]["times_copy"] *= 1000
        row["kept"]["seconds"] = None  # raw times of another run must not even be looked at
    earlier.write_text(json.dumps(record))
    capsys.readouterr()
    benchmarks.main([*run, "--compare", str(earlier)])
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines() if "both" in line and OURS in line]
    assert float(lines[-1][-1].removeprefix("<")) < 0.1  # a thousandth, but for the noise of one round
    assert max(map(len, printed.splitlines())) <= 120


def test_a_run_without_anything_in_common_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    earlier = tmp_path / "earlier.json"
    benchmarks.main(["--op", "kl", "--shape", "2,9", *ONE_ROUND, "--json", str(earlier)])
    benchmarks.main(["--op", "kl", "--shape", "2,8", *ONE_ROUND, "--compare", str(earlier)])
    assert "Nothing in common" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', None])
def test_what_is_no_record_of_a_run_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "other.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ComparisonError, match="--compare"):
        read_earlier(path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--shape", "8,30"], "--shape needs one --op"),
        (["--op", "rows", "--shape", "30"], "2 to 5 positive length"),
        (["--op", "kl", "--shape", "3,4,5"], "takes 2 positive length"),
        (["--op", "rows", "--shape", "8,-1"], "positive lengths"),
        (["--op", "rows", "--shape", "8,0"], "positive lengths"),
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--seconds", "nan"], "--seconds must be positive"),
        (["--threads", "0"], "--threads must be 1 to"),
        (["--seed", "-1"], "--seed must be"),
        (["--json", "no/such/folder/run.json"], "there is no folder"),
        (["--plot", "run.svg"], "must end in .png"),
        (["--op", "columns"], "invalid choice"),
        (["--compare", "no-such-file.json"], "cannot be read"),
    ],
)
def test_bad_input_is_refused_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert said in refusal(capsys, *arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_gpu_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no CUDA device" in refusal(capsys, "--device", "cuda")
    assert "no CUDA device" in refusal(capsys, "training-step", "--device", "cuda")


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(ProblemError, match="rows, elements, batch, kl, arrays"):
        Problem("columns", (2, 2))


def _twice(y: Tensor) -> Tensor:
    return 2 * y


def _one_sample_late(y: Tensor) -> Tensor:
    return torch.cat((y[:-1], y[-2:-1]))


def _with_a_nan(y: Tensor) -> Tensor:
    return torch.where(torch.arange(y.numel()).view(y.shape) == 7, torch.nan, y)


def _detached(y: Tensor) -> Tensor:
    """Right values; gradients of y itself only, which is half of what they should be."""
    return 0.5 * y + 0.5 * y.detach()


@pytest.mark.parametrize("spoil", [_twice, _one_sample_late, _with_a_nan, _detached])
@pytest.mark.parametrize("op", ["rows", "elements", "batch"])
def test_a_wrong_result_is_not_reported(monkeypatch: pytest.MonkeyPatch, op: str, spoil: Any) -> None:
    right, right_naive = noise_rivals.ours, naive.noise
    monkeypatch.setattr(noise_rivals, "ours", lambda *a, **k: spoil(right(*a, **k)))
    monkeypatch.setattr(naive, "noise", lambda *a, **k: spoil(right_naive(*a, **k)))
    result = measure(Problem(op, TINY[op]), NoiseSettings(rounds=1, with_compiled=False))
    for name in (OURS, NAIVE, HOISTED):
        assert "its result is wrong" in result.left_out[name]
        assert name not in {row.variant for row in result.rows}


def test_noise_of_another_distribution_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    right = naive.noise
    monkeypatch.setattr(naive, "noise", lambda x, mu, *a, **k: right(x, mu - 0.2, *a, **k))
    _, left_out = check(Problem("rows", (64, 40)), with_compiled=False)
    assert "another distribution" in left_out[NAIVE]


def test_a_wrong_kl_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    right = naive.kl_divergence
    monkeypatch.setattr(naive, "kl_divergence", lambda *a: 1.1 * right(*a))
    _, left_out = check(Problem("kl", (3, 20)), with_compiled=False)
    assert "KL is off by 1.0e-01" in left_out[NAIVE]


def test_compiling_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    _, left_out = check(Problem("rows", (8, 30)), with_compiled=True)
    assert "needs a C++ compiler" in left_out[COMPILED]


def test_a_failing_compiler_is_left_out_with_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("g++ is not well\nmany more lines")

    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(torch, "compile", broken)
    _, left_out = check(Problem("rows", (8, 30)), with_compiled=True)
    assert left_out[COMPILED] == "failed: RuntimeError: g++ is not well"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", ["rows", "elements", "batch"])
def test_all_rivals_are_right_in_every_dtype(op: str, dtype: str) -> None:
    ready, left_out = check(Problem(op, TINY[op], dtype), with_compiled=False)
    assert not left_out
    assert list(ready) == [OURS, REFERENCE, NAIVE, HOISTED, DROPOUT]


def test_inputs_depend_on_the_seed_alone_and_are_never_zero() -> None:
    one, same, other = (draw_inputs(Problem("rows", (50, 40), seed=seed), TRAINING) for seed in (3, 3, 4))
    assert torch.equal(one.x, same.x)
    assert torch.equal(one.log_sigma, same.log_sigma)
    assert not torch.equal(one.x, other.x)
    assert float(one.x.detach().abs().min()) > 0.09


def test_the_default_shapes_are_those_of_the_operations() -> None:
    for op, described in OPS.items():
        for shape in described.shapes:
            Problem(op, shape)


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1,234"), (99.96, "100"), (12.34, "12.3"), (1.0, "1.00"), (0.012, "0.012")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text


def test_a_gpu_gets_larger_shapes_and_both_formats() -> None:
    options = command._parser().parse_args(["--device", "cuda"])
    assert OPS["rows"].shapes_on("cuda") == ((64, 256, 56, 56), (64, 197, 768), (4096, 4096))
    assert OPS["rows"].shapes_on("cpu") == OPS["rows"].shapes
    assert command._dtypes("rows", options) == ["float32", "bfloat16"]
    assert command._dtypes("kl", options) == ["float32"]
    options = command._parser().parse_args(["--device", "cuda", "--dtype", "float16"])
    assert command._dtypes("elements", options) == ["float16"]
