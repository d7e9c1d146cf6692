"""
A transformer of Hugging Face
=============================

Heads and neurons of a BERT go, and what is left is saved and loaded as models
of transformers are. Needs transformers, and matplotlib: ``pip install
'.[report,integrations]'``. Nothing is fetched: the network is small and made
from its configuration, and the sentences are made up. With ``from_pretrained``
the lines are the same.
"""

import tempfile

import torch
from transformers import BertConfig, BertForSequenceClassification

from bmrs_torch import (
    Pruner,
    Schedule,
    draw_layers,
    insert_noise,
    parameter_groups,
    plan_insertion,
    report,
)
from bmrs_torch.integrations.transformers import (
    from_pretrained,
    save_pretrained,
)

torch.manual_seed(0)
config = BertConfig(
    vocab_size=40,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=8,
    intermediate_size=128,
    max_position_embeddings=16,
    num_labels=2,
)
model = BertForSequenceClassification(config)

# %%
# The task
# --------
# Sentences of eight words out of 40. The label is whether the first word's
# number is larger than the second's.

words = torch.randint(0, 40, (2048, 8))
labels = (words[:, 0] > words[:, 1]).long()

# %%
# Where the noise goes
# --------------------
# On attention heads and on the neurons between the two linear layers of a
# block. The residual stream, which LayerNorms read, is left out: over fewer
# channels they would give other answers.

example = {"input_ids": words[:32]}
print(plan_insertion(model, example, where="heads and neurons"))
model = insert_noise(model, example, where="heads and neurons")

# %%
# Training
# --------
# Models of transformers give their own loss. In the few steps of this page the
# noise has to learn faster than usual, thirty times as fast as the weights
# instead of ten; and the task is so small that at the default ``kl_weight`` of
# 1 a single neuron would be left in each block, so it is 0.2.

groups = parameter_groups(model, lr=1e-3, noise_lr_multiplier=30)
optimizer = torch.optim.AdamW(groups)
pruner = Pruner(
    model,
    optimizer,
    num_samples=len(words),
    kl_weight=0.2,
    schedule=Schedule(finetune_from=10),
)
for _ in range(12):
    model.train()
    for chosen in torch.randperm(len(words)).split(64):
        optimizer.zero_grad()
        misfit = model(input_ids=words[chosen], labels=labels[chosen]).loss
        pruner.loss(misfit).backward()
        optimizer.step()
    pruner.end_epoch()
print(pruner)

# %%
# A smaller BERT
# --------------
# The class is the same, its layers are of different widths.

smaller = pruner.finish(example).eval()
for number, layer in enumerate(smaller.bert.encoder.layer):
    heads = layer.attention.self.num_attention_heads
    neurons = layer.intermediate.dense.out_features
    print(f"layer {number}: {heads} heads, {neurons} neurons")

whole = BertForSequenceClassification(config).eval()
comparison = report(whole, smaller, example)
print(comparison)
draw_layers(comparison, "layers.png")

# %%
# Saved and loaded
# ----------------
# The configuration of a pruned model can't say that its layers are of different
# widths, so transformers' own ``from_pretrained`` refuses it. These two keep
# the widths beside the weights, in a folder as transformers makes it.

with tempfile.TemporaryDirectory() as folder:
    save_pretrained(smaller, folder)
    again = from_pretrained(folder)

with torch.no_grad():
    answers = again(input_ids=words).logits
assert torch.equal(answers, smaller(input_ids=words).logits)
accuracy = (answers.argmax(1) == labels).double().mean()
print(f"{type(again).__name__}, accuracy {accuracy:.1%} on its training data")
