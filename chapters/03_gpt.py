# %% [markdown]
# # 3. The GPT block and the whole model
#
# What else is in a GPT besides attention? A normalisation, a small network applied to each token, and a sum
# instead of a replacement. We build all of it, give it gpt2-nano's weights, and let it write.
#
# **What you will learn**
#
# - layer norm and GELU from their formulas, and the MLP;
# - the residual stream: why a block adds to its input, and what happens if a part of a block is left out;
# - GPT-2 in about fifty lines, with chapter 2's attention in it, equal to the library's;
# - where the parameters of the four published sizes are, and what weight tying saves.
#
# <details><summary>中文提要</summary>
#
# 本章搭出完整的 GPT-2。层归一化（layer norm）把每个词元的向量变成均值 0、方差 1；MLP 对每个词元单独作用，中间的 GELU
# 是非线性函数，没有它两个矩阵就等于一个矩阵。每个块（block）把注意力和 MLP 的结果加到残差流（residual stream）上，
# 而不是替换它，所以去掉其中一部分，网络变差但仍能工作。输出层直接复用词元表，称为权重共享（weight tying）。
# 把 gpt2-nano 的权重装进自己写的 MyGPT，logits 与库完全一致，并能生成文本。我们在许多短信上比较训练前后的损失（loss），
# 最后数一数四种尺寸的参数各在哪里。
#
# </details>

# %%
import os

import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F

from gptcls.core.gpt2 import PRESETS, Attention
from gptcls.core.tokenizer import decode, encode
from gptcls.data.sources import load_data
from gptcls.data.split import drop_duplicates
from gptcls.evaluation.style import use_style
from gptcls.models.pretrained import load_pretrained

use_style()
torch.manual_seed(123)
torch.set_grad_enabled(False)  # nothing is trained in this chapter
DATA = os.environ.get("COURSE_SMS", "sms-sample")  # "sms-spam" downloads UCI's 5,574 messages, 0.2 MB
model = load_pretrained("gpt2-nano")  # the library's network: what we build is compared with it
config = model.config
print(config)

# %% [markdown]
# The config is all one needs to build the network: the numbers of blocks (`n_layer`), channels C (`n_embd`),
# heads, positions (the longest text), and tokens in the vocabulary, V. As before: `B` texts of `T` tokens.
#
# ## Layer norm
#
# A block has two halves, attention and an MLP. Each first brings every token's vector to mean 0 and variance
# 1, so as to work on numbers of one size; two learnt vectors then scale and shift each channel. Every token
# is normalised on its own: no other token and no other text takes part.


# %%
class MyNorm(torch.nn.Module):
    def __init__(self, n_embd):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(n_embd))
        self.bias = torch.nn.Parameter(torch.zeros(n_embd))

    def forward(self, x):  # (..., C) -> (..., C)
        mean = x.mean(dim=-1, keepdim=True)
        variance = x.var(dim=-1, keepdim=True, unbiased=False)
        return (x - mean) / torch.sqrt(variance + 1e-5) * self.weight + self.bias


# %% [markdown]
# ## GELU and the MLP
#
# After a block's attention comes an MLP, applied to each token separately: a matrix to four times as many
# channels, a nonlinear function, and a matrix back. The function is GELU, a smooth form of max(x, 0): *x*
# times the probability that a standard normal number is below *x*. GPT-2 was trained with an approximation of
# it by tanh. Without a nonlinear function the two matrices would be one (exercise 1).


# %%
def my_gelu(x):
    return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


class MyMLP(torch.nn.Module):
    def __init__(self, n_embd):
        super().__init__()
        self.fc = torch.nn.Linear(n_embd, 4 * n_embd)
        self.proj = torch.nn.Linear(4 * n_embd, n_embd)
        self.gelu = my_gelu

    def forward(self, x):  # (B, T, C) -> (B, T, C)
        return self.proj(self.gelu(self.fc(x)))


# %% [markdown]
# ## The block and the residual stream
#
# ```text
#        x ──┬── norm1 ── attention ──(+)──┬── norm2 ── MLP ──(+)── x'
#            └─────────────────────────┘   └──────────────────┘
# ```
#
# What runs along the lower line, past norms, attention and MLP, is called the **residual stream**. Each half
# of a block reads a normalised copy of it and *adds* its result. So a block need not carry along what is
# already known, and in the backward pass the gradient has a direct way to the first block. For attention we
# take the library's, which chapter 2 found equal to its own.


# %%
class MyBlock(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.norm1, self.attn = MyNorm(config.n_embd), Attention(config)
        self.norm2, self.mlp = MyNorm(config.n_embd), MyMLP(config.n_embd)

    def forward(self, x):  # (B, T, C) -> (B, T, C)
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


x, block = 3 + 5 * torch.randn(2, 5, config.n_embd), model.blocks[0]  # (B, T, C), the library's block
pairs = [(MyNorm(config.n_embd), block.norm1), (MyMLP(config.n_embd), block.mlp), (MyBlock(config), block)]
for mine, theirs in pairs:
    mine.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(mine(x), theirs(x))
    print(f"{type(mine).__name__} = {type(theirs).__name__}")

# %% [markdown]
# ## The whole model
#
# A table with a vector for each token, a table with a vector for each position (both are **embeddings**), the
# blocks, a last norm. Then each token's vector is compared with all vectors of the token table: the dot products
# are the **logits** of the next token, which a softmax turns into probabilities. Using the first table again at
# the end is called **weight tying**.


# %%
class MyGPT(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.wte = torch.nn.Embedding(config.vocab_size, config.n_embd)  # token table
        self.wpe = torch.nn.Embedding(config.n_positions, config.n_embd)  # position table
        self.blocks = torch.nn.ModuleList(MyBlock(config) for _ in range(config.n_layer))
        self.norm = MyNorm(config.n_embd)
        for parameter in self.parameters():
            if parameter.dim() == 2:  # GPT-2's start; PyTorch's embeddings would be 50 times as large
                torch.nn.init.normal_(parameter, std=0.02)

    def forward(self, ids):  # (B, T) -> (B, T, V)
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]  # (B, T, C)
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.wte.weight.T


untrained, gpt = MyGPT(config), MyGPT(config)
gpt.load_state_dict(model.state_dict())
for text in ("Thank you very much for your", "非常感谢您的来信"):
    ids = torch.tensor([encode(text)])
    torch.testing.assert_close(gpt(ids), model.lm_logits(model(ids)))
    print(f"{text}: T = {ids.shape[1]}, logits {tuple(gpt(ids).shape)}, equal to the library's")

# %% [markdown]
# The library's `GPT2` stops before the last product, which a classifier does not need. Our network can write:
# draw one of the ten likeliest tokens, append it, repeat. The token `<|endoftext|>` ends a text.


# %%
def my_generate(network, text, n_new=16, k=10, seed=0):
    ids, generator = torch.tensor([encode(text)]), torch.Generator().manual_seed(seed)
    for _ in range(n_new):
        best = network(ids)[0, -1].topk(k)  # of the logits (V,) at the last position
        drawn = best.values.softmax(dim=-1).multinomial(1, generator=generator)
        ids = torch.cat([ids, best.indices[drawn][None]], dim=1)
    return decode(ids[0].tolist())


for network, prompt in ((gpt, "See you"), (gpt, "The film was"), (untrained, "See you")):
    print("untrained: " if network is untrained else "pretrained:", repr(my_generate(network, prompt)))

# %% [markdown]
# ## What pretraining has taught it
#
# The **loss** of next-token prediction is the cross entropy: −ln of the probability that the network gave to
# the token that did come, averaged over the tokens. A network that knows nothing gives each of V tokens the
# probability 1 / V, so its loss is ln V. One message says little, so we take many.
#
# The outputs you see come from UCI's SMS Spam Collection; run without it, the notebook uses the 520 messages
# that come with the package, and prints other numbers.


# %%
def losses(network, rows):  # -> (messages,): the mean loss a token of each
    found = []
    for ids in rows:
        logits = network(torch.tensor([ids]))[0]  # (T, V)
        found.append(F.cross_entropy(logits[:-1], torch.tensor(ids[1:])))  # position t predicts token t + 1
    return torch.stack(found)


texts = drop_duplicates(load_data(DATA)).text.sample(frac=1, random_state=0)
rows = [ids for text in texts[:100] if 5 <= len(ids := encode(text)) <= 64]
before, after, ln_v = losses(untrained, rows[:20]), losses(gpt, rows), torch.tensor(config.vocab_size).log()
print(f"{len(texts):,} different messages, {len(rows)} of them measured; ln V = {ln_v:.2f}")
for name, loss in (("untrained", before), ("pretrained", after)):
    margin = 1.96 * loss.std() / len(loss) ** 0.5
    print(f"{name:10}: mean {loss.mean():.2f} ± {margin:.2f}, from {loss.min():.2f} to {loss.max():.2f}")

# %% [markdown]
# Without pretraining the loss is about ln V, with it far below; how far depends much on the message.
#
# ## Leaving parts out
#
# Because every half of a block only adds to the stream, we can leave one out, and the network still runs. How
# much worse is it? We compare the same messages, so that their own difficulty cancels. As a yardstick: all
# parts, but the exact GELU instead of the approximation. Blocks are counted from 0 here, as in the code.

# %%
some = rows[:20]
base, changes = losses(gpt, some), {}
for number, block in enumerate(gpt.blocks):
    for part, module in (("attention", block.attn), ("MLP", block.mlp)):
        hook = module.register_forward_hook(lambda module, inputs, output: 0 * output)  # now it adds nothing
        changes[f"block {number}, {part}"] = losses(gpt, some) - base
        hook.remove()
for block in gpt.blocks:
    block.mlp.gelu = F.gelu
exact = losses(gpt, some) - base
print(f"exact GELU: loss {exact.mean():+.4f} ± {1.96 * exact.std() / len(some) ** 0.5:.4f}")
figure, axes = plt.subplots(figsize=(8, 3.4))
added = torch.stack(list(changes.values()))  # (6, messages)
axes.barh(list(changes), added.mean(dim=1), xerr=1.96 * added.std(dim=1) / len(some) ** 0.5, capsize=4)
axes.invert_yaxis()
axes.set(xlabel="added loss (nats a token), 95 % interval", title="The network without one half of a block")
plt.show()
assert (base + added).mean(dim=1).max() + 1 < before.mean()

# %% [markdown]
# Some parts matter far more than others, but without any single one the network still predicts better than
# an untrained one. The form of GELU makes no difference that one would notice.
#
# ## Where the parameters are
#
# GPT-2 came in four sizes; nano is ours. To count parameters we need their shapes, not their values, so we
# build our network on PyTorch's *meta* device, where a tensor takes no memory. A formula gives the same: a
# block has $12 C^2 + 13 C$ parameters, the tables $V C$ and $n_\mathrm{positions} C$, the last norm $2 C$.

# %%
for name, c in PRESETS.items():
    with torch.device("meta"):
        sizes = {path: parameter.numel() for path, parameter in MyGPT(c).named_parameters()}
    total, block = sum(sizes.values()), 12 * c.n_embd**2 + 13 * c.n_embd
    assert total == (c.vocab_size + c.n_positions + 2) * c.n_embd + c.n_layer * block
    shares = [sum(n for p, n in sizes.items() if key in p) / total for key in ("wte", ".attn.", ".mlp.")]
    print(f"{name:11}: {c.n_layer:2} blocks, C = {c.n_embd:4}, {total:13,} parameters;", end=" ")
    print("token table {:3.0%}, attention {:3.0%}, MLP {:3.0%}".format(*shares))

# %% [markdown]
# Nano is mostly its token table, which without weight tying would be there twice.
#
# ## Exercises
#
# **1.** ★ Without a nonlinear function an MLP is one linear layer. Which one? Return its matrix and bias.
#
# <details><summary>中文</summary>没有非线性函数，MLP 就等于一个线性层。返回它的矩阵和偏置。</details>


# %% tags=["your-turn"]
def one_layer(w1, b1, w2, b2):  # y = w2 (w1 x + b1) + b2 -> matrix, bias
    """Your turn."""


# check
import torch

w1, b1, w2, b2, x = torch.randn(8, 3), torch.randn(8), torch.randn(3, 8), torch.randn(3), torch.randn(3)
got, y = one_layer(w1, b1, w2, b2), w2 @ (w1 @ x + b1) + b2
right = got is not None and torch.allclose(got[0] @ x + got[1], y, atol=1e-4)
print("your turn" if got is None else "right" if right else "not yet: what becomes of the first bias?")


# %% tags=["wrong"]
def one_layer(w1, b1, w2, b2):
    return w2 @ w1, b2


# %% tags=["solution"]
def one_layer(w1, b1, w2, b2):
    return w2 @ w1, w2 @ b1 + b2


# %% [markdown]
# **2.** ★★ To classify, one often trains only the last block, the final norm, and a new *head*: a linear layer
# with a bias that makes K numbers of a vector of C. How many parameters is that?
#
# <details><summary>中文</summary>只训练最后一个块、最后的层归一化和新的输出头（带偏置，C 到 K），一共多少参数？</details>


# %% tags=["your-turn"]
def trained_parameters(C, K): ...


# check
got = [trained_parameters(768, 2), trained_parameters(8, 5)]  # gpt2-small with two classes, a dwarf with five
print("your turn" if got[0] is None else "right" if got == [7_090_946, 933] else f"not yet: {got}")


# %% tags=["wrong"]
def trained_parameters(C, K):
    return 12 * C**2 + 13 * C + C * K + K


# %% tags=["solution"]
def trained_parameters(C, K):
    return 12 * C**2 + 13 * C + 2 * C + C * K + K


# %% [markdown]
# **3.** ★★★ What would the network predict if it had to stop early? Return the next-token logits after the
# first *n* blocks of a library network: its final norm and token table on the stream (the *logit lens*).
#
# <details><summary>中文</summary>如果网络只运行前 n 个块，会预测什么？对残差流使用最后的层归一化和词元表（logit lens）。</details>


# %% tags=["your-turn"]
def early_logits(network, ids, n):  # (B, T) -> (B, T, V); network.embed, .blocks, .norm, .lm_logits
    """Your turn."""


# check
import torch

from gptcls.models.pretrained import load_pretrained

network, ids = load_pretrained("gpt2-nano"), torch.tensor([[1639, 423, 1839]])
got, wanted = early_logits(network, ids, 2), network.blocks[1](network.blocks[0](network.embed(ids)))
right = got is not None and torch.allclose(got, network.lm_logits(network.norm(wanted)))
print("your turn" if got is None else "right" if right else "not yet: is the final norm applied?")


# %% tags=["wrong"]
def early_logits(network, ids, n):
    x = network.embed(ids)
    for block in network.blocks[:n]:
        x = block(x)
    return network.lm_logits(x)


# %% tags=["solution"]
def early_logits(network, ids, n):
    x = network.embed(ids)
    for block in network.blocks[:n]:
        x = block(x)
    return network.lm_logits(network.norm(x))


# %% [markdown]
# ## Quiz
#
# <details><summary><b>Five questions</b></summary>
#
# 1. Which part of a block moves information between tokens? <details><summary>Answer</summary>Attention alone; norms and MLP work on each token separately.</details>
# 2. What does layer norm average over: the batch, the tokens or the channels? <details><summary>Answer</summary>The channels of one token.</details>
# 3. What would the stream lack if a block replaced it instead of adding to it? <details><summary>Answer</summary>All that earlier blocks found and this one does not repeat.</details>
# 4. A GPT started at 0.02 has a loss of about ln V. What would a first loss far above that tell you? <details><summary>Answer</summary>Its logits, so its start, are too large. (A new head on trained features differs: it may begin far above without a fault, see chapter 9.)</details>
# 5. Why does weight tying matter more for nano than for gpt2-xl? <details><summary>Answer</summary>The token table is most of nano's parameters and little of the others'.</details>
# </details>
#
# Next: [4. Pretraining a nano](04_pretraining.ipynb).
