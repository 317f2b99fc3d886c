# %% [markdown]
# # 2. Attention
#
# After the first chapter a message is a row of integers, and each integer has a vector of its own. But what
# *charge* means in "free of charge" and in "we will charge you" depends on its neighbours. Attention is the
# only part of a GPT in which tokens exchange information. We build it, and then look at what the heads of a
# trained network do with it.
#
# **What you will learn**
#
# - attention as a weighted mean, $\mathrm{softmax}(QK^\top/\sqrt D)\,V$, with all its shapes;
# - what the causal mask forbids, and why it makes padding on the right harmless;
# - many heads in one matrix product, equal to the library's;
# - how to tell what a trained head does: by measuring where its weight goes.
#
# <details><summary>中文提要</summary>
#
# 本章从零写出注意力（attention）：查询（query）与键（key）的点积除以 $\sqrt D$，再做 softmax 得到权重，输出是值（value）
# 的加权平均。因果掩码（causal mask）让每个词元（token）只能看到自己和前面的词元，所以右侧的填充（padding）不影响真实词元。
# 多个注意力头（head）并排计算，只需一次矩阵乘法；我们用 `assert_close` 验证它与库中的实现一致。最后把自己写的注意力装进
# 训练好的 gpt2-nano，在许多短信上测量每个头把权重放在哪里：第一个词元、自己、前一个词元，还是同一词元上次出现之后的那个词元。
# 只有测量支持时，我们才给一个头起名字。
#
# </details>

# %%
import os

import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F

from gptcls.core.gpt2 import GPT2
from gptcls.core.tokenizer import PAD_ID, decode, encode
from gptcls.data.sources import load_data
from gptcls.data.split import drop_duplicates
from gptcls.evaluation.style import use_style
from gptcls.models.pretrained import load_pretrained

use_style()
torch.manual_seed(123)
torch.set_grad_enabled(False)  # nothing is trained in this chapter
DATA = os.environ.get("COURSE_SMS", "sms-sample")  # "sms-spam" downloads UCI's 5,574 messages, 0.2 MB

# %% [markdown]
# The shapes have one letter each, here and in the whole library: `B` texts in a batch, `T` tokens, `C`
# channels (the length of a token's vector), `H` heads, `D = C / H` channels for each head. Our vectors come
# from **gpt2-nano**, a very small GPT-2 that ships with gptcls: for now, only its table of token vectors.

# %%
model = load_pretrained("gpt2-nano")
C, H = model.config.n_embd, model.config.n_head
D = C // H
ids = encode("Please call now to claim your prize")
T = len(ids)
x = F.layer_norm(model.wte.weight[ids], (C,))  # (T, C), every vector scaled to a common size
print([decode([i]) for i in ids])
print(f"T = {T} tokens, C = {C} channels, H = {H} heads of D = {D}")
print(f"the same in Chinese is longer, T = {len(encode('请马上打电话领取您的奖品'))}")

# %% [markdown]
# ## Query, key, value
#
# How could a token learn something of the others? The simplest way is the mean of their vectors. But a mean
# treats every token alike, and *prize* matters more than *to*: the mean should be weighted, and the weights
# should depend on the tokens. Three learnt matrices map each token's vector to a **query** (what am I
# looking for?), a **key** (what do I offer?) and a **value** (what do I pass on if I am chosen?). The dot
# product of a query and a key is a score; the softmax turns a row of scores into weights with sum 1:
#
# $$\mathrm{attention}(Q, K, V) = \mathrm{softmax}\!\left(\frac{Q K^\top}{\sqrt D}\right) V$$

# %%
w_q, w_k, w_v = (torch.randn(C, D) / C**0.5 for _ in range(3))  # random for now
q, k, v = x @ w_q, x @ w_k, x @ w_v  # each (T, D)
weights = (q @ k.T / D**0.5).softmax(dim=-1)  # (T, T): row = the token that asks, column = the one asked
result = weights @ v  # (T, D)
print("q, k, v", tuple(q.shape), "-> weights", tuple(weights.shape), "-> result", tuple(result.shape))
torch.testing.assert_close(result, F.scaled_dot_product_attention(q[None], k[None], v[None])[0])

# %% [markdown]
# Why divide by √D? The dot product of two vectors of D random numbers of size 1 has a size of about √D.
# Random queries with 20 random keys each: the largest of the 20 weights, and the derivative $w(1-w)$ of that
# weight $w$ with respect to its own score, both on average.

# %%
for width in (4, 16, 64, 256):
    scores = torch.randn(500, 1, width) @ torch.randn(500, width, 20)
    for name, s in (("q · k", scores), ("q · k / √D", scores / width**0.5)):
        w = s.softmax(dim=-1).amax(dim=-1)
        print(f"D = {width:3}, {name:10}: weight {w.mean():.2f}, derivative {(w * (1 - w)).mean():.2f}")

# %% [markdown]
# Without the division, the wider the head, the more weight falls on one token, and the smaller the
# derivative becomes that training works with. With it, the width makes little difference.
#
# ## The causal mask
#
# GPT is trained to predict the next token at every position at once. A token that could look to its right
# would simply read the answer. So the scores right of the diagonal become −∞ before the softmax, and the
# weights there exactly 0.


# %%
def my_causal_weights(q, k):  # (..., T, D) twice -> (..., T, T)
    T, D = q.shape[-2:]
    future = torch.ones(T, T, dtype=torch.bool).triu(diagonal=1)
    return (q @ k.transpose(-2, -1) / D**0.5).masked_fill(future, -torch.inf).softmax(dim=-1)


result = my_causal_weights(q, k) @ v  # (T, D)
theirs = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)
torch.testing.assert_close(result, theirs[0])
print("row t: token t is replaced; 1: the result at this position changes")
for t in range(T):
    other = x.index_fill(0, torch.tensor(t), 1.0)
    new = my_causal_weights(other @ w_q, other @ w_k) @ (other @ w_v)
    print([int(not torch.allclose(a, b)) for a, b in zip(new, result, strict=True)])

# %% [markdown]
# Read the columns: the first position depends on the first token alone, the last position on all of them.
# That does not yet say where a classifier should read its answer. The last position, the mean of all and
# their maximum all contain the last one; chapter 8 compares them.
#
# ## Many heads
#
# One softmax gives one set of weights for each token. To attend to several things at once, run H **attention
# heads** side by side, each with its own matrices and D = C / H channels, and join their results. No loop is needed: all
# queries, keys and values come from one matrix of shape (C, 3C), and a reshape separates the heads.


# %%
class MyAttention(torch.nn.Module):
    """Causal self-attention with H heads. Parameters are named as in the library, to exchange them."""

    def __init__(self, n_embd, n_head):
        super().__init__()
        self.n_head = n_head
        self.qkv = torch.nn.Linear(n_embd, 3 * n_embd)  # query, key and value in one matrix
        self.proj = torch.nn.Linear(n_embd, n_embd)  # mixes the heads' results

    def forward(self, x, lengths=None):  # (B, T, C) -> (B, T, C); the mask makes lengths unnecessary
        B, T, C = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.n_head, C // self.n_head)  # (B, T, 3, H, D)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, T, D)
        self.weights = my_causal_weights(q, k)  # (B, H, T, T), kept for us to look at
        return self.proj((self.weights @ v).transpose(1, 2).reshape(B, T, C))


# %% [markdown]
# gpt2-nano is a stack of layers called **blocks** (chapter 3 builds them), with one attention in each. We
# replace every attention by our own with the same weights. The network must give the same outputs, and,
# because padding to the right is hidden by the mask, also the same outputs in front of 50 padding tokens.


# %%
def with_my_attention(network):  # -> the same network, running on our code
    for block in network.blocks:
        mine = MyAttention(C, H)
        mine.load_state_dict(block.attn.state_dict())
        block.attn = mine
    return network


batch = torch.tensor([ids])  # (1, T)
expected, model = model(batch), with_my_attention(model)
torch.testing.assert_close(model(batch), expected)
padded = torch.cat([batch, torch.full((1, 50), PAD_ID)], dim=1)
torch.testing.assert_close(model(padded)[:, :T], expected)
print(f"{len(model.blocks)} attentions replaced: same outputs, with and without padding")

# %% [markdown]
# ## What do trained heads look at?
#
# Nobody told the heads what to do. We measure the share of their weight on four places, over many messages:
# the **first token**; the token **itself**; the token **before**; and the token **after a copy**, that is,
# after an earlier occurrence of the present one (in "call me … call": at the second *call*, the word *me*).
# A head that does the last is known as an *induction head*: it finds out how a repeated text went on.
# Blocks and heads are counted from 0 here, as in the code.
#
# The outputs you see come from UCI's SMS Spam Collection; run without it, the notebook uses the 520 messages
# that come with the package, and prints other numbers.


# %%
def places(ids):  # T token ids -> (4, T, T): for each token that asks (row), which columns are the place?
    T, ids = len(ids), torch.tensor(ids)
    first, after = torch.zeros(2, T, T)
    first[:, 0] = 1
    after[:, 1:] = (ids[:, None] == ids[:-1]).float()
    return torch.stack([first, torch.eye(T), torch.eye(T).roll(-1, dims=1).tril(), after.tril(-1)])


def measure(network, messages):  # -> (messages, 4, 1 + heads): share by place, of even sharing, of each head
    rows = []
    for ids in messages:
        network(torch.tensor([ids]))
        even = torch.ones(1, len(ids), len(ids)).tril() / torch.arange(1, len(ids) + 1)[:, None]
        weights = torch.cat([even] + [block.attn.weights[0] for block in network.blocks])
        masks = places(ids)[:, 4:]  # the first four tokens have hardly any choice
        row = [(weights[:, 4:] * mask).sum(dim=-1)[:, mask.any(dim=1)].mean(dim=1) for mask in masks]
        rows.append(torch.stack(row))
    return torch.stack(rows)


PLACES = ["first token", "itself", "token before", "after a copy"]
texts = drop_duplicates(load_data(DATA)).text.sample(frac=1, random_state=0)
messages = [ids for text in texts[:400] if 10 <= len(ids := encode(text)) <= 64]
print(f"{len(texts):,} different messages; {len(messages)} of 10 to 64 tokens are measured")
shares = measure(model, messages)
untrained = measure(with_my_attention(GPT2(model.config)), messages[:100])
mean = shares.nanmean(dim=0)  # (4, 1 + heads)
figure, axes = plt.subplots(figsize=(9, 3.6))
names = ["even"] + [f"{b}.{h}" for b in range(len(model.blocks)) for h in range(H)]
axes.imshow(mean, cmap="Blues", vmin=0, vmax=0.8, aspect="auto")
for place, column in torch.cartesian_prod(torch.arange(4), torch.arange(len(names))).tolist():
    axes.text(column, place, f"{mean[place, column]:.0%}", ha="center", va="center")
axes.set_xticks(range(len(names)), names)
axes.set_yticks(range(4), PLACES)
axes.set(xlabel="block.head", title="Share of each head's weight by place, mean over the messages")
plt.show()

# %% [markdown]
# "even" is the yardstick: the share of a place if all tokens in reach got the same weight. We name a
# head if the lower end of a 95 % interval over the messages is above twice the even share.

# %%
best, most = [], untrained[..., 1:].nanmean(dim=0).amax(dim=1)
for place, name in enumerate(PLACES):
    head = 1 + int(mean[place, 1:].argmax())
    values = shares[:, place][~shares[:, place, 0].isnan()]  # of the messages that have the place
    margin = 1.96 * values[:, head].std() / len(values) ** 0.5
    named = values[:, head].mean() - margin > 2 * values[:, 0].mean()
    best.append(divmod(head - 1, H))
    print(f"{name}: head {names[head]} gives {mean[place, head]:.1%} ± {margin:.1%},", end=" ")
    print(f"even {mean[place, 0]:.1%}, untrained at most {most[place]:.1%}; named: {bool(named)}")
assert (mean[2:, 1:].amax(dim=1) > 1.5 * mean[2:, 0]).all()

# %% [markdown]
# Untrained heads share their weight almost evenly, so what the trained ones do was learnt. Two of them in
# full, on a message that repeats itself: the heads that give most to the token before, and to the token after
# a copy. The latter places are framed. (The second *Call* has a space before it, and is another token than
# the first.) Not every frame is dark, and dark places without a frame show what else a head does: a name says
# what a head does more than even sharing would, not all that it does.

# %%
ids = encode("Call now to claim a prize. It is free. Call now to claim a prize")
model(torch.tensor([ids]))
labels = [decode([i]).strip() for i in ids]
figure, both = plt.subplots(1, 2, figsize=(10, 5.2))
for axes, place in zip(both, (2, 3), strict=True):
    block, head = best[place]
    image = axes.imshow(model.blocks[block].attn.weights[0, head], cmap="Blues", vmin=0, vmax=1)
    for t, column in places(ids)[3].nonzero().tolist() if place == 3 else ():
        axes.add_patch(plt.Rectangle((column - 0.5, t - 0.5), 1, 1, fill=False, edgecolor="#E69F00", lw=2))
    axes.set_xticks(range(len(ids)), labels, rotation=60, ha="right", rotation_mode="anchor", fontsize=10)
    axes.set_yticks(range(len(ids)), labels, fontsize=10)
    axes.set(title=f"head {block}.{head}: {PLACES[place]}", xlabel="… looks at this one")
both[0].set_ylabel("this token …")
figure.colorbar(image, ax=both, label="weight", shrink=0.7)
plt.show()

# %% [markdown]
# ## Exercises
#
# **1.** ★ Write attention without a mask, as BERT has it: every token may look at every token.
#
# <details><summary>中文</summary>写出不带掩码的注意力（BERT 的做法）：每个词元都可以看到所有词元。</details>


# %% tags=["your-turn"]
def both_ways(q, k, v): ...  # three times (T, D) -> (T, D)


# check
import torch

q, k, v = torch.randn(3, 6, 16)
got, wanted = both_ways(q, k, v), torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None])
right = got is not None and torch.allclose(got, wanted[0], atol=1e-5)
print("your turn" if got is None else "right" if right else "not yet: is every score divided by √D?")


# %% tags=["wrong"]
def both_ways(q, k, v):
    return (q @ k.T).softmax(dim=-1) @ v


# %% tags=["solution"]
def both_ways(q, k, v):
    return (q @ k.T / q.shape[1] ** 0.5).softmax(dim=-1) @ v


# %% [markdown]
# **2.** ★★ A text that is being generated grows by one token at a time. The keys and values of the earlier
# tokens were kept (a *KV cache*) and the new one's appended. Compute the new token's result, and nothing else.
#
# <details><summary>中文</summary>生成文本时每次增加一个词元。已有全部键和值（KV 缓存），只计算新词元的结果。</details>


# %% tags=["your-turn"]
def one_step(query, keys, values):  # (D,), (T, D), (T, D) -> (D,)
    """Your turn."""


# check
import torch

q, k, v = torch.randn(3, 6, 16)
wanted = torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0, -1]
right = (got := one_step(q[5], k, v)) is not None and torch.allclose(got, wanted, atol=1e-5)
print("your turn" if got is None else "right" if right else "not yet: the new token sees itself too")


# %% tags=["wrong"]
def one_step(query, keys, values):
    return (keys[:-1] @ query / len(query) ** 0.5).softmax(dim=-1) @ values[:-1]


# %% tags=["solution"]
def one_step(query, keys, values):
    return (keys @ query / len(query) ** 0.5).softmax(dim=-1) @ values  # no mask: nothing stands behind it


# %% [markdown]
# **3.** ★★★ Measure a fifth place, *earlier copies of the same token*. Given a table of weights and the ids,
# return the mean share that goes there, over the tokens that have a copy. Then measure each `table` in
# `block.attn.weights[0]` of the network above.
#
# <details><summary>中文</summary>再测量第五个位置：同一词元更早的出现。只对前面出现过同一词元的那些词元求平均，
# 返回放在这些位置上的权重比例；然后用它测量上面网络的各个头。</details>


# %% tags=["your-turn"]
def on_copies(weights, ids):  # a (T, T) tensor, T ids -> float
    """Your turn."""


# check
import torch

got = on_copies(torch.ones(4, 4).tril() / torch.arange(1, 5)[:, None], [7, 8, 7, 7])
right = got is not None and abs(got - (1 / 3 + 2 / 4) / 2) < 1e-6
print("your turn" if got is None else "right" if right else f"not yet: {got:.2f}; is the token itself out?")


# %% tags=["wrong"]
def on_copies(weights, ids):
    pairs = [(t, j) for t in range(len(ids)) for j in range(t + 1) if ids[j] == ids[t]]
    return float(sum(weights[pair] for pair in pairs) / len(ids))


# %% tags=["solution"]
def on_copies(weights, ids):
    with_copy = [t for t in range(len(ids)) if ids[t] in ids[:t]]
    return float(sum(weights[t, j] for t in with_copy for j in range(t) if ids[j] == ids[t]) / len(with_copy))


# %% [markdown]
# ## Quiz
#
# <details><summary><b>Five questions</b></summary>
#
# 1. What is the shape of one head's table of weights for T tokens, and what does each row sum to? <details><summary>Answer</summary>(T, T); each row sums to 1, because the softmax runs over the row.</details>
# 2. Why are the masked scores −∞ and not 0? <details><summary>Answer</summary>exp(0) = 1 would still give weight to the future; exp(−∞) = 0 gives none.</details>
# 3. Why may padding stand to the right of a message, and not to the left? <details><summary>Answer</summary>Real tokens look to the left only: they would see it, and be shifted.</details>
# 4. Do H heads of C / H channels have more parameters than one head of C channels? <details><summary>Answer</summary>No: the matrices are (C, 3C) and (C, C) in both cases.</details>
# 5. A head gives 30 % of its weight to the first token. Is that much? <details><summary>Answer</summary>Only if it is more than even sharing, which depends on the length.</details>
# </details>
#
# Next: [3. The GPT block and the whole model](03_gpt.ipynb).
