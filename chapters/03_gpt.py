# %% [markdown]
# # 3. The GPT block and the whole model
#
# Attention lets tokens talk. What is missing is small: a little network that thinks about each token alone,
# a way to keep the numbers in a healthy range, and a stack of a dozen copies. At the end of this chapter
# you have written GPT-2, and counted its parameters in all four sizes.
#
# **What you will learn**
#
# - layer norm and GELU from their formulas, and why "almost the same GELU" is not good enough;
# - the residual stream: why blocks add to what is there instead of replacing it;
# - GPT-2 in about forty lines, equal to the library's;
# - where 124 million parameters sit, and how to count 1.5 billion without having the memory for them.

# %%
import math
from dataclasses import replace

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F

from gptcls.core.gpt2 import GPT2, MLP, PRESETS, Attention, Block, GPT2Config
from gptcls.core.tokenizer import decode, encode
from gptcls.evaluation.style import BLUE, GREEN, GREY, ORANGE, VERMILION, use_style
from gptcls.models.pretrained import load_pretrained, shapes_only

use_style()
torch.manual_seed(123)
MODEL = "gpt2-nano"  # "gpt2-small" downloads 548 MB

# %% [markdown]
# The letters again: `B` texts, `T` tokens, `C` channels, `V` entries of the vocabulary.
#
# ## Layer norm
#
# Deep stacks of matrix products make numbers grow or shrink. Before each half of a block, every token's
# vector is brought back to mean 0 and size 1; two learnt vectors then scale and shift each channel.


# %%
def my_layer_norm(x, weight, bias, eps=1e-5):  # (..., C) -> (..., C)
    """Each token on its own: no other token and no other text of the batch takes part."""
    mean = x.mean(dim=-1, keepdim=True)
    variance = x.var(dim=-1, keepdim=True, unbiased=False)
    return (x - mean) / torch.sqrt(variance + eps) * weight + bias


x = 3 + 5 * torch.randn(2, 4, 64)
weight, bias = torch.randn(64), torch.randn(64)
torch.testing.assert_close(my_layer_norm(x, weight, bias), F.layer_norm(x, (64,), weight, bias))

# %% [markdown]
# ## GELU, and the approximation that matters
#
# Between its two matrices a block needs something that is no straight line. GPT-2 takes GELU: *x* times the
# chance that a standard normal number is below *x*. In 2019 that was slow to compute, so GPT-2 was trained
# with an approximation by tanh.


# %%
def my_gelu(x):
    """GPT-2's GELU: the approximation by tanh (Hendrycks and Gimpel 2016)."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


line = torch.linspace(-5, 5, 1001)
torch.testing.assert_close(my_gelu(line), F.gelu(line, approximate="tanh"))
difference = my_gelu(line) - F.gelu(line)

figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.2))
left.plot(line, line.relu(), "--", color=GREY, label="ReLU")
left.plot(line, my_gelu(line), color=BLUE, label="GELU")
left.set(title="a soft switch", xlabel="x", ylim=(-0.5, 4), xlim=(-4, 4))
left.legend()
right.plot(line, 1e4 * difference, color=VERMILION)
right.set(title="tanh approximation − exact GELU", xlabel="x", ylabel="difference × 10,000")
for axes in (left, right):
    axes.grid()
plt.show()
print(f"largest difference: {difference.abs().max():.1e}")

# %% [markdown]
# The difference looks like nothing, but it goes through every block, thousands of channels each. Whoever
# loads GPT-2's weights into a network with the exact GELU gets answers that are slightly off, and no error
# message. This is why each part here is held against an independent one with `torch.testing.assert_close`.
#
# ## The feed-forward half
#
# Two matrices with GELU between them, four times as wide inside. Every token goes through alone; two thirds
# of a block's parameters are here.


# %%
class MyMLP(nn.Module):
    """Widen, bend, narrow."""

    def __init__(self, n_embd: int) -> None:
        super().__init__()
        self.fc = nn.Linear(n_embd, 4 * n_embd)
        self.proj = nn.Linear(4 * n_embd, n_embd)

    def forward(self, x):  # (B, T, C) -> (B, T, C)
        return self.proj(my_gelu(self.fc(x)))


config = PRESETS["gpt2-nano"]
library = MLP(config)
mine = MyMLP(config.n_embd)
mine.load_state_dict(library.state_dict())
x = torch.randn(2, 5, config.n_embd)
torch.testing.assert_close(mine(x), library(x))

# %% [markdown]
# ## The block
#
# ```text
#        x ──┬── norm1 ── attention ──(+)──┬── norm2 ── MLP ──(+)── x'
#            └─────────────────────────┘   └──────────────────┘
# ```
#
# What runs from x to x' along the lower line, past the norms, is called the **residual stream**. Each half
# of the block reads a normalised copy of it and *adds* its result to it. So a block need not carry
# everything along; it only writes down what it found. And the gradient has a straight road from the loss to
# the first block.


# %%
class MyBlock(nn.Module):
    """Attention between tokens, then thought on each token. Chapter 2 built the attention."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.n_embd)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.n_embd)
        self.mlp = MyMLP(config.n_embd)

    def forward(self, x):  # (B, T, C) -> (B, T, C)
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


library = Block(config)
mine = MyBlock(config)
mine.load_state_dict(library.state_dict())
torch.testing.assert_close(mine(x), library(x))

# %% [markdown]
# ## The whole model
#
# A table with a vector for each token, a table with a vector for each position, the blocks, a last norm.
# Then each token's vector is compared with all vectors of the token table: the dot products are the
# **logits** of the next token, scores that a softmax turns into probabilities. That the first table is used
# again at the end is called **weight tying**.


# %%
class MyGPT(nn.Module):
    """GPT-2."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)  # token table
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)  # position table
        self.blocks = nn.ModuleList(MyBlock(config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(config.n_embd)

    def forward(self, ids):  # (B, T) -> (B, T, V)
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]  # (B, T, C)
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.wte.weight.T


# %% [markdown]
# Against the library's, with pretrained weights and a real text. The library's `GPT2` stops before the last
# product, because a classifier does not want it; `lm_logits` adds it.

# %%
model = load_pretrained(MODEL)
mine = MyGPT(model.config)
mine.load_state_dict(model.state_dict())

TEXT = "Thank you very much for your"
ids = torch.tensor([encode(TEXT)])
with torch.no_grad():
    logits = mine(ids)  # (1, T, V)
    torch.testing.assert_close(logits, model.lm_logits(model(ids)))

best = logits[0, -1].softmax(dim=-1).topk(5)
print(TEXT, "…")
for probability, token in zip(best.values, best.indices, strict=True):
    print(f"{probability:6.1%}  {decode([int(token)])!r}")

# %% [markdown]
# ## What does an untrained GPT know?
#
# Nothing: it should spread its bets evenly over the vocabulary. Its loss is the cross entropy: −ln of the
# probability that it gave to the token that did come, on average, in a unit called *nat*. Even bets give
# each token 1 / V, so the loss is ln V, and one far from this at the very start is a sign that something is
# wrong. Compare the loss before and after pretraining on a message written for this chapter:


# %%
def loss_a_token(model, text):
    """Mean cross entropy of predicting each next token, in nats."""
    ids = torch.tensor([encode(text)])
    with torch.no_grad():
        logits = model.lm_logits(model(ids))[0]
    return F.cross_entropy(logits[:-1], ids[0, 1:]).item()


MESSAGE = "Are you coming home tonight? I can pick you up from the station if you like."
untrained = GPT2(model.config).eval()
print(f"ln {model.config.vocab_size:,} = {math.log(model.config.vocab_size):.2f}")
print(f"untrained: {loss_a_token(untrained, MESSAGE):.2f}, pretrained: {loss_a_token(model, MESSAGE):.2f}")

# %% [markdown]
# ## Why the last matrices start small
#
# Every block adds twice to the stream. Independent additions let its variance grow with the number of
# blocks: GPT-2 therefore starts the two matrices that write to the stream smaller, by the square root of
# how many there are.

# %%
deep = replace(config, n_layer=48)
with torch.no_grad():
    scaled = GPT2(deep)
    plain = GPT2(deep)
    for block in plain.blocks:
        for linear in (block.attn.proj, block.mlp.proj):
            nn.init.normal_(linear.weight, std=0.02)

figure, axes = plt.subplots(figsize=(6.4, 3.2))
for network, style, colour, label in (
    (plain, "-", VERMILION, "all matrices alike"),
    (scaled, "--", BLUE, "GPT-2: writers divided by √(2 · blocks)"),
):
    sizes = []
    with torch.no_grad():
        stream = network.embed(ids)
        for block in network.blocks:
            stream = block(stream)
            sizes.append(stream.std().item())
    axes.plot(range(1, len(sizes) + 1), sizes, style, color=colour, label=label)
axes.set(xlabel="after block", ylabel="size of the stream (std)", ylim=(0, None))
axes.grid()
axes.legend()
plt.show()

# %% [markdown]
# ## Where the parameters are
#
# GPT-2 came in four sizes; nano, the first line below, is ours. To count parameters one needs their shapes,
# not their values, so we build the networks on PyTorch's *meta* device, where a tensor has a shape and no
# memory. The largest would fill 6 GB otherwise.


# %%
def parameters_by_part(config: GPT2Config) -> dict[str, int]:
    """How many parameters each part of a GPT-2 has."""
    with shapes_only():
        model = GPT2(config)
    parts = {
        "token table": [model.wte],
        "position table": [model.wpe],
        "attention": [block.attn for block in model.blocks],
        "MLP": [block.mlp for block in model.blocks],
        "norms": [model.norm, *(n for block in model.blocks for n in (block.norm1, block.norm2))],
    }
    counts = {
        name: sum(p.numel() for module in modules for p in module.parameters())
        for name, modules in parts.items()
    }
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters())
    return counts


sizes = {name: parameters_by_part(preset) for name, preset in PRESETS.items()}
for name, counts in sizes.items():
    c = PRESETS[name]
    total = sum(counts.values())
    print(
        f"{name:12} {c.n_layer:2} blocks x {c.n_embd:4} wide: {total:13,} parameters, {4 * total / 1e9:5.2f} GB in fp32"
    )

# %% [markdown]
# The same by a formula: a block has 12 C² + 13 C parameters, the tables V · C and n_positions · C, the last
# norm 2 C.

# %%
for name, counts in sizes.items():
    c = PRESETS[name]
    formula = c.n_layer * (12 * c.n_embd**2 + 13 * c.n_embd) + (c.vocab_size + c.n_positions + 2) * c.n_embd
    assert formula == sum(counts.values())

figure, axes = plt.subplots(figsize=(7.6, 3.2))
parts = ("token table", "position table", "attention", "MLP")  # the norms would not be seen
starts = dict.fromkeys(sizes, 0.0)
for part, colour in zip(parts, (BLUE, GREY, ORANGE, GREEN), strict=True):
    shares = {name: 100 * counts[part] / sum(counts.values()) for name, counts in sizes.items()}
    bars = axes.barh(list(sizes), list(shares.values()), left=list(starts.values()), color=colour, label=part)
    labels = [f"{share:.0f} %" if share > 4.5 else "" for share in shares.values()]
    axes.bar_label(bars, labels, label_type="center", color="white" if colour == BLUE else "black")
    starts = {name: starts[name] + shares[name] for name in sizes}
axes.invert_yaxis()
axes.set(xlabel="share of the parameters (%)", xlim=(0, 100))
figure.legend(loc="outside upper center", ncols=4)
plt.show()

# %% [markdown]
# A small GPT is mostly a dictionary: nano's blocks are few and narrow beside a table of 50,257 tokens. In
# the largest one the table hardly counts. To run a token through the blocks costs about two operations a
# parameter of the blocks, so nano is quick for its size.
#
# ## Exercises
#
# **1.** To classify, the book trains the last block of gpt2-small, the final norm, and a new *head*: a linear
# layer with a bias that makes two numbers of a vector. How many parameters are that? Count them on the meta
# device. (The book's answer is 7,090,946.)

# %% tags=["solution"]
with shapes_only():
    small = GPT2(PRESETS["gpt2-small"])
    learning = [small.blocks[-1], small.norm, nn.Linear(768, 2)]
trained = sum(p.numel() for module in learning for p in module.parameters())

C = 768
assert trained == (12 * C**2 + 13 * C) + 2 * C + (2 * C + 2) == 7_090_946
print(f"{trained:,}")

# %% [markdown]
# **2.** The book's chapter 4 counts 163,009,536 parameters for gpt2-small; it is usually said to have 124
# million, exactly 124,439,808. Which setting of `GPT2Config` (try `help(GPT2Config)`) turns the second number
# into nearly the first, and what are the 27,648 by which they still differ?

# %% tags=["solution"]
small = PRESETS["gpt2-small"]
tied = sum(parameters_by_part(small).values())
with shapes_only():
    untied = sum(p.numel() for p in GPT2(replace(small, tied=False)).parameters())

assert tied == 124_439_808
assert untied == tied + small.vocab_size * small.n_embd  # the token table a second time, as a head of its own
# The book leaves out the bias of query, key and value at first: 3 C numbers in each of 12 blocks.
assert untied - 163_009_536 == 12 * 3 * 768 == 27_648
print(f"tied {tied:,}, untied {untied:,}")

# %% [markdown]
# **3.** Look into the stream while it grows: after each block, apply the final norm and the token table,
# and see which next token the network would name if it had to stop there. (This is known as the *logit
# lens*.)

# %% tags=["solution"]
longer = torch.tensor([encode("I am on my way, see you in ten")])
with torch.no_grad():
    stream = model.embed(longer)
    for number, block in enumerate(model.blocks):
        stream = block(stream)
        early = model.lm_logits(model.norm(stream))[0, -1].softmax(dim=-1)
        best = early.topk(4)
        print(
            f"after block {number:2}: {[decode([i]) for i in best.indices.tolist()]}, {best.values[0]:.0%} on the first"
        )

    torch.testing.assert_close(early, model.lm_logits(model(longer))[0, -1].softmax(dim=-1))

# %% [markdown]
# ## What changed from the book
#
# | | the book | here |
# | --- | --- | --- |
# | layer norm, GELU | classes of its own | PyTorch's, after the formulas were checked against them |
# | the output head | a matrix of its own | the token table, as GPT-2 was trained |
# | the model returns | logits over the vocabulary | hidden vectors; `lm_logits` is a step of its own, and a classifier never pays for it |
# | sizes | a dictionary of settings | a dataclass, `GPT2Config`, with named presets |
# | initial weights | PyTorch's defaults | GPT-2's: normal(0, 0.02), the writers to the stream smaller |
#
# Next: [4. Loading GPT-2](04_loading.ipynb).
