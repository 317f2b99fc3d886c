# %% [markdown]
# # 2. Attention from scratch
#
# After the first chapter a message is a row of integers, and each integer has a vector of its own. But the
# meaning of *charge* in "free of charge" and in "we will charge you" is not in the word, it is in the
# neighbours. Attention is the one place in a GPT where tokens learn of each other. Everything else works on
# each token alone.
#
# **What you will learn**
#
# - why attention is nothing but a weighted mean, and where the weights come from: query, key and value;
# - what the causal mask forbids, and why this makes padding on the right harmless;
# - how many heads share one matrix product, equal to the library's `Attention` to the last digit that
#   counts;
# - what the heads of a trained network look at.

# %%
import math

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F

from gptcls.core.gpt2 import Attention
from gptcls.core.tokenizer import PAD_ID, decode, encode
from gptcls.evaluation.style import BLUE, VERMILION, use_style
from gptcls.models.pretrained import load_pretrained

use_style()
torch.manual_seed(123)
MODEL = "gpt2-nano"  # "gpt2-small" downloads 548 MB
TEXT = "You have won a prize, please call now to claim it"

# %% [markdown]
# The shapes have one letter each, here and in the whole library: `B` texts in a batch, `T` tokens, `C`
# channels (the length of a token's vector), `H` heads, `D = C / H` the width of one head.
#
# `gpt2-nano` is a very small GPT-2 that comes with gptcls. Chapter 3 builds such a network from its parts:
# it looks up a vector for each token in a learnt table, adds one for the token's position, and sends the
# sum through a stack of **blocks**. Each block has one attention, and brings the vectors to one size before
# it (`norm1`).

# %%
model = load_pretrained(MODEL)
ids = torch.tensor([encode(TEXT)])  # (B, T), with B = 1
tokens = [decode([i]) for i in ids[0].tolist()]
C, H = model.config.n_embd, model.config.n_head
T, D = len(tokens), C // H

with torch.no_grad():
    x = model.blocks[0].norm1(model.embed(ids))[0]  # (T, C): what the first block's attention is given
print(f"{MODEL}: T = {T} tokens, C = {C} channels, H = {H} heads of width D = {D}")
print(tokens)

# %% [markdown]
# ## A weighted mean of what came before
#
# Suppose that each token should know of all the tokens before it. The simplest way is to give it their
# mean. Written as a matrix product: row *t* of a table holds the weights with which token *t* mixes the
# vectors. Each row sums to 1.

# %%
weights = torch.ones(T, T).tril()
weights = weights / weights.sum(dim=1, keepdim=True)  # (T, T)
print(weights[:4, :4])

means = weights @ x  # (T, C)
torch.testing.assert_close(means[3], x[:4].mean(dim=0))

# %% [markdown]
# A mean is fair to every token, and that is its weakness: *prize* matters more than *a*. So let the tokens
# decide. Each one is mapped to three vectors by three learnt matrices:
#
# - a **query**: what am I looking for?
# - a **key**: what do I offer?
# - a **value**: what do I hand over when I am chosen?
#
# Where a query and a key point the same way, their dot product is large, and the weight should be large
# too. The softmax makes weights of these scores: positive, with sum 1. For the moment the matrices are
# random.


# %%
def my_head(x, w_q, w_k, w_v):  # (T, C) and three times (C, D) -> (T, D)
    """One head, still without a mask: every token looks at every token."""
    q, k, v = x @ w_q, x @ w_k, x @ w_v  # each (T, D)
    scores = q @ k.T / math.sqrt(q.shape[1])  # (T, T): row = who asks, column = who is asked
    return scores.softmax(dim=-1) @ v


w_q, w_k, w_v = (torch.randn(C, D) / math.sqrt(C) for _ in range(3))
print(my_head(x, w_q, w_k, w_v).shape)

# %% [markdown]
# ### Why divide by √D?
#
# A dot product of D independent numbers of size 1 has a size of about √D. Without the division, wide heads
# would have large scores, the softmax would put nearly all weight on one token, and a softmax that is sure
# of itself passes on no gradient. The picture shows the largest of 20 weights for random queries and keys.

# %%
widths = [4, 8, 16, 32, 64, 128, 256]
plain, scaled = [], []
for width in widths:
    scores = torch.randn(500, 1, width) @ torch.randn(500, width, 20)  # 500 queries, 20 keys each
    plain.append(scores.softmax(dim=-1).amax(dim=-1).mean().item())
    scaled.append((scores / math.sqrt(width)).softmax(dim=-1).amax(dim=-1).mean().item())

figure, axes = plt.subplots(figsize=(6.4, 3.2))
axes.plot(widths, plain, "o-", color=VERMILION, label="q · k")
axes.plot(widths, scaled, "s--", color=BLUE, label="q · k / √D")
axes.set_xscale("log", base=2)
axes.set_xticks(widths, widths)
axes.set(xlabel="width of a head, D", ylabel="largest of 20 weights, mean", ylim=(0, 1))
axes.grid()
axes.legend()
plt.show()

# %% [markdown]
# ## The causal mask
#
# GPT learnt by predicting the next token at every position at once. If a token could look to its right, it
# would simply read the answer. So the scores to the right of the diagonal become −∞ before the softmax, and
# their weights exactly 0.


# %%
def my_causal_weights(q, k):  # (T, D), (T, D) -> (T, T)
    """Attention weights with the mask: row t is 0 to the right of column t."""
    T, D = q.shape
    scores = q @ k.T / math.sqrt(D)
    future = torch.ones(T, T, dtype=torch.bool).triu(diagonal=1)
    return scores.masked_fill(future, -math.inf).softmax(dim=-1)


q, k, v = x @ w_q, x @ w_k, x @ w_v
ours = my_causal_weights(q, k) @ v
theirs = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
torch.testing.assert_close(ours, theirs)
print("equal to PyTorch's own attention")

# %% [markdown]
# The two tables of weights, without and with the mask, for these random matrices:


# %%
def show_weights(axes, weights, labels=True, largest=1.0):
    """A table of weights as a picture: who asks downwards, who is asked to the right."""
    image = axes.imshow(weights, vmin=0, vmax=largest, cmap="Blues")
    axes.spines[:].set_visible(True)
    if labels:
        names = [token.strip() for token in tokens]
        axes.set_xticks(range(T), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=9)
        axes.set_yticks(range(T), names, fontsize=9)
    else:
        axes.set(xticks=[], yticks=[])
    return image


open_weights = (q @ k.T / math.sqrt(D)).softmax(dim=-1)
figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 4.2))
show_weights(left, open_weights, largest=0.3)
image = show_weights(right, my_causal_weights(q, k), largest=0.3)
left.set(title="without a mask", ylabel="this token …")
right.set_title("with the causal mask")
for axes in (left, right):
    axes.set_xlabel("… mixes in the value of this one")
figure.colorbar(image, ax=(left, right), label="weight", shrink=0.8, extend="max")
plt.show()

# %% [markdown]
# Two things to read off the right one. The first token can only look at itself: its weight is 1, beyond the
# end of the colours. And only the last row is complete: **the last token is the only one that has seen the
# whole message**. A classifier will read its answer there.
#
# ## Many heads
#
# One softmax is one way of looking. To look at the verb and at the comma before it at the same time, run
# several heads side by side, each with matrices of its own, each on D = C / H channels, and join their
# results. Nobody runs them in a loop: the H query matrices side by side form one (C, C) matrix, the
# queries, keys and values together one (C, 3C) matrix, and a reshape sorts the heads out again.


# %%
class MyAttention(nn.Module):
    """Causal self-attention with many heads. The names are the library's, so that weights can be exchanged."""

    def __init__(self, n_embd: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.qkv = nn.Linear(n_embd, 3 * n_embd)  # query, key and value in one matrix
        self.proj = nn.Linear(n_embd, n_embd)  # mixes the heads' results

    def weights_and_values(self, x):  # (B, T, C) -> (B, H, T, T), (B, H, T, D)
        B, T, C = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.n_head, C // self.n_head)  # (B, T, 3, H, D)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, T, D)
        scores = q @ k.transpose(-2, -1) / math.sqrt(C // self.n_head)  # (B, H, T, T)
        future = torch.ones(T, T, dtype=torch.bool).triu(diagonal=1)
        return scores.masked_fill(future, -math.inf).softmax(dim=-1), v

    def forward(self, x):  # (B, T, C) -> (B, T, C)
        weights, v = self.weights_and_values(x)
        mixed = weights @ v  # (B, H, T, D)
        return self.proj(mixed.transpose(1, 2).reshape(x.shape))


# %% [markdown]
# Is it the same as the library's? Give both the same weights and the same input, a batch of random vectors:

# %%
library = Attention(model.config)
mine = MyAttention(C, H)
mine.load_state_dict(library.state_dict())

batch = torch.randn(3, 10, C)
torch.testing.assert_close(mine(batch), library(batch))
print("MyAttention and gptcls.core.gpt2.Attention agree")

# %% [markdown]
# The library calls PyTorch's `scaled_dot_product_attention`, which never writes the (T, T) table to memory.
# That is faster and, for long texts, what makes them fit at all. Ours shows the table, which is what we
# want next.
#
# ## What trained heads look at
#
# Now with the pretrained weights instead of random ones: one picture a head, a row for each block, for our
# message. We walk through the network block by block and ask each attention for its weights.

# %%
stack = []
with torch.no_grad():
    stream = model.embed(ids)
    for block in model.blocks:
        probe = MyAttention(C, H)
        probe.load_state_dict(block.attn.state_dict())
        stack.append(probe.weights_and_values(block.norm1(stream))[0][0])  # (H, T, T)
        stream = block(stream)
attention = torch.stack(stack)  # (blocks, H, T, T)

rows, columns = min(len(stack), 6), min(H, 6)
figure, grid = plt.subplots(rows, columns, figsize=(1.5 * columns + 0.8, 1.5 * rows + 0.5))
for (b, h), axes in [((b, h), grid[b, h]) for b in range(rows) for h in range(columns)]:
    image = show_weights(axes, attention[b, h], labels=False)
    if h == 0:
        axes.set_ylabel(f"block {b}")
    if b == 0:
        axes.set_title(f"head {h}", fontsize=11, loc="center")
figure.colorbar(image, ax=grid, label="weight", shrink=0.5)
plt.show()

# %% [markdown]
# Nobody told the heads what to do, and yet they differ. Look for a dark line just below the diagonal, a
# head that reads the token before; for a dark first column, a head that rests at the beginning of the text,
# often because it has nothing to say about this token; and for a dark stripe further right, one word that
# all later ones come back to. Measured:

# %%
before = attention.diagonal(offset=-1, dim1=-2, dim2=-1).mean(dim=-1)  # (blocks, H)
first = attention[:, :, 2:, 0].mean(dim=-1)
for what, score in (("the token before", before), ("the first token", first)):
    b, h = divmod(int(score.argmax()), H)
    print(f"block {b}, head {h} gives {score[b, h]:.0%} of its weight to {what}")

# %% [markdown]
# One head in full. Read it by rows: where does each word look?

# %%
b, h = divmod(int(before.argmax()), H)
figure, axes = plt.subplots(figsize=(5.6, 4.6))
image = show_weights(axes, attention[b, h])
axes.set(title=f"block {b}, head {h}", xlabel="… looks at this one", ylabel="this token …")
figure.colorbar(image, ax=axes, label="weight")
plt.show()

# %% [markdown]
# ## Padding on the right is harmless
#
# The mask hides everything that comes later, so it hides padding too. Add fifty padding tokens behind the
# message: the hidden vectors of the real tokens stay what they were. No mask for padding is needed anywhere
# in gptcls, as long as the padding stands on the right and the answer is read at a real token.

# %%
padded = torch.cat([ids, torch.full((1, 50), PAD_ID)], dim=1)
with torch.no_grad():
    torch.testing.assert_close(model(padded)[:, :T], model(ids))
print("fifty padding tokens changed nothing for the real ones")

# %% [markdown]
# ## Exercises
#
# **1.** Turn `my_causal_weights` into attention that looks in both directions, as BERT does. Compare it
# with PyTorch's `scaled_dot_product_attention`, and show that the first token now notices a change of the
# last one.


# %% tags=["solution"]
def both_ways(q, k, v):
    """No mask: every token looks at every token."""
    return (q @ k.T / math.sqrt(q.shape[1])).softmax(dim=-1) @ v


torch.testing.assert_close(both_ways(q, k, v), F.scaled_dot_product_attention(q[None], k[None], v[None])[0])

other_k, other_v = k.clone(), v.clone()
other_k[-1], other_v[-1] = torch.randn(D), torch.randn(D)
assert not torch.allclose(both_ways(q, other_k, other_v)[0], both_ways(q, k, v)[0])
torch.testing.assert_close((my_causal_weights(q, other_k) @ other_v)[:-1], ours[:-1])
print("without the mask the first token sees the last; with it, only the last one noticed")

# %% [markdown]
# **2.** While a text is being generated, it grows by one token at a time. Show that the new token's result
# needs only its own query, and the keys and values of all tokens so far, which can be kept from the steps
# before (a "KV cache").

# %% tags=["solution"]
kept_k, kept_v, results = torch.empty(0, D), torch.empty(0, D), []
for vector in x:  # one token after the other
    kept_k = torch.cat([kept_k, (vector @ w_k)[None]])
    kept_v = torch.cat([kept_v, (vector @ w_v)[None]])
    scores = kept_k @ (vector @ w_q) / math.sqrt(D)
    results.append(scores.softmax(dim=-1) @ kept_v)

torch.testing.assert_close(torch.stack(results), ours)  # the masked attention above
print(f"{T} steps with one query each give the same as all at once")

# %% [markdown]
# **3.** Attention without a mask does not know the order of words. Prove it: shuffle the tokens, and the
# results come out shuffled in the same way. What tells a GPT the order?

# %% tags=["solution"]
order = torch.randperm(T)
torch.testing.assert_close(my_head(x[order], w_q, w_k, w_v), my_head(x, w_q, w_k, w_v)[order])

# Two things tell it: the position table, whose vectors are added to the tokens', and the mask itself.
with torch.no_grad():
    twice = model.embed(torch.full((1, 2), ids[0, 0]))[0]
assert not torch.allclose(twice[0], twice[1])  # the same token at two positions
print("blind to the order; the position table makes the difference")

# %% [markdown]
# ## What changed from the book
#
# | | the book | here |
# | --- | --- | --- |
# | query, key, value | three matrices, without a bias until GPT-2's weights are loaded | one matrix `qkv`, always with a bias, as GPT-2 has it |
# | the mask | a buffer as large as the longest text, cut to size | `is_causal=True` of PyTorch's own attention |
# | the table of weights | written to memory, dropout on it | never written, dropout inside the same call |
# | padding | seen by the position that is read | behind it, so never seen |
#
# Next: [3. The GPT block and the whole model](03_gpt.ipynb).
