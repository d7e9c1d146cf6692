"""Recurrent layers: what feeds them shrinks with their inputs, of any kind and however they are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from bmrs_torch import compact, fold, insert_noise, noise_layers, plan_insertion
from bmrs_torch.attachment import attachments
from bmrs_torch.channels.axes import Axis
from bmrs_torch.channels.labels import Labels
from bmrs_torch.channels.recurrent import RECURRENCE
from bmrs_torch.channels.trace import Call, Trace
from bmrs_torch.surgery.verification import relative_difference
from tests.bindings.gates import close, scatter

INPUTS, WIDTH, HIDDEN = 5, 10, 6

KINDS: dict[str, Callable[[], nn.RNNBase]] = {
    "lstm": lambda: nn.LSTM(WIDTH, HIDDEN, batch_first=True),
    "gru": lambda: nn.GRU(WIDTH, HIDDEN, batch_first=True, bias=False),
    "tanh": lambda: nn.RNN(WIDTH, HIDDEN, batch_first=True),
    "relu": lambda: nn.RNN(WIDTH, HIDDEN, batch_first=True, nonlinearity="relu"),
    "deep, both ways": lambda: nn.LSTM(WIDTH, HIDDEN, 2, batch_first=True, bidirectional=True),
    "deep gru, both ways": lambda: nn.GRU(WIDTH, HIDDEN, 3, batch_first=True, bidirectional=True),
    "projected": lambda: nn.LSTM(WIDTH, HIDDEN, 2, batch_first=True, proj_size=4, bidirectional=True),
    "as many layers as units": lambda: nn.GRU(WIDTH, 3, 3, batch_first=True),
}


class Reader(nn.Module):
    """Frames encoded one by one and read by a recurrent layer, called in one of several ways."""

    def __init__(self, rnn: nn.RNNBase, use: str) -> None:
        super().__init__()
        self.encoder, self.rnn, self.use = nn.Linear(INPUTS, WIDTH), rnn, use
        width = (rnn.proj_size or rnn.hidden_size) * (2 if rnn.bidirectional else 1)
        self.head = nn.Linear(rnn.hidden_size if use == "last state" else width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.encoder(x))
        if self.use == "packed":
            lengths = torch.arange(len(x)) % x.shape[1] + 1
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return self._answer(pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0])
        output, state = self.rnn(x)
        if self.use == "last state":
            return self._answer((state[-1] if isinstance(state, tuple) else state)[-1])
        return self._answer(output)

    def _answer(self, x: Tensor) -> Tensor:
        answer: Tensor = self.head(x)
        return answer


def frames(batch: int, length: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, INPUTS, dtype=torch.float64, generator=generator)


def made(model: nn.Module) -> Any:
    return model.double().eval()


@pytest.mark.parametrize("use", ["output", "last state", "packed"])
@pytest.mark.parametrize("kind", KINDS)
def test_inputs_go_with_what_feeds_them(kind: str, use: str) -> None:
    torch.manual_seed(0)
    model = made(Reader(KINDS[kind](), use))
    insert_noise(model, frames(3, 4), where=["encoder"])
    close(scatter(model), 0.6)
    smaller = compact(model, frames(3, 4))
    assert (smaller.encoder.out_features, smaller.rnn.input_size) == (4, 4)
    assert smaller.rnn.weight_ih_l0.shape[1] == 4
    kept = ("hidden_size", "proj_size", "num_layers")
    assert [getattr(smaller.rnn, name) for name in kept] == [getattr(model.rnn, name) for name in kept]
    for batch, length in ((3, 4), (2, 7)):
        assert relative_difference(model, smaller, frames(batch, length, 1)) < 1e-12
    assert relative_difference(smaller, fold(smaller, frames(2, 5)), frames(2, 6)) < 1e-9


@pytest.mark.parametrize("use", ["output", "last state", "packed"])
@pytest.mark.parametrize("kind", KINDS)
def test_units_go_where_their_noise_reaches_the_recurrence(kind: str, use: str) -> None:
    torch.manual_seed(0)
    model = made(Reader(KINDS[kind](), use))
    insert_noise(model, frames(3, 4))
    assert list(noise_layers(model)) == ["encoder.noise", "rnn.noise"]
    close(scatter(model), 0.6)
    smaller = compact(model, frames(3, 4))
    width, left = model.rnn.noise.num_structures, int(model.rnn.noise.kept().sum())
    assert left < width
    projected = model.rnn.proj_size > 0
    assert (smaller.rnn.proj_size if projected else smaller.rnn.hidden_size) == left
    assert smaller.rnn.num_layers == model.rnn.num_layers
    for batch, length in ((3, 4), (2, 7)):
        assert relative_difference(model, smaller, frames(batch, length, 1)) < 1e-12
    folded = fold(smaller, frames(2, 5))
    assert not attachments(folded)
    assert relative_difference(smaller, folded, frames(2, 6)) < 1e-9


def test_layers_that_read_one_another_lose_their_units() -> None:
    class Stacked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.GRU(INPUTS, HIDDEN), nn.LSTM(HIDDEN, HIDDEN)
            self.head = nn.Linear(2 * HIDDEN, 3)

        def forward(self, x: Tensor) -> Tensor:
            steps, (_, cells) = self.second(self.first(x.transpose(0, 1))[0])
            answer: Tensor = self.head(torch.cat([steps[-1], cells[-1]], -1))
            return answer

    torch.manual_seed(0)
    model = made(Stacked())
    insert_noise(model, frames(3, 4))
    smaller: Any = compact(close(scatter(model), 0.5), frames(3, 4))
    assert (smaller.first.hidden_size, smaller.second.input_size, smaller.second.hidden_size) == (3, 3, 3)
    assert relative_difference(model, smaller, frames(2, 7)) < 1e-12
    assert relative_difference(smaller, fold(smaller, frames(2, 5)), frames(2, 6)) < 1e-9


def test_it_is_said_why_units_stay() -> None:
    class Given(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shown, self.twice = nn.GRU(INPUTS, HIDDEN), nn.GRU(HIDDEN, HIDDEN)
            self.normed = parametrizations.weight_norm(nn.GRU(HIDDEN, HIDDEN), "weight_hh_l0")
            self.head = nn.Linear(HIDDEN, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            shown, _ = self.shown(x)
            return self.head(self.normed(self.twice(self.twice(shown)[0])[0])[0]), shown

    with torch.no_grad():  # else torch can't copy a parametrized recurrent layer
        model = made(Given())
        reasons = dict(plan_insertion(model, frames(3, 4)).passed_over)
        named = dict(plan_insertion(model, frames(3, 4), where=["normed"]).passed_over)
    assert reasons["shown"] == "it is the model's output"
    assert reasons["twice"] == "it is called more than once"
    assert "parametrized" in reasons["normed"]
    assert named["normed"] == reasons["normed"]


def test_a_recurrent_layer_can_be_named() -> None:
    torch.manual_seed(0)
    model = made(Reader(nn.GRU(WIDTH, HIDDEN, batch_first=True), "output"))
    insert_noise(model, frames(3, 4), where=["rnn"])
    smaller: Any = compact(close(scatter(model), 0.5), frames(3, 4))
    assert (smaller.rnn.hidden_size, smaller.head.in_features) == (3, 3)
    assert relative_difference(model, smaller, frames(2, 7)) < 1e-12


@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_inputs_of_a_cell_go(cell: Callable[..., nn.Module]) -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.cell = nn.Linear(INPUTS, WIDTH), cell(WIDTH, HIDDEN)
            self.head = nn.Linear(HIDDEN, 3)

        def forward(self, x: Tensor) -> Tensor:
            state = None
            for step in torch.relu(self.encoder(x)).unbind(1):
                state = self.cell(step, state)
            assert state is not None
            answer: Tensor = self.head(state[0] if isinstance(state, tuple) else state)
            return answer

    torch.manual_seed(0)
    model = made(Loop())
    insert_noise(model, frames(3, 4))
    smaller: Any = compact(close(scatter(model), 0.6), frames(3, 4))
    assert (smaller.encoder.out_features, smaller.cell.input_size, smaller.cell.hidden_size) == (4, 4, HIDDEN)
    assert relative_difference(model, smaller, frames(2, 7)) < 1e-12


def test_a_convolution_feeds_a_recurrent_layer() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv1d(INPUTS, WIDTH, 3, padding=1), nn.BatchNorm1d(WIDTH)
            self.rnn, self.head = nn.GRU(WIDTH, HIDDEN), nn.Linear(HIDDEN, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.norm(self.conv(x.transpose(1, 2))))
            answer: Tensor = self.head(self.rnn(x.permute(2, 0, 1))[0][-1])
            return answer

    torch.manual_seed(0)
    model = made(Net())
    insert_noise(model, frames(3, 4))
    smaller: Any = compact(close(scatter(model), 0.6), frames(3, 4))
    assert (smaller.conv.out_channels, smaller.rnn.input_size) == (4, 4)
    assert relative_difference(model, smaller, frames(2, 7)) < 1e-12


@pytest.mark.parametrize(("name", "gates"), [("_thnn_fused_lstm_cell", 4), ("_thnn_fused_gru_cell", 3)])
def test_a_step_on_cuda_unites_the_gates_of_a_unit(name: str, gates: int) -> None:
    labels = Labels()
    trace = Trace({}, labels, {}, {})
    given, recurrent = torch.zeros(2, gates * HIDDEN), torch.zeros(2, gates * HIDDEN)
    state, new = torch.zeros(2, HIDDEN), torch.zeros(2, HIDDEN)
    axes: list[Axis] = []
    for tensor in (given, recurrent, state):
        axes.append(trace.axis(labels.new(tensor.shape[-1])))
        trace.set(tensor, (None, axes[-1]), dynamic=True)
    previous = "cx" if gates == 4 else "hx"
    sums = {"input_gates": given, "hidden_gates": recurrent, previous: state}
    RECURRENCE[name](trace, Call(name, sums, (new, torch.zeros(2, 5 * HIDDEN)), pointwise=False))
    unit = trace.state(new).axes[-1]
    assert unit is not None
    for axis in axes:
        runs = labels.roots(axis.labels).reshape(-1, HIDDEN)
        assert (runs == labels.roots(unit.labels)).all()
