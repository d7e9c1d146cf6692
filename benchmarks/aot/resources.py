"""What a compiled kernel needs: registers, memory for what they cannot hold, instructions, wide accesses."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton

__all__ = ["Resources", "resources"]

_INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]+)\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)[^;]*?(?:0x([0-9a-f]+))?\s*;")


@dataclass(frozen=True)
class Resources:
    """Resources of a kernel.

    Attributes
    ----------
    registers : int
        Per thread.
    spilled : int
        Bytes per thread of stack and of registers moved to memory.
    shared : int
        Bytes of shared memory per program.
    instructions : int
        In the whole kernel; 0 where the disassembler cannot tell.
    float64 : int
        Instructions in double precision.
    wide_loads, narrow_loads, wide_stores, narrow_stores : int
        Accesses of 16 bytes, and of less, to global memory.
    operations : Counter
        Instructions by name.
    """

    registers: int
    spilled: int
    shared: int
    instructions: int
    float64: int
    wide_loads: int
    narrow_loads: int
    wide_stores: int
    narrow_stores: int
    operations: Counter[str]


def resources(compiled: Any) -> Resources:
    """Look into a kernel that Triton compiled."""
    return _nvidia(compiled) if "ptx" in compiled.asm else _amd(compiled)


def _nvidia(compiled: Any) -> Resources:
    from triton.backends.nvidia.compiler import get_ptxas

    arch = compiled.metadata.target.arch
    ptx: str = compiled.asm["ptx"]
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(ptx)
        binary.write_bytes(compiled.asm["cubin"])
        name = f"sm_{arch}a" if arch >= 90 else f"sm_{arch}"
        report = _run(get_ptxas(arch).path, "-v", f"--gpu-name={name}", str(source), "-o", "/dev/null").stderr
        disassembler = Path(triton.__file__).parent / "backends/nvidia/bin/nvdisasm"
        listing = _run(str(disassembler), "-c", str(binary)).stdout
    found = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report)
    used = re.search(r"Used (\d+) registers", report)
    if found is None or used is None:
        raise RuntimeError(f"the assembler's report is not understood: {report}")
    operations = Counter(
        match[2] for line in listing.splitlines() if (match := _INSTRUCTION.match(line)) and match[2] != "NOP"
    )
    return Resources(
        registers=int(used[1]),
        spilled=sum(map(int, found.groups())),
        shared=compiled.metadata.shared,
        instructions=sum(operations.values()),
        float64=len(re.findall(r"\.f64", ptx)),
        wide_loads=_count(operations, "LDG", wide=True),
        narrow_loads=_count(operations, "LDG", wide=False),
        wide_stores=_count(operations, "STG", wide=True),
        narrow_stores=_count(operations, "STG", wide=False),
        operations=operations,
    )


def _count(operations: Counter[str], kind: str, *, wide: bool) -> int:
    return sum(
        number for name, number in operations.items() if name.startswith(kind) and (".128" in name) == wide
    )


def _amd(compiled: Any) -> Resources:
    text: str = compiled.asm["amdgcn"]

    def number(key: str) -> int:
        found = re.search(rf"\.{key}:\s+(\d+)", text)
        if found is None:
            raise RuntimeError(f"the assembly does not tell its {key}")
        return int(found[1])

    operations = Counter(re.findall(r"^\s+((?:v|s|global|buffer|ds|flat|scratch)_\w+)", text, re.MULTILINE))

    def accesses(kind: str, *, wide: bool) -> int:
        return sum(
            count
            for name, count in operations.items()
            if name.startswith((f"global_{kind}", f"buffer_{kind}")) and name.endswith("x4") == wide
        )

    return Resources(
        registers=number("vgpr_count"),
        spilled=number("private_segment_fixed_size") + number("vgpr_spill_count"),
        shared=compiled.metadata.shared,
        instructions=sum(operations.values()),
        float64=sum(count for name, count in operations.items() if "_f64" in name),
        wide_loads=accesses("load", wide=True),
        narrow_loads=accesses("load", wide=False),
        wide_stores=accesses("store", wide=True),
        narrow_stores=accesses("store", wide=False),
        operations=operations,
    )


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True)
