"""A kernel's machine code on disk is that of the limits and places that the process has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bmrs_core.backends.frozen import frozen_digest
from bmrs_kernels.cpu import coefficients, draws
from bmrs_kernels.cpu.rows import row_kernels
from bmrs_kernels.cpu.tiles import tile_kernels

LIMIT = """
import sys
import numba
import numpy as np
from bmrs_kernels import contract
contract.LOG_SIGMA_LIMIT_FLOAT64 = float(sys.argv[1])
from bmrs_kernels.cpu.coefficients import COEFFICIENTS, PREPARE
PREPARE_FLOAT64 = PREPARE["float64"]
parameters = np.array([[-1.0, -2.0], [-3.0, 20.0], [1.0, 1.0]])
rooms = np.empty((COEFFICIENTS, 2)), np.empty(3, np.int64), np.empty(5, np.int64)
@numba.njit
def prepared(mu, log_sigma, mask, table, order, starts):
    return PREPARE_FLOAT64(mu, log_sigma, mask, -20.0, 0.0, table, order, starts)
print("the first bad structure is", prepared(*parameters, *rooms))
"""

PLACE = """
import sys
import numpy as np
from bmrs_kernels import strides
strides.SPEC["structures"] = int(sys.argv[1])
from bmrs_kernels.cpu.cache import cached_njit
from bmrs_kernels.cpu.scale_kernels import TILE, _row_of_theta
spec, out = np.full(40, 3), np.zeros(6, np.float32)
spec[[7, 8, TILE]] = 1, 2, 2
cached_njit(_row_of_theta)(spec, np.arange(6, dtype=np.float32), 3, 0, out)
print(out)
"""


@pytest.mark.parametrize(
    ("program", "was", "becomes"), [(LIMIT, "700", "5"), (PLACE, "7", "8")], ids=["contract", "strides"]
)
def test_a_changed_constant_of_another_file_finds_no_code_of_before(
    program: str, was: str, becomes: str, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "NUMBA_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    answers = [
        subprocess.run(
            [sys.executable, "-c", program, value],
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
            env=environment,
        ).stdout
        for value in (was, becomes, was)
    ]
    assert answers[0] == answers[2] != answers[1]


def test_all_that_kernels_name_can_be_digested() -> None:
    """What can't be is compiled anew by each process."""
    kernels = [*coefficients.PREPARE.values(), *tile_kernels("float32").values()]
    for precision in ("float32", "float64"):
        kernels += [*draws.DRAWS[precision].values(), *row_kernels(precision).values()]
    assert (
        len({frozen_digest(kernel) for kernel in kernels}) == len(kernels) - 2
    )  # two serve either precision
