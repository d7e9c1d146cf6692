"""The report on the first use: what its table says of measurements."""

from __future__ import annotations

from benchmarks.first_use import command


def test_the_table_has_a_line_for_each_stage_and_each_kernel() -> None:
    times = {"seconds": 2.0, "processor_seconds": 1.0}
    measured = {
        "empty_cache": {"import torch": times, "whole script": times},
        "full_cache": {"import torch": times, "whole script": times},
        "first_delta_f": {"normal": times, "uniform": times},
        "kernels": [{"part": "E[θ]", **times, "functions": 9}],
    }
    lines = command.table(measured)
    for beginning in (
        "import torch",
        "whole script",
        "import and first ΔF_N",
        "import and first ΔF_U",
        "E[θ]",
    ):
        assert sum(line.startswith(beginning) for line in lines) == 1


def test_a_program_of_its_own_has_the_cache_that_it_is_given() -> None:
    program = 'import json, os; print(json.dumps(os.environ["NUMBA_CACHE_DIR"]))'
    assert command.timed(["-c", program], "/a/folder") == "/a/folder"
