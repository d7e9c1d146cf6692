"""Evaluates every formula in Triton's interpreter, which must be chosen before Triton is imported.

Run as a program in a process of its own: reads float32 inputs, writes float32 results (npz).
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from bmrs_core.backends.formula import FORMULAS as PUBLIC
from tests.kernels.gpu.probe import probe_of


def main(source: str, target: str) -> None:
    inputs = np.load(source)
    results = {}
    for name, formula in PUBLIC.items():
        x = torch.from_numpy(inputs[name].astype(np.float32))
        count = x.shape[1]
        out = torch.full((formula.outputs, count), float("nan"))
        kernel, constants = probe_of(name)
        kernel[(1,)](x, out, count, **constants, BLOCK=256)
        results[name] = out.numpy()
    np.savez(target, **results)  # type: ignore[arg-type]  # the arrays' names


if __name__ == "__main__":
    main(*sys.argv[1:])
