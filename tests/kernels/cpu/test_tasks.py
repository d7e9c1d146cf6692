"""Work cut into tasks: the same bits at any number of threads, under fork and beside other threads."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from bmrs_kernels.contract import SHARES, NoiseLayout
from bmrs_kernels.cpu import tasks
from bmrs_kernels.strides import plan
from bmrs_torch.operation.operators import apply_noise

SEED = torch.tensor([42])
EVERY_SHARE = pytest.mark.parametrize("share", SHARES)
# Maps by rows and by pieces of rows, whole structures at each position, one structure's many elements.
SHAPES = {"maps": ((8, 16, 40, 40), 1), "tokens": ((4, 300, 200), 2), "vectors": ((700, 300), 1)}


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def arguments(shape: tuple[int, ...], axis: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).requires_grad_()
    mu = (torch.randn(shape[axis], generator=generator) * 6 - 2).requires_grad_()
    log_sigma = torch.randn(shape[axis], generator=generator).requires_grad_()
    return x, mu, log_sigma, torch.ones(shape[axis])


def outcome(shape: tuple[int, ...], axis: int, share: str, threads: int) -> list[Tensor]:
    torch.set_num_threads(threads)
    x, mu, log_sigma, mask = arguments(shape, axis)
    y = apply_noise(x, mu, log_sigma, mask, SEED, NoiseLayout(axis, share, -20.0, 0.0))
    return [y.detach(), *torch.autograd.grad(y, (x, mu, log_sigma), x.detach())]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", SHAPES)
@EVERY_SHARE
def test_the_number_of_threads_changes_no_bit(name: str, share: str) -> None:
    shape, axis = SHAPES[name]
    x = torch.empty(shape)
    found = plan(x.shape, (x.stride(), x.stride(), x.stride()), NoiseLayout(axis, share, -20.0, 0.0))
    assert found is not None
    assert found.tasks > 1
    serial = outcome(shape, axis, share, 1)
    assert all(same(serial, outcome(shape, axis, share, threads)) for threads in (2, 3))


@EVERY_SHARE
def test_tasks_cover_the_units_in_order(share: str) -> None:
    for shape, axis in SHAPES.values():
        x = torch.empty(shape)
        found = plan(x.shape, (x.stride(), x.stride()), NoiseLayout(axis, share, -20.0, 0.0))
        assert found is not None
        ranges = found.ranges()
        assert len(ranges) == found.tasks
        assert [start for start, _ in ranges[1:]] == [stop for _, stop in ranges[:-1]]
        assert (ranges[0][0], ranges[-1][1]) == (0, found.units)


def test_concurrent_python_threads_get_their_own_results() -> None:
    expected = {share: outcome((8, 16, 40, 40), 1, share, 2) for share in SHARES}
    jobs = [share for share in SHARES for _ in range(4)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda share: outcome((8, 16, 40, 40), 1, share, 2), jobs))
    assert all(same(result, expected[share]) for share, result in zip(jobs, found, strict=True))


def _digest() -> int:
    """A number of the outcome's bits, without torch's own threads: they do not survive a fork."""
    return zlib.crc32(b"".join(part.numpy().tobytes() for part in outcome((8, 16, 40, 40), 1, "sample", 2)))


FORKING = """
import multiprocessing
from bmrs_kernels.cpu import tasks
from tests.kernels.cpu.test_tasks import _digest
if __name__ == "__main__":
    expected = _digest()
    assert tasks._pools, "the parent has a pool"
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(_digest()))
    child.start()
    try:
        assert receiver.poll(60), "the child hangs"
        assert receiver.recv() == expected
    finally:
        child.kill()
        child.join()
    assert _digest() == expected
    print("done")
"""


def _run(script: Path, text: str, *arguments: str) -> None:
    """Run a program in a process of its own, which no other test's libraries have started threads in."""
    script.write_text(text)
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(script), *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    root = Path(__file__).parents[3]
    answer = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=environment, cwd=root, check=False
    )
    assert answer.stdout == "done\n", answer.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_works_after_its_parent_has_used_threads(tmp_path: Path) -> None:
    _run(tmp_path / "forking.py", FORKING)


class Noisy(Dataset[int]):
    """A data set that draws noise where it is read."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        return _digest()


LOADING = """
import sys
from torch.utils.data import DataLoader
from tests.kernels.cpu.test_tasks import Noisy, _digest
if __name__ == "__main__":
    expected = _digest()
    for method in sys.argv[1:]:
        loader = DataLoader(Noisy(), batch_size=None, num_workers=1, multiprocessing_context=method)
        assert list(loader) == [expected, expected], method
    print("done")
"""


def test_data_loader_workers(tmp_path: Path) -> None:
    """In a process of its own: a spawned worker imports the main module again."""
    methods = [method for method in ("fork", "spawn") if method in multiprocessing.get_all_start_methods()]
    _run(tmp_path / "loading.py", LOADING, *methods)


def test_the_first_failure_by_number_is_returned() -> None:
    for threads in (2, 3, 8):
        assert tasks.run_tasks(lambda i: i if i in (5, 3, 7) else -1, 9, threads) == 3
        assert tasks.run_tasks(lambda _: -1, 9, threads) == -1


def test_an_interrupt_waits_for_what_still_writes_to_memory() -> None:
    """The memory of a task is its caller's: it must not be given back while a helper works on it."""
    release, finished = threading.Event(), threading.Event()

    def task(number: int) -> int:
        if number == 0:
            release.set()
            raise KeyboardInterrupt
        release.wait(10)
        threading.Event().wait(0.2)
        finished.set()
        return -1

    with pytest.raises(KeyboardInterrupt):
        tasks.run_tasks(task, 2, 2)
    assert finished.is_set()
