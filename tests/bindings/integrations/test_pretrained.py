"""Pruned models of transformers in folders as it keeps them, saved and loaded again."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from bmrs_torch import LayoutError, ShippingError, compact, fold, insert_noise, noise_layers

transformers = pytest.importorskip("transformers", reason="pip install 'bmrs-pruning[integrations]'")


def bert() -> Any:
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24, vocab_size=30
    )
    return transformers.BertForSequenceClassification(config)


def llama() -> Any:
    config = transformers.LlamaConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=24,
        vocab_size=30,
    )
    return transformers.LlamaForCausalLM(config)


WORDS = torch.arange(10).view(2, 5)


def pruned(make: Any) -> tuple[Any, dict[str, Any]]:
    torch.manual_seed(0)
    inputs = {"input_ids": WORDS} | ({"use_cache": False} if make is llama else {})
    model = insert_noise(make().eval(), inputs, where="heads and neurons")
    for number, layer in enumerate(noise_layers(model).values()):
        layer.mask[: layer.num_structures // (2 + number)] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about heads that share keys
        return fold(compact(model, inputs), inputs), inputs


@pytest.mark.parametrize("make", [bert, llama])
def test_a_pruned_model_comes_back_from_its_folder(make: Any, tmp_path: Path) -> None:
    from bmrs_torch.integrations.transformers import from_pretrained, save_pretrained

    model, inputs = pruned(make)
    whole = make().num_parameters()
    folder = tmp_path / "deep" / "pruned"
    save_pretrained(model.to(torch.float64), folder)
    again: Any = from_pretrained(folder)
    assert type(again) is type(model)
    assert not again.training
    assert again.num_parameters() == model.num_parameters() < whole
    assert torch.equal(again(**inputs).logits, model.eval()(**inputs).logits)
    save_pretrained(again, folder)
    assert from_pretrained(folder, type(model)).num_parameters() == model.num_parameters()
    if make is llama:
        assert again.generate(WORDS, attention_mask=torch.ones_like(WORDS), max_new_tokens=2).shape == (2, 7)


def test_what_can_not_be_saved_or_loaded_is_said(tmp_path: Path) -> None:
    from bmrs_torch.integrations.transformers import from_pretrained, save_pretrained

    noisy: Any = insert_noise(bert().eval(), {"input_ids": WORDS}, where="neurons")
    with pytest.raises(ShippingError, match="fold it first"):
        save_pretrained(noisy, tmp_path)
    with pytest.raises(TypeError, match="PreTrainedModel of transformers, got a Linear"):
        save_pretrained(torch.nn.Linear(2, 2), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"no file .*model\.safetensors"):
        from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"mine": 1}')
    with pytest.raises(ShippingError, match=r"config\.json is not of a 'bert' model"):
        save_pretrained(bert(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    folder = tmp_path / "other"
    save_pretrained(bert(), folder)
    with pytest.raises(LayoutError, match="not the network whose shapes"):
        from_pretrained(folder, transformers.BertForTokenClassification)
    config = json.loads((folder / "config.json").read_text()) | {"architectures": ["MyBert"]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"no model of the class 'MyBert'.*give it as model_class="):
        from_pretrained(folder)
