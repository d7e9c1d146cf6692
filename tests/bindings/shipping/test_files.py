"""Files: whose they are, who may read them, what damaged ones say, and loading them without this package."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bmrs_torch import LayoutError, ShippingError, load_pruned, save_pruned
from bmrs_torch.shipping.layout import Layout, resize
from tests.bindings.networks import mlp


class Tied(nn.Module):
    """Tied weights, a buffer that is saved, one that isn't, sizes that are a tuple."""

    shift: torch.Tensor

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.words, self.norm = nn.Embedding(10, width), nn.LayerNorm(width)
        self.mean = nn.BatchNorm1d(width)
        self.answer = nn.Linear(width, 10, bias=False)
        self.answer.weight = self.words.weight
        self.register_buffer("shift", torch.arange(float(width)), persistent=False)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.answer(self.mean(self.norm(self.words(words)) + self.shift))
        return answer


WORDS = torch.arange(5)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_new_file_has_the_usual_permissions_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    file = save_pruned(mlp(), tmp_path / "m.safetensors")
    assert mode(file) == mode(tmp_path / "m.json") == mode(tmp_path / "usual")
    for permissions in (0o600, 0o664):
        file.chmod(permissions)
        (tmp_path / "m.json").chmod(permissions)
        save_pruned(mlp(), file)
        assert mode(file) == mode(tmp_path / "m.json") == permissions


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "m.safetensors"
    link.symlink_to(tmp_path / "disk" / "real.safetensors")
    save_pruned(mlp(), link)
    assert link.is_symlink()
    assert isinstance(load_pruned(mlp, tmp_path / "disk" / "real.safetensors"), nn.Sequential)


@pytest.mark.parametrize(
    "content", ['{"mine": 1}', "[1, 2]", "not JSON", '{"format": 1, "network": "mine"}', "\xff\xfe"]
)
def test_somebody_elses_file_beside_it_is_left_alone_and_that_is_said(content: str, tmp_path: Path) -> None:
    beside = tmp_path / "config.json"
    beside.write_bytes(content.encode("latin-1"))
    with pytest.warns(UserWarning, match=r"config\.json was not written by save_pruned and is left as it is"):
        file = save_pruned(Tied(), tmp_path / "config.safetensors")
    assert beside.read_bytes() == content.encode("latin-1")
    assert isinstance(load_pruned(Tied, file), Tied)


def test_ones_own_description_is_written_again(tmp_path: Path) -> None:
    save_pruned(Tied(8), tmp_path / "m.safetensors")
    save_pruned(Tied(4), tmp_path / "m.safetensors")
    assert json.loads((tmp_path / "m.json").read_text())["shapes"]["shift"] == [4]


def test_a_place_that_can_not_be_written_is_named_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"^there is no folder 'missing/deep' to save 'm"):
        save_pruned(mlp(), "missing/deep/m.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(IsADirectoryError, match=r"'folder\.safetensors' is a folder"):
        save_pruned(mlp(), "folder.safetensors")
    with pytest.raises(
        FileNotFoundError, match=r"folder.safetensors is a folder: give the .safetensors file"
    ):
        load_pruned(mlp, "folder.safetensors")

    def refuse(*_: Any) -> int:
        raise PermissionError(13, "Permission denied", ".m.safetensors.hidden")

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(PermissionError) as caught:
        save_pruned(mlp(), "m.safetensors")
    assert caught.value.filename == "m.safetensors"


def damaged(description: dict[str, Any], how: str) -> Any:
    changes: dict[str, Any] = {
        "no JSON": "{",
        "deep": "[" * 100_000,
        "a list": "[]",
        "format": json.dumps(description | {"format": [2]}),
        "no shapes": json.dumps({k: v for k, v in description.items() if k != "shapes"}),
        "shapes of words": json.dumps(description | {"shapes": {"words.weight": "wide"}}),
        "negative": json.dumps(description | {"shapes": description["shapes"] | {"shift": [-8]}}),
        "other shape": json.dumps(description | {"shapes": description["shapes"] | {"shift": [4]}}),
        "one more": json.dumps(description | {"shapes": description["shapes"] | {"more": [4]}}),
        "one less": json.dumps(description | {"shapes": {"words.weight": [10, 8]}, "aliases": {}}),
        "sizes of words": json.dumps(description | {"sizes": {"words": {"embedding_dim": "8"}}}),
        "sizes a list": json.dumps(description | {"sizes": {"words": [8]}}),
        "no aliases": json.dumps({k: v for k, v in description.items() if k != "aliases"}),
        "alias of nothing": json.dumps(description | {"aliases": {"answer.weight": "gone"}}),
        "alias of another shape": json.dumps(description | {"aliases": {"answer.weight": "shift"}}),
        "alias of a number": json.dumps(description | {"aliases": {"answer.weight": 3}}),
    }
    return changes[how]


@pytest.mark.parametrize(
    "how",
    "no JSON|deep|a list|format|no shapes|shapes of words|negative|other shape|one more|one less|sizes of "
    "words|sizes a list|no aliases|alias of nothing|alias of another shape|alias of a number".split("|"),
)
def test_a_damaged_description_is_an_error_of_the_file_and_the_network_is_untouched(
    how: str, tmp_path: Path
) -> None:
    file = save_pruned(Tied(), tmp_path / "m.safetensors")
    description = json.loads((tmp_path / "m.json").read_text())
    save_file(load_file(file), file, metadata={"bmrs": damaged(description, how)})
    fresh = Tied()
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    with pytest.raises(ShippingError, match=r"m\.safetensors"):
        load_pruned(fresh, file)
    assert all(torch.equal(value, before[name]) for name, value in fresh.state_dict().items())


@pytest.mark.parametrize("some", [False, True])
def test_a_network_on_the_meta_device_gets_its_values(some: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Tied(4).eval()
    file = save_pruned(model, tmp_path / "m.safetensors")
    if some:
        empty = Tied()
        empty.norm.to("meta")
        empty.norm.weight.requires_grad_(False)
    else:
        with torch.device("meta"):
            empty = Tied()
    loaded = load_pruned(empty, file)
    assert loaded is empty
    assert not any(tensor.is_meta for tensor in [*loaded.parameters(), *loaded.buffers()])
    assert loaded.answer.weight is loaded.words.weight
    assert loaded.norm.weight.requires_grad is not some
    assert torch.equal(loaded.eval()(WORDS), model(WORDS))


def test_a_network_without_values_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ShippingError, match=r"'words\.weight' of Tied is on the meta device"):
        save_pruned(Tied().to("meta"), tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


class Window(NamedTuple):
    high: int
    wide: int


def test_named_tuples_stay_what_they_are() -> None:
    def network(width: int) -> nn.Module:
        layer = nn.Linear(width, 2)
        layer.window = Window(width, 2)  # type: ignore[assignment]
        return layer

    resized = resize(network(8), Layout.of(network(3)))
    assert resized.window == Window(3, 2)
    assert isinstance(resized.window, Window)


RECIPE = textwrap.dedent(
    re.search(r"isn't installed.*?::\n\n(.*?)\n\n", inspect.getdoc(load_pruned) or "", re.DOTALL)[1]  # type: ignore[index]
)


def test_the_recipe_loads_where_this_package_is_not_installed(tmp_path: Path) -> None:
    assert len(RECIPE.splitlines()) == 12
    torch.manual_seed(0)
    model = Tied(4).eval()
    save_pruned(model, tmp_path / "small.safetensors")
    torch.save(model(WORDS), tmp_path / "answers")
    source = inspect.getsource(Tied)
    program = "\n".join(
        [
            "import sys; sys.modules['bmrs_torch'] = sys.modules['bmrs_core'] = None",
            "import torch; from torch import nn",
            source,
            "network = Tied",
            RECIPE,
            "assert model.answer.weight is model.words.weight and model.norm.normalized_shape == (4,)",
            "assert torch.equal(model.eval()(torch.arange(5)), torch.load('answers'))",
        ]
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert found.returncode == 0, found.stderr


def test_a_file_that_fits_another_network_is_an_error_of_the_network(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="not the network whose shapes"):
        load_pruned(mlp, save_pruned(Tied(), tmp_path / "m.safetensors"))
