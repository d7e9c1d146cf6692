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

_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)(.*);")
_LABEL = re.compile(r"^(\.L_\w+):")
_TARGET = re.compile(r"`\((\.L_\w+)\)")
_BYTES = re.compile(r"REG:(\d+) STACK:(\d+)")


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
    loop : int
        Of these, in the longest loop; 0 where there is none or the disassembler cannot tell.
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
    loop: int
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
    folder = Path(triton.__file__).parent / "backends/nvidia/bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as binary:
        Path(binary.name).write_bytes(compiled.asm["cubin"])
        usage = _run(str(folder / "cuobjdump"), "-res-usage", binary.name)
        listing = _run(str(folder / "nvdisasm"), "-c", binary.name)
    found = _BYTES.search(usage)
    if found is None:
        raise RuntimeError(f"the report of cuobjdump is not understood: {usage}")
    operations, loop = _listed(listing)
    return Resources(
        registers=int(found[1]),
        spilled=int(found[2]) + sum(n for name, n in operations.items() if name.startswith(("LDL", "STL"))),
        shared=compiled.metadata.shared,
        instructions=sum(operations.values()),
        loop=loop,
        float64=len(re.findall(r"\.f64", compiled.asm["ptx"])),
        wide_loads=_count(operations, "LDG", wide=True),
        narrow_loads=_count(operations, "LDG", wide=False),
        wide_stores=_count(operations, "STG", wide=True),
        narrow_stores=_count(operations, "STG", wide=False),
        operations=operations,
    )


def _listed(listing: str) -> tuple[Counter[str], int]:
    """Instructions by name, and how many the longest loop has: from the target of a jump back to it."""
    operations: Counter[str] = Counter()
    labels: dict[str, int] = {}
    loop = place = 0
    for line in listing.splitlines():
        if label := _LABEL.match(line):
            labels[label[1]] = place
        elif (found := _INSTRUCTION.match(line)) and found[1] != "NOP":
            operations[found[1]] += 1
            place += 1
            target = _TARGET.search(found[2])
            if found[1].startswith("BRA") and target and target[1] in labels:
                loop = max(loop, place - labels[target[1]])
    # Every kernel ends with a jump to itself.
    return operations, loop if loop > 1 else 0


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
        loop=0,
        float64=sum(count for name, count in operations.items() if "_f64" in name),
        wide_loads=accesses("load", wide=True),
        narrow_loads=accesses("load", wide=False),
        wide_stores=accesses("store", wide=True),
        narrow_stores=accesses("store", wide=False),
        operations=operations,
    )


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
