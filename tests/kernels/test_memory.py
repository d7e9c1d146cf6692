"""What the operation asks torch for: its results, and nothing else of the size of x."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bmrs_kernels.contract import SHARES, NoiseLayout
from bmrs_torch.operation import cpu

SHAPE = (16, 24, 20, 20)
SEED = torch.tensor([3])


class Allocations(TorchDispatchMode):
    """Bytes of every new tensor that torch's operators return."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sizes: list[int] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.sizes.append(result.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("share", SHARES)
def test_nothing_of_the_size_of_x_but_the_result_is_allocated(share: str, last: bool) -> None:
    form = torch.channels_last if last else torch.contiguous_format
    x, dy = (torch.ones(SHAPE).to(memory_format=form) for _ in range(2))
    parameters = (torch.zeros(24), torch.full((24,), -3.0), torch.ones(24), SEED)
    layout = NoiseLayout(1, share, -20.0, 0.0)
    for want_dx in (True, False):
        with Allocations() as forward:
            cpu.noise_forward(x, *parameters, layout)
        with Allocations() as backward:
            cpu.noise_backward(dy, x, *parameters, layout, want_dx)
        large = x.nbytes // 8
        assert [size for size in forward.sizes if size > large] == [x.nbytes]
        assert [size for size in backward.sizes if size > large] == [x.nbytes] * want_dx
