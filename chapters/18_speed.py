# %% [markdown]
# # 18. Why it is fast
#
# *An optional chapter.* gptcls fine-tunes much faster than the book's loop, with the same losses up to rounding. The
# way to find such savings is always the same: count the work, see which part of it is done twice or for nothing,
# leave that out, and check that the result has not changed.
#
# **What you will learn**
#
# - how to count the multiplications of a transformer by a formula, checked against torch's own counter;
# - the frozen-feature cache: run what never changes once, and get the same losses and weights;
# - why the last block's MLP needs to run at one position only;
# - why the clock does not follow the count all the way, and how far it does.
#
# You need: chapters 3 (the block), 7 (padding, the other saving) and 9 (the training loop).
#
# <details><summary>中文提要</summary>
#
# 本章说明 gptcls 为什么快：先数乘加次数(multiply-adds)，再去掉重复的和无用的计算，并逐步核对损失(loss)和权重没有变。
# 冻结(frozen)的块对同一条文本总给出同样的输出，所以只算一次并存起来：冻结特征缓存(frozen-feature cache)。
# 输出头只读最后一个词元(token)，所以最后一块的 MLP 只需在这一个位置上计算。次数与机器无关；秒数取决于机器，这里是生成本笔记本的那一台。
# 实际用时并不完全与次数成正比：处理器算大矩阵时效率高，算小矩阵时效率低。
#
# </details>

# %%
import os
import time

import matplotlib.pyplot as plt
import torch
from torch.utils.flop_counter import FlopCounterMode

from gptcls.core.classifier import Classifier
from gptcls.core.tokenizer import encode
from gptcls.data import sources, split
from gptcls.evaluation import style
from gptcls.fast import frozen
from gptcls.models import pretrained

DATA = os.environ.get("COURSE_SMS", "sms-sample")  # "sms-spam" downloads UCI's 5,574 messages, 0.2 MB
style.use_style()
torch.set_num_threads(1)  # so that the clock measures the work and not how it was shared out
nano = pretrained.load_pretrained("gpt2-nano")
C, n_layer = nano.config.n_embd, nano.config.n_layer

# %% [markdown]
# ## Counting the work
# Nearly all the work of a transformer is matrix products: a vector of $m$ numbers times an $m \times n$ matrix takes
# $mn$ **multiply-adds**. Per token, a block of width $C$ has the matrices for queries, keys and values ($3C^2$), the
# projection behind attention ($C^2$) and the MLP ($4C^2$ up and $4C^2$ down). In attention each of $T$ tokens
# compares its query with $T$ keys and mixes $T$ values: $2CT^2$ for the text.


# %%
def my_block_work(C, T):
    """Multiply-adds of one block for one text of T tokens."""
    return 12 * C * C * T + 2 * C * T * T


def counted(function):
    """Multiply-adds that torch sees while it runs; it counts a multiplication and an addition as two."""
    # Attention's own kernel hides its products from the counter; the plain formula shows them.
    attention = torch.nn.attention
    with FlopCounterMode(display=False) as counter, attention.sdpa_kernel(attention.SDPBackend.MATH):
        function()
    return counter.get_total_flops() // 2


for T in (8, 30, 120):
    with torch.no_grad():
        by_torch = counted(lambda T=T: nano.blocks[0](torch.randn(1, T, C)))
    assert my_block_work(C, T) == by_torch
    print(f"{T:3} tokens: {by_torch:11,} multiply-adds, {2 * C * T * T / by_torch:4.1%} in comparing tokens")

# %% [markdown]
# For short messages the matrices are nearly everything, so the work grows with the number of *positions*.
#
# Training also runs a backward pass. Each matrix product has two of its size there: one for the gradient of the
# weights, one for that of the input. So a trained block costs three forward passes. Frozen blocks below all trained
# ones need no backward pass.


# %%
def new_classifier():
    """The same start each time: the last block, the norm and the head are trained."""
    torch.manual_seed(123)
    classifier = Classifier(pretrained.load_pretrained("gpt2-nano"), 2)
    classifier.freeze("last_block")
    return classifier.train()


ids, lengths = torch.randint(50_000, (8, 40)), torch.full((8,), 40)
classifier = new_classifier()
step = counted(lambda: classifier(ids, lengths).sum().backward()) / (8 * my_block_work(C, 40))
print(f"a training step costs {step:.2f} blocks: {n_layer - 1} frozen, and 3 for the trained one")
assert abs(step - (n_layer - 1 + 3)) < 0.01  # the head is the rest

# %% [markdown]
# ## The plain loop
# The outputs you see come from UCI's SMS Spam Collection; run without it, the notebook uses the 520 messages that
# come with the package, and prints other numbers. 128 messages, half of them spam, are enough to compare speeds. The
# learning rate is one and the same throughout: the speed does not depend on it.

# %%
EPOCHS = 4
messages = split.drop_duplicates(sources.load_data(DATA))
messages = messages.groupby("label").sample(64, random_state=0)
rows = [torch.tensor(encode(text)[:256]) for text in messages["text"]]
y = torch.tensor((messages["label"] == "spam").to_numpy()).long()
batches = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1)).split(8)
print(f"{len(rows)} messages, {sum(map(len, rows)):,} tokens, {EPOCHS} epochs")


def padded(rows):
    """Ids (T,) or vectors (T, C) as one batch, and their lengths."""
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor(list(map(len, rows)))


def my_train(classifier, forward, inputs):
    """EPOCHS over the same batches; returns all losses."""
    optimizer = torch.optim.AdamW(classifier.trained_parameters().values(), lr=2e-4, fused=True)
    losses = []
    for _ in range(EPOCHS):
        for batch in batches:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(forward(*padded([inputs[i] for i in batch])), y[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return torch.tensor(losses)


seconds = {}  # filled on the way, shown at the end


def timed(name, function, *inputs):
    """Run the function; note for how long the processor worked, whatever else ran on the machine."""
    start = time.process_time()
    result = function(*inputs)
    seconds[name] = time.process_time() - start
    return result


plain = new_classifier()
plain_losses = timed("plain", my_train, plain, plain, rows)
print(f"{len(plain_losses)} steps, mean loss of the last eight {plain_losses[-8:].mean():.2f}")

# %% [markdown]
# ## The frozen blocks, once
#
# The frozen blocks give the same output for the same text in every epoch, and the plain loop computes it anew each
# time. Run them once over each text, and keep what comes out, a vector for each token. Then train the rest on it.


# %%
def my_lower(classifier):
    """The frozen blocks: (B, T), (B,) -> (B, T, C)."""
    network = classifier.backbone
    return lambda ids, lengths: network.blocks[1](network.blocks[0](network.embed(ids)))


@torch.no_grad()
def my_features(lower):
    """What ``lower`` makes of each text, (T, C) each, in batches of similar length."""
    features = [None] * len(rows)
    for batch in torch.tensor(list(map(len, rows))).argsort().split(32):
        for i, vectors in zip(batch, lower(*padded([rows[i] for i in batch])), strict=True):
            features[i] = vectors[: len(rows[i])].clone()
    return features


def my_upper(classifier):
    """The last block, the norm and the head at the last token: (B, T, C), (B,) -> (B, K)."""
    block, norm, head = classifier.backbone.blocks[-1], classifier.backbone.norm, classifier.head
    return lambda x, lengths: head(norm(block(x))[torch.arange(len(x)), lengths - 1])


cached = new_classifier()
features = timed("features", my_features, my_lower(cached))
cached_losses = timed("last block", my_train, cached, my_upper(cached), features)

# Are the losses the same, and in the end the weights? Does the library's frozen part make the same features?
torch.testing.assert_close(cached_losses, plain_losses, rtol=1e-3, atol=1e-4)
for name, weights in cached.trained_parameters().items():
    if not name.endswith("qkv.bias"):  # the keys' part has no true gradient: AdamW blows up its rounding
        torch.testing.assert_close(weights, plain.trained_parameters()[name], rtol=1e-2, atol=1e-3)
with torch.no_grad():
    library = frozen.Frozen(cached, n_layer - 1)(*padded(rows[:1]))[0]
torch.testing.assert_close(features[0], library, rtol=1e-3, atol=1e-3)
print(f"{len(plain_losses)} losses agree; features: {sum(v.nbytes for v in features) / 2**20:.1f} MiB")

# %% [markdown]
# In blocks per text, $e$ epochs of the plain loop cost $e(n - 1 + 3)$; with the features kept, $(n - 1) + 3e$:

# %%
figure, axes = plt.subplots(figsize=(8, 4))
epochs = range(1, 21)
for name, n in (("gpt2-nano", n_layer), ("gpt2-small", 12), ("gpt2-xl", 48)):
    saving = [e * (n - 1 + 3) / (n - 1 + 3 * e) for e in epochs]
    axes.plot(epochs, saving, lw=2.5)
    axes.annotate(f"{name}, {n} blocks", (20, saving[-1]), (4, -4), textcoords="offset points")
axes.set(xlabel="epochs", ylabel="times less work", xlim=(1, 26), ylim=0, xticks=[1, 5, 10, 15, 20])
axes.grid()
plt.show()

# %% [markdown]
# The more blocks are frozen, the more is saved. With one epoch nothing is gained; with many, the limit is what the
# trained block costs. Evaluations, not counted here, gain even more: they need no backward pass. A search over learning
# rates or seeds shares one **feature cache** (`--cache DIR` keeps it on disk), so it counts as one long training.
#
# ## One position is enough
#
# The head reads the last token's vector, and nothing comes after the last block. The other tokens are needed in its
# attention; behind it, in the MLP, no token sees another. So the MLP may run for the last token alone.


# %%
def my_upper_at(classifier):
    """my_upper, with the MLP at the last token only."""
    block, norm, head = classifier.backbone.blocks[-1], classifier.backbone.norm, classifier.head

    def forward(x, lengths):
        x = x + block.attn(block.norm1(x))  # (B, T, C)
        x = x[torch.arange(len(x)), lengths - 1]  # (B, C): one position from here on
        return head(norm(x + block.mlp(block.norm2(x))))

    return forward


last = new_classifier()
last_losses = timed("last block, one position", my_train, last, my_upper_at(last), features)
torch.testing.assert_close(last_losses, plain_losses, rtol=1e-3, atol=1e-4)

x, lengths = torch.randn(8, 30, C), torch.full((8,), 30)
library = frozen.Trained(last, n_layer - 1)
with torch.no_grad():
    torch.testing.assert_close(my_upper_at(last)(x, lengths), library(x, lengths), rtol=1e-3, atol=1e-4)
ways = {"whole block": my_upper(last), "MLP at one position": my_upper_at(last), "the library's": library}
work = [counted(lambda f=f: f(x, lengths).sum().backward()) / 8e6 for f in ways.values()]
for name, each in zip(ways, work, strict=True):
    print(f"{name:20} {each:6.2f} million multiply-adds to train on a text of 30 tokens")

# %% [markdown]
# The library forms no key or value at all. With one query $q$ the products can be reordered (`fast/one_position.py`):
# $q \cdot (W_k x_j) = (W_k^\top q) \cdot x_j$ for every token $j$, and $\sum_j a_j W_v x_j = W_v \sum_j a_j x_j$.
#
# ## Fused operations
#
# A block's steps are many small operations, and each reads its input from memory and writes its output back. The
# library's frozen blocks **fuse** some of them where the processor can: bias, GELU and residual addition happen
# inside the matrix product that feeds them (`fast/fused.py`). The multiply-adds stay the same.

# %%
network = new_classifier()
fused = timed("gptcls, features", my_features, frozen.Frozen(network, n_layer - 1))
losses = timed("gptcls, last block", my_train, network, frozen.Trained(network, n_layer - 1), fused)
torch.testing.assert_close(losses, plain_losses, rtol=1e-2, atol=1e-3)
print(f"{len(losses)} losses agree with the plain loop's")

# %% [markdown]
# ## The clock
#
# The seconds are those of the machine that built this notebook; in parentheses, the saving by the count (30 tokens).

# %% tags=["timing"]
steps = ["plain loop", "frozen blocks once", "MLP at one position", "gptcls"]
once = [0, seconds["features"], seconds["features"], seconds["gptcls, features"]]
again = [seconds[name] for name in ("plain", "last block", "last block, one position", "gptcls, last block")]
total = [a + b for a, b in zip(once, again, strict=True)]
lower = (n_layer - 1) * my_block_work(C, 30) / 1e6
count = [EPOCHS * (lower + work[0])] + [lower + EPOCHS * each for each in work]
figure, axes = plt.subplots(figsize=(8, 3.8))
axes.barh(steps, once, color=style.BLUE, label="once: the frozen blocks")
bars = axes.barh(steps, again, left=once, color=style.ORANGE, label=f"in {EPOCHS} epochs")
texts = [f"{s:.1f} s: {total[0] / s:.1f} × ({count[0] / c:.1f} ×)" for s, c in zip(total, count, strict=True)]
axes.bar_label(bars, texts, padding=4)
axes.set(xlabel="seconds of one processor core", xlim=(0, 1.4 * total[0]))
axes.invert_yaxis()
axes.legend(loc="lower right")
plt.show()
assert total[0] > 1.2 * total[-1]  # on any machine, however busy

# %% [markdown]
# The clock does not follow the count all the way (look at the last bar): each operation has a fixed cost,
# the optimizer's step goes over all trained weights however short the texts are, and processors are efficient on large
# matrices. How many multiply-adds a nanosecond one core does depends on how many positions meet the matrix at once:


# %% tags=["timing"]
def rate(positions, width):
    """Multiply-adds a nanosecond of (positions, width) times (width, 4 width)."""
    x, w, work = torch.randn(positions, width), torch.randn(width, 4 * width), 4 * positions * width**2
    start, runs = time.process_time(), max(1, 10**9 // work)
    for _ in range(runs):
        x @ w
    return runs * work / (time.process_time() - start) / 1e9


print("positions   width 256   width 768")
for positions in (1, 32, 1024):
    print(f"{positions:9}", *(f"{rate(positions, width):11.1f}" for width in (256, 768)))

# %% [markdown]
# Read each column downwards: this is why the library's frozen pass takes large batches (on a CPU, of about 1,024
# positions: `TOKEN_BUDGETS` in `core/answer.py`).
#
# ## Exercises
# **1.** ★ How many bytes do GPT-2 small's features (C = 768) of 1,494 messages of 30 tokens take, at 2 bytes a number?
#
# <details><summary>中文</summary>1,494 条短信，每条 30 个词元，GPT-2 small(C = 768)的特征每个数占 2 字节，一共多少字节？</details>

# %% tags=["your-turn"]
size = None

# check
print("your turn" if size is None else "right" if size == 68_843_520 else "not yet: a vector for each token")

# %% tags=["wrong"]
size = 1494 * 768 * 2

# %% tags=["solution"]
size = 1494 * 30 * 768 * 2
print(f"{size:,} bytes, {size / 2**20:.0f} MiB")

# %% [markdown]
# **2.** ★★ Twelve blocks, the last two are trained, for 5 epochs. How many times less work is it with the cache?
#
# <details><summary>中文</summary>十二块，训练最后两块，5 轮。原来的工作量是使用缓存后的多少倍？</details>

# %% tags=["your-turn"]
saving = None

# check
good = saving is not None and abs(saving - 2) < 0.01
print("your turn" if saving is None else "right" if good else "not yet: frozen blocks count only once")

# %% tags=["wrong"]
saving = 5 * (11 + 3) / (11 + 5 * 3)

# %% tags=["solution"]
n, k, e = 12, 2, 5
saving = e * (n - k + 3 * k) / (n - k + e * 3 * k)
print(saving)

# %% [markdown]
# **3.** ★★ A block with $C = 768$ and $T = 30$: how many times less work, $2CT^2$ included, with the MLP at one position?
#
# <details><summary>中文</summary>宽度 768 的一块、30 个词元的文本：若 MLP 只在一个位置上计算，原来的工作量是现在的多少倍？注意力的 $2CT^2$ 也要算上。</details>

# %% tags=["your-turn"]
factor = None

# check
good = factor is not None and abs(factor - 2.780) < 0.01
print("your turn" if factor is None else "right" if good else "not yet: of 12 C² a token, 8 are the MLP's")

# %% tags=["wrong"]
factor = 12 / 4

# %% tags=["solution"]
C, T = 768, 30
attention, mlp = 4 * C * C * T + 2 * C * T * T, 8 * C * C
factor = (attention + mlp * T) / (attention + mlp)
print(f"{factor:.2f}")

# %% [markdown]
# ## Quiz
#
# <details><summary><b>Five questions</b></summary>
#
# 1. Why does a trained block cost three forward passes? <details><summary>Answer</summary>Its backward pass has two products for each of the forward pass.</details>
# 2. Why may the frozen blocks run only once? <details><summary>Answer</summary>Their weights do not change, so the same text always gives the same vectors.</details>
# 3. With which number of epochs does the cache save nothing? <details><summary>Answer</summary>One.</details>
# 4. Why must the last block's attention still see all tokens? <details><summary>Answer</summary>The last token mixes their values.</details>
# 5. What does fusing save, if not multiply-adds? <details><summary>Answer</summary>Trips to memory between small operations.</details>
# </details>
#
# Next: [19. Your own data](19_your_data.ipynb)
