"""Plan for a network of real size on the meta device: where its noise goes, and what goes of a third masked.

Its own process, so that the most memory that it ever held is its own: `python large_plan.py llama-3-8b`.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import torch
from torch import nn

from benchmarks.zoo.packages import transformers_package
from bmrs_torch import insert_noise, noise_layers, plan_compaction

transformers = transformers_package()


def llama_3_8b() -> tuple[nn.Module, dict[str, Any]]:
    settings: dict[str, Any] = {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 8192,
        "rope_theta": 500000.0,
    }
    ids = torch.zeros((1, 2), dtype=torch.int64, device="meta")
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings)), {
        "input_ids": ids,
        "use_cache": False,
        "logits_to_keep": 1,
    }


def vit_l() -> tuple[nn.Module, dict[str, Any]]:
    settings: dict[str, Any] = {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "num_labels": 1000,
    }
    return transformers.ViTForImageClassification(transformers.ViTConfig(**settings)), {
        "pixel_values": torch.zeros(1, 3, 224, 224, device="meta")
    }


def plan(name: str) -> dict[str, Any]:
    began = time.perf_counter()
    with torch.device("meta"):
        model, example = {"llama-3-8b": llama_3_8b, "vit-l": vit_l}[name]()
    model.eval()
    insert_noise(model, example)
    inserted = time.perf_counter()
    layers = noise_layers(model)
    for layer in layers.values():
        layer.mask = torch.ones(layer.num_structures)
        layer.mask[::3] = 0
    removal = plan_compaction(model, example)
    assert all(parameter.is_meta for parameter in model.parameters())
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "structures": {name: layer.num_structures for name, layer in layers.items()},
        "masked": sum(int((layer.mask == 0).sum()) for layer in layers.values()),
        "removed": removal.removed,
        "seconds to insert": inserted - began,
        "seconds to plan": time.perf_counter() - inserted,
        "GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


if __name__ == "__main__":
    print(json.dumps(plan(sys.argv[1])))  # noqa: T201 - for the test that started it
