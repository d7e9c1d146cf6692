"""Amounts, and structures that live or die together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bmrs_core import delta_f_normal
from bmrs_torch import HALF_LOG_2PI, MultiplicativeNoise, coupled_gates, insert_noise, noise_layers, prune
from bmrs_torch.deciding.rules import make_rule
from bmrs_torch.deciding.units import make_units
from tests.bindings.networks import hopeless, images, mlp, noisy

WIDTH = 4


class Residual(nn.Module):
    """Two gates on one stream: what one layer writes, the next adds to."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.gate1, self.gate2 = MultiplicativeNoise(WIDTH), MultiplicativeNoise(WIDTH)
        self.last = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        stream = self.gate1(self.first(x))
        answer: Tensor = self.last(stream + self.gate2(self.second(stream)))
        return answer


EXAMPLE = torch.ones(2, 3)


def with_evidence(gate1: list[str], gate2: list[str]) -> Residual:
    """Gates of which the evidence is against ('gone'), just for ('near') or far for ('kept') a structure."""
    parameters = {"gone": (-18.0, 2.0), "near": (-10.0, 1.6), "kept": (0.0, -5.0)}
    model = Residual()
    with torch.no_grad():
        for gate, kinds in ((model.gate1, gate1), (model.gate2, gate2)):
            for i, kind in enumerate(kinds):
                gate.mu[i], gate.log_sigma[i] = parameters[kind]
    return model


def evidence(gate: MultiplicativeNoise) -> Any:
    return delta_f_normal(gate.mu.detach().double().numpy(), gate.log_sigma.detach().double().exp().numpy())


MIXED = (["gone", "gone", "gone", "kept"], ["gone", "near", "kept", "kept"])


def test_the_gates_of_a_residual_stream_are_coupled_channel_by_channel() -> None:
    groups = coupled_gates(Residual(), EXAMPLE)
    assert groups == [{"gate1": (i,), "gate2": (i,)} for i in range(WIDTH)]


def test_without_coupling_each_gate_is_judged_by_itself() -> None:
    model = with_evidence(*MIXED)
    prune(model)
    assert model.gate1.mask.tolist() == [0, 0, 0, 1]
    assert model.gate2.mask.tolist() == [0, 1, 1, 1]


def test_with_all_a_channel_goes_only_if_each_gate_should() -> None:
    model = with_evidence(*MIXED)
    report = prune(model, coupling="all", example_inputs=EXAMPLE)
    assert model.gate1.mask.tolist() == model.gate2.mask.tolist() == [0, 1, 1, 1]
    assert report.pruned_now == 2
    assert report.rule == "prune where ΔF_N ≥ -0.9189, coupled ones together where each kept gate meets it"


def test_jointly_a_channel_goes_if_the_summed_evidence_reaches_the_tolerance_of_each_gate() -> None:
    model = with_evidence(*MIXED)
    total = evidence(model.gate1) + evidence(model.gate2)
    assert evidence(model.gate2)[1] < -HALF_LOG_2PI  # by itself it would stay
    prune(model, coupling="joint", example_inputs=EXAMPLE)
    expected = (total < -2 * HALF_LOG_2PI).astype(float).tolist()
    assert expected == [0, 0, 1, 1]
    assert model.gate1.mask.tolist() == model.gate2.mask.tolist() == expected


# Sums of ΔF and limits that are exact in binary: the comparison at the limit is with equality.
@pytest.mark.parametrize(
    ("delta_f", "kept", "goes"),
    [
        ([1.0, -2.0], [1, 1], True),  # the sum is −1 = −2 · ½
        ([1.0, -2.0625], [1, 1], False),
        ([-0.5, -0.5, -0.5], [1, 1, 1], True),  # each at the limit: so are three
        ([-0.5, -0.5, -0.625], [1, 1, 1], False),
        ([4.0, -0.625], [0, 1], False),  # what was pruned before neither counts in n nor in the sum
        ([-9.0, -0.5], [0, 1], True),
        ([3.0, -9.0, -0.5, 0.25], [1, 0, 0, 1], True),
    ],
)
def test_jointly_means_summed_evidence_of_at_least_minus_tolerance_for_each_kept_gate(
    delta_f: list[float], kept: list[int], goes: bool
) -> None:
    names = [f"gate{i}" for i in range(len(delta_f))]
    # Beside the group, each layer keeps a gate of its own, so that none is spared.
    worth = {name: np.array([-value, 100.0]) for name, value in zip(names, delta_f, strict=True)}
    alive = {name: np.array([bool(k), True]) for name, k in zip(names, kept, strict=True)}
    units = make_units(worth, alive, [dict.fromkeys(names, (0,))], "joint")
    chosen, _ = make_rule("bmrs_n", tolerance=0.5).choose(units)
    summed, n = np.dot(delta_f, kept), sum(kept)
    assert chosen[units.unit[0]] == goes == (summed >= -n * 0.5)


@pytest.mark.parametrize(
    ("coupling", "options", "words"),
    [
        ("joint", {"tolerance": 0.5}, "where Σ ΔF_N ≥ n · -0.5 over their n kept gates"),
        ("joint", {"amount": 0.5}, "by Σ ΔF_N / n over their n kept gates"),
        ("all", {"tolerance": 0.5}, "where each kept gate meets it"),
        ("all", {"amount": 0.5}, "by the ΔF_N of their best kept gate"),
    ],
)
def test_the_printed_rule_says_how_coupled_structures_are_judged(
    coupling: Any, options: dict[str, Any], words: str
) -> None:
    report = prune(with_evidence(*MIXED), coupling=coupling, example_inputs=EXAMPLE, **options)
    assert report.rule.endswith(f", coupled ones together {words}")


def test_a_gate_pruned_before_has_no_say() -> None:
    model = with_evidence(["kept", "gone", "kept", "kept"], ["gone", "gone", "kept", "kept"])
    model.gate1.mask[0] = 0
    prune(model, coupling="all", example_inputs=EXAMPLE)
    assert model.gate1.mask.tolist() == model.gate2.mask.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("coupling", ["all", "joint"])
def test_coupled_structures_never_all_go(coupling: Any) -> None:
    model = with_evidence(["gone"] * WIDTH, ["gone"] * WIDTH)
    with torch.no_grad():
        model.gate1.mu[2] = -17.0
    report = prune(model, coupling=coupling, example_inputs=EXAMPLE)
    assert model.gate1.mask.tolist() == model.gate2.mask.tolist() == [0, 0, 1, 0]
    assert [layer.spared for layer in report.layers] == [2, 2]


def test_a_global_amount_takes_the_lowest_of_all_layers() -> None:
    model = insert_noise(mlp(), images(2))
    prune(model, "l2", amount=0.4, scope="global")
    weights = [model.get_parameter(f"{name[0]}.weight") for name in noise_layers(model)]
    norms = np.concatenate([w.detach().double().norm(dim=1).numpy() for w in weights])
    kept = np.concatenate([layer.kept().numpy() for layer in noise_layers(model).values()])
    assert (~kept).sum() == 14
    assert norms[~kept].max() < norms[kept].min()
    assert prune(model, "l2", amount=0.4, scope="global").pruned_now == 0


@pytest.mark.parametrize("criterion", ["bmrs_n", "snr", "random"])
def test_every_criterion_takes_an_amount(criterion: str) -> None:
    model = insert_noise(mlp(), images(2))
    hopeless(model, "1.noise", [4, 7])
    report = prune(model, criterion, amount=0.2)
    assert [layer.kept.size - layer.num_kept for layer in report.layers] == [4, 3]
    if criterion != "random":
        assert not report.layers[0].kept[[4, 7]].any()


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_an_amount_leaves_each_layer_its_best_structure(scope: Any) -> None:
    model = insert_noise(mlp(), images(2))
    hopeless(model, "3.noise", list(range(15)))
    with torch.no_grad():
        noise_layers(model)["3.noise"].mu[6] = -10.0
    report = prune(model, "bmrs_n", amount=0.97, scope=scope)
    assert report.layers[1].kept.nonzero()[0].tolist() == [6]
    assert report.layers[1].spared == 6
    # 34 of 35 were asked for, and two layers need one each.
    assert report.num_kept == 2


def test_a_global_amount_is_met_where_a_layer_is_spared() -> None:
    model = insert_noise(mlp(), images(2))
    hopeless(model, "3.noise", list(range(15)))
    report = prune(model, "bmrs_n", amount=15 / 35, scope="global")
    assert [layer.num_kept for layer in report.layers] == [19, 1]


@pytest.mark.parametrize(
    ("criterion", "options", "message"),
    [
        ("snr", {"coupling": "joint", "example_inputs": images(1)}, "adds up evidence"),
        ("bmrs_n", {"coupling": "some", "example_inputs": images(1)}, "coupling must be 'all'"),
        ("bmrs_n", {"coupling": "all"}, "needs example_inputs"),
        ("bmrs_n", {"amount": 0.5, "tolerance": 1.0}, "takes the place of the rule"),
        ("bmrs_n", {"amount": 1.5}, r"in \[0, 1\), got 1.5"),
        ("bmrs_n", {"scope": "global"}, "give amount too"),
        ("bmrs_n", {"amount": 0.5, "scope": "model"}, "scope must be 'layer'"),
        ("taylor", {}, "no rule of its own"),
        ("random", {"threshold": float("inf")}, "positive and finite"),
    ],
)
def test_bad_options_are_refused_and_nothing_is_pruned(
    criterion: str, options: dict[str, Any], message: str
) -> None:
    model = noisy("mlp")
    before = [layer.mask.clone() for layer in noise_layers(model).values()]
    with pytest.raises(ValueError, match=message):
        prune(model, criterion, **options)
    after = [layer.mask for layer in noise_layers(model).values()]
    assert all(map(torch.equal, before, after))


def test_gates_of_no_group_are_units_of_their_own() -> None:
    worth = {"a": np.array([1.0, 2.0]), "b": np.array([3.0, 5.0])}
    kept = {"a": np.array([True, True]), "b": np.array([True, True])}
    groups = [{"a": (0,), "b": (1,)}]
    assert make_units(worth, kept, groups, "all").worth.tolist() == [5.0, 2.0, 3.0]
    assert make_units(worth, kept, groups, "joint").worth.tolist() == [3.0, 2.0, 3.0]
    assert make_units(worth, kept).worth.tolist() == [1.0, 2.0, 3.0, 5.0]
