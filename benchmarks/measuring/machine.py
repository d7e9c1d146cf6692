"""What a measurement was made on: processor, memory, versions; and how to keep to one core."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """What the times depend on besides the program."""

    processor: str
    cores: int
    memory_gib: float | None
    system: str
    accelerator: str | None = None

    def __str__(self) -> str:
        memory = "" if self.memory_gib is None else f", {self.memory_gib:.0f} GiB"
        cores = f"{self.cores} core{'s' if self.cores > 1 else ''}"
        accelerator = "" if self.accelerator is None else f"; {self.accelerator}"
        return f"{self.processor}, {cores}{memory}, {self.system}{accelerator}"


def processor() -> str:
    """Name the processor where the system tells it."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def processor_kind() -> str:
    """Name it in a word for a file's name: ``intel_xeon``, ``amd_epyc``, by maker and line."""
    words = re.sub(r"\(\w+\)|@.*", " ", processor()).lower().split()
    kept = [word for word in words if word.isalpha() and word not in ("cpu", "processor", "core")]
    return "_".join(kept[:2]) or "unknown"


def processor_model() -> str:
    """Say which generation it is: family, model and stepping, as the makers number them, and its vectors."""
    described = Path("/proc/cpuinfo")
    if not described.exists():
        return platform.machine()
    lines = [line.partition(":") for line in described.read_text().splitlines()]
    fields = {name.strip(): value.strip() for name, _, value in reversed(lines)}
    numbers = [f"{name} {fields[name]}" for name in ("cpu family", "model", "stepping") if name in fields]
    vectors = [flag for flag in ("avx2", "avx512f", "amx_bf16") if flag in fields.get("flags", "").split()]
    return ", ".join([*numbers, *vectors])


def memory_gib() -> float | None:
    """Main memory in GiB, where the system tells it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, OSError, ValueError):  # Windows; a system without these names
        return None


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def this_machine(accelerator: str | None = None) -> Machine:
    """Describe the machine; `accelerator` is the name of the GPU that is measured, if one is."""
    system = f"{platform.system()} {platform.machine()}"
    return Machine(processor(), usable_cores(), memory_gib(), system, accelerator)


def versions(*packages: str) -> dict[str, str]:
    """Python's version and those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Keep this process on one core where the system allows it: some libraries start threads of their own."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
