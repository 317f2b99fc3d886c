# %% [markdown]
# # 12. Why it is fast
#
# Fine-tuning as in the book takes a laptop many minutes, and gptcls a fraction of that, with the same
# losses and predictions but for rounding. There is no trick in it that you could not write yourself. The
# way to find such savings is always the same: count the work, see which part of it is done twice or for
# nothing, leave that out, and prove that the result has not changed.
#
# **What you will learn**
#
# - how to count the multiplications of a transformer by a formula, checked against torch's own counter;
# - the frozen-feature cache: run what never changes once, and get the same losses and weights;
# - what sorting by length saves, and why the last block needs to run at one position only;
# - what bf16 is, and what it does to the answers;
# - why the clock does not always follow the count.
#
# The counts below are exact and the same on every machine. The seconds are those of the machine that built
# this notebook; yours will differ.

# %%
import time
from contextlib import contextmanager
from itertools import pairwise

import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import pad_sequence
from torch.utils.flop_counter import FlopCounterMode

from gptcls.common.hardware import pick_dtype
from gptcls.core.answer import dataset_logits
from gptcls.core.batches import TextDataset, pad, token_budget_batches
from gptcls.core.classifier import Classifier, LastToken
from gptcls.core.gpt2 import PRESETS
from gptcls.core.task import SingleLabel
from gptcls.data.sources import load_data
from gptcls.data.split import drop_duplicates, make_split
from gptcls.evaluation.style import BLUE, GREY, ORANGE, VERMILION, use_style
from gptcls.fast.features import FeatureCache
from gptcls.fast.frozen import Frozen, Staged, Trained
from gptcls.fast.one_position import at
from gptcls.models.pretrained import load_pretrained

use_style()
MODEL = "gpt2-nano"  # "gpt2-small" downloads 548 MB, and takes minutes here
DATA = "sms-sample"  # "sms-spam" downloads the SMS Spam Collection
LR = 5e-5 if MODEL == "gpt2-small" else 2e-4
EPOCHS = 2
CPU = torch.device("cpu")
torch.set_num_threads(1)  # so that the clock measures the work and not how it was shared out
seconds = {}


@contextmanager
def clock(name):
    """Note for how long the processor works on something; shown further down."""
    start = time.process_time()  # unlike a watch, it stands still while other programs have the processor
    yield
    seconds[name] = time.process_time() - start


# %% [markdown]
# ## Counting the work
#
# Nearly all the work of a transformer is matrix products, and their cost is easily counted: a vector of m
# numbers times an m × n matrix takes m·n **multiply-adds**. Per token, a block of width C has the matrices
# for queries, keys and values (3 C²), the projection behind attention (C²) and the MLP (4 C² up and 4 C²
# down): 12 C² in all. In attention, each of T tokens compares its query with T keys and mixes T values:
# 2 C T² for the whole text.


# %%
def my_block_work(C, T):
    """Multiply-adds of one block for one text of T positions."""
    return 12 * C * C * T + 2 * C * T * T


def counted(function, *inputs):
    """Multiply-adds that torch sees while it runs; it counts a multiplication and an addition as two."""
    # Attention's own kernel hides its products from the counter; the plain formula shows them.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        function(*inputs)
    return counter.get_total_flops() // 2


backbone = load_pretrained(MODEL)
C, n_layer = backbone.config.n_embd, backbone.config.n_layer
for T in (8, 30, 120):
    with torch.no_grad():
        by_torch = counted(backbone.blocks[0], torch.randn(1, T, C))
    torch.testing.assert_close(my_block_work(C, T), by_torch, rtol=0, atol=0)
    share = 2 * C * T * T / my_block_work(C, T)
    print(f"{T:3} tokens: {by_torch:11,} multiply-adds a block, {share:4.1%} of them comparing tokens")

# %% [markdown]
# For short messages the matrices are nearly everything, so the work grows with the number of *positions*.
#
# Training also goes backwards. Each matrix product has two of its size on the way back: one for the gradient
# of the weights, one for the gradient of the input. So a trained block costs three times its forward pass.
# A frozen block below all trained ones costs nothing on the way back: nobody asks for its gradients.


# %%
def new_classifier():
    """The same start each time: the last block, the norm and the head are trained."""
    torch.manual_seed(123)
    classifier = Classifier(load_pretrained(MODEL), 2)
    classifier.freeze("last_block")
    return classifier.train()


ids, lengths = torch.randint(50_000, (8, 40)), torch.full((8,), 40)
classifier = new_classifier()
step = counted(lambda: classifier(ids, lengths).sum().backward())
block = 8 * my_block_work(C, 40)
print(f"a training step costs {step / block:.2f} blocks: {n_layer - 1} frozen, and 3 for the trained one")
assert abs(step / block - (n_layer - 1 + 3)) < 0.01  # the head is the rest

# %% [markdown]
# ## What is done again and again
#
# The frozen blocks give the same output for the same text: in every epoch, and in every evaluation between.
# The loop of chapter 8 computes it anew each time. First that plain loop, padded as in the book to the
# longest message of the training set:

# %%
split = make_split(drop_duplicates(load_data(DATA)))
task = SingleLabel.of(split.train["label"])
targets = task.targets(split.train["label"].tolist())
train_set = TextDataset(split.train["text"].tolist(), targets, max_length=backbone.config.n_positions)
rows = train_set.rows  # token ids
lengths = torch.tensor(train_set.lengths)
longest = int(lengths.max())
batches = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1)).split(8)


def my_train(classifier, forward, collate):
    """EPOCHS over the batches; returns all losses."""
    parameters = classifier.trained_parameters().values()
    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.1, fused=True)
    losses = []
    for _ in range(EPOCHS):
        for batch in batches:
            optimizer.zero_grad()
            loss = F.cross_entropy(forward(*collate(batch.tolist())), targets[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return torch.tensor(losses)


plain = new_classifier()
with clock("the book's loop"):
    plain_losses = my_train(plain, plain, lambda batch: pad([rows[i] for i in batch], pad_to=longest))
print(f"{len(rows)} messages, all padded to {longest} tokens, {EPOCHS} epochs: {len(plain_losses)} steps")

# %% [markdown]
# Now the cache. Run the frozen blocks once over each text and keep what comes out, a vector for each *real*
# token. Then train what is left on it.


# %%
@torch.no_grad()
def my_cached_features(classifier, groups, width=0):
    """What the frozen blocks make of each text, (T, C) each, computed group by group."""
    features = [None] * len(rows)
    for group in groups:
        ids, _ = pad([rows[i] for i in group], pad_to=width)
        x = classifier.backbone.embed(ids)
        for block in classifier.backbone.blocks[:-1]:
            x = block(x)
        for i, row in zip(group, x, strict=True):
            features[i] = row[: len(rows[i])].clone()
    return features


last_token = LastToken(C)


def my_upper(classifier):
    """What is left of a classifier: (B, T, C), (B,) -> (B, K)."""
    block, norm, head = classifier.backbone.blocks[-1], classifier.backbone.norm, classifier.head
    return lambda x, lengths: head(last_token(norm(block(x)), lengths))


cached = new_classifier()
with clock("features, padded"):
    features = my_cached_features(cached, [batch.tolist() for batch in batches], width=longest)


def collate_features(batch, width=0):
    """Features of a batch as one rectangle, zeros behind the shorter ones."""
    x = pad_sequence([features[i] for i in batch], batch_first=True)
    return F.pad(x, (0, 0, 0, max(0, width - x.shape[1]))), lengths[batch]


with clock("last block, padded"):
    cached_losses = my_train(cached, my_upper(cached), lambda batch: collate_features(batch, longest))

# %% [markdown]
# The same losses, and in the end the same weights? And does the library's cache hold the same features?

# %%
torch.testing.assert_close(cached_losses, plain_losses, rtol=1e-3, atol=1e-4)
# AdamW's step is as large for a gradient of nothing but rounding (that of the keys' bias) as for a real one.
for name, weights in cached.trained_parameters().items():
    torch.testing.assert_close(weights, plain.trained_parameters()[name], rtol=1e-3, atol=LR)

depth = n_layer - 1
library = FeatureCache().datasets(Frozen(cached, depth), {"train": train_set}, CPU)["train"]
for mine, theirs in zip(features, library.features, strict=True):
    torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)
size = sum(row.numel() * row.element_size() for row in features)
print(f"largest difference between two losses: {(cached_losses - plain_losses).abs().max():.0e}")
print(f"the cache takes {size / 2**20:.1f} MiB: {C} numbers for each of {int(lengths.sum()):,} tokens")

# %% [markdown]
# How much does that save? Counted in blocks: the plain loop runs n − 1 frozen blocks and three times the
# trained one for each text in each epoch; the cache pays for the n − 1 only once.

# %%
epochs = range(1, 21)
figure, axes = plt.subplots(figsize=(6.6, 3.4))
lines = ((MODEL, n_layer, "-", BLUE), ("gpt2-small", 12, "--", VERMILION), ("gpt2-xl", 48, ":", GREY))
for name, n, style, colour in lines:
    saving = [e * (n - 1 + 3) / (n - 1 + 3 * e) for e in epochs]
    axes.plot(epochs, saving, style, color=colour, lw=2, label=f"{name}, {n} blocks")
axes.set(xlabel="epochs", ylabel="times less work", xlim=(1, 20), ylim=(0, None))
axes.set_xticks([1, 5, 10, 15, 20])
axes.grid()
axes.legend()
plt.show()

# %% [markdown]
# With one epoch nothing is gained, and with many the limit is what the trained block costs. A sweep over
# learning rates or seeds shares one cache, so it counts as one long training (`--cache DIR` keeps it on the
# disk). Evaluations, not counted here, gain even more: they have no way back.
#
# ## Not computing padding
#
# A padded position costs as much as a real one, and chapter 1 showed how to avoid most of it: sort by
# length, and pad each batch to its own longest text.


# %%
def padded_to(groups):
    """Each text's width when every group is padded to its longest text."""
    widths = torch.zeros(len(rows), dtype=torch.int64)
    for group in groups:
        widths[group] = lengths[group].max()
    return widths


sorted_groups = token_budget_batches(lengths.tolist(), 1024)  # as the library's cache does
in_steps = [batch.tolist() for batch in batches]
widths = {
    "all to the longest": torch.full_like(lengths, longest),
    "shuffled batches of 8": padded_to(in_steps),
    "sorted, 1,024 positions": padded_to(sorted_groups),
}
for name, values in widths.items():
    padding = 1 - lengths.sum() / values.sum()
    print(f"{name:24} {int(values.sum()):7,} positions, {padding:5.1%} padding")

with clock("features, by length"):
    sorted_features = my_cached_features(cached, sorted_groups)
for mine, theirs in zip(sorted_features, features, strict=True):
    torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)

short = new_classifier()
with clock("last block, batch's width"):
    short_losses = my_train(short, my_upper(short), collate_features)
torch.testing.assert_close(short_losses, plain_losses, rtol=1e-3, atol=1e-4)

# %% [markdown]
# ## One position is enough
#
# The head reads the vector of the last token, and nothing comes after the last block. So of the T vectors
# that this block makes, T − 1 are thrown away. The last token needs the keys and values of all tokens, but
# only its own query, its own projection and its own pass through the MLP.


# %%
def my_block_at(block, x, positions):  # (B, T, C), (B,) -> (B, C)
    """block(x) at one position of each row."""
    B, T, C = x.shape
    H = block.attn.n_head
    everyone, row = torch.arange(T), torch.arange(B)
    normed = block.norm1(x)
    w_q, w_kv = block.attn.qkv.weight.split([C, 2 * C])
    b_q, b_kv = block.attn.qkv.bias.split([C, 2 * C])
    q = F.linear(normed[row, positions], w_q, b_q).view(B, H, 1, C // H)
    k, v = F.linear(normed, w_kv, b_kv).view(B, T, 2, H, C // H).permute(2, 0, 3, 1, 4)  # (B, H, T, D)
    seen = (everyone <= positions[:, None])[:, None, None]  # (B, 1, 1, T)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen).reshape(B, C)
    x = x[row, positions] + block.attn.proj(mixed)
    return x + block.mlp(block.norm2(x))


def my_upper_at(classifier):
    """my_upper, at the last position only."""
    block, norm, head = classifier.backbone.blocks[-1], classifier.backbone.norm, classifier.head
    return lambda x, lengths: head(norm(my_block_at(block, x, lengths - 1)))


x, sizes = collate_features(in_steps[0])
block = cached.backbone.blocks[-1]
with torch.no_grad():
    mine = my_block_at(block, x, sizes - 1)
    torch.testing.assert_close(mine, last_token(block(x), sizes))
    torch.testing.assert_close(mine, at(block, x, sizes - 1))  # the library's

one = new_classifier()
with clock("last block, one position"):
    one_losses = my_train(one, my_upper_at(one), collate_features)
torch.testing.assert_close(one_losses, plain_losses, rtol=1e-3, atol=1e-4)


def my_one_position_work(C, T):
    """Multiply-adds of my_block_at: keys and values everywhere, the rest once."""
    return 2 * C * C * T + 10 * C * C + 2 * C * T


with torch.no_grad():
    by_torch = counted(my_block_at, block, x[:1], sizes[:1] - 1)
torch.testing.assert_close(my_one_position_work(C, x.shape[1]), by_torch, rtol=0, atol=0)
print(f"{my_block_work(C, 30) / my_one_position_work(C, 30):.1f} times less work for a text of 30 tokens")

# %% [markdown]
# The library's `Block.at` goes one step further and forms no keys and values at all; exercise 3 shows how.
#
# ## Smaller numbers
#
# A number in fp32 takes 32 bits: 1 for the sign, 8 for the size, 23 for the digits. **bf16** keeps the sign
# and the size and only 7 bits of digits. So it reaches as far, but has only two to three decimal digits:

# %%
for value in (1 / 3, 3.14159265, 257.0, 1e30):
    print(f"{value:<12g} in bf16: {torch.tensor(value).bfloat16().item():g}")

# %% [markdown]
# Half the memory to move, and processors made for it multiply twice as many of them at a time. The frozen
# blocks run in bf16 where the processor can do that; what is *trained* stays in fp32, for a step of training
# is often smaller than bf16 can add. What does the rounding do to the answers of the classifier that we have
# trained? (`Staged` runs a classifier's frozen blocks in the format that it is given.)

# %%
parts = [*split.validation["text"], *split.test["text"]]
new_set = TextDataset(parts, torch.zeros(len(parts)), backbone.config.n_positions)
formats = (torch.float32, torch.bfloat16)
fp32, bf16 = (task.outputs(dataset_logits(Staged(one, dtype), new_set, CPU)) for dtype in formats)
gap = (fp32 - bf16).abs()
changed = (fp32.argmax(dim=-1) != bf16.argmax(dim=-1)).sum()
assert gap.max() < 0.1
print(f"probabilities differ by {gap.mean():.3f} on average and by {gap.max():.3f} at most")
print(f"{changed} of {len(parts)} answers change")

# %% [markdown]
# An answer can change only where the two probabilities were nearly equal. If the last digit matters to you,
# `--precision fp32` is there.
#
# ## Everything together
#
# First the count, step by step: for the run of this chapter, and for the book's with GPT-2 small, whose
# numbers are known: 1,494 messages of 30 tokens on average, all padded to 120; 5 epochs of 130 batches of 8;
# on the way 180 batches to evaluate, and at the end every message once (but those that fill no batch).


# %%
def ladder(n, texts, trained, evaluated, wide, by_length, in_batches, at_one):
    """Multiply-adds in all after each step; the last four arguments are those of one block for a mean text.

    A text that is trained on costs three passes of the last block, one that is evaluated costs one.
    """
    last = 3 * trained + evaluated
    return {
        "the book's loop": wide * ((n - 1) * (trained + evaluated) + last),
        "frozen blocks once": wide * ((n - 1) * texts + last),
        "less padding": by_length * (n - 1) * texts + in_batches * last,
        "one position": by_length * (n - 1) * texts + at_one * last,
    }


def mean_work(work, widths):
    """Of one block for a text, over texts of these widths."""
    return sum(work(C, width) for width in widths.tolist()) / len(widths)


wide, in_batches, by_length = (mean_work(my_block_work, values) for values in widths.values())
at_one = mean_work(my_one_position_work, widths["shuffled batches of 8"])
ours = ladder(n_layer, len(rows), EPOCHS * len(rows), 0, wide, by_length, in_batches, at_one)

small = PRESETS["gpt2-small"]
wide, narrow = (my_block_work(small.n_embd, T) for T in (120, 30))
at_one = my_one_position_work(small.n_embd, 30)
book = ladder(small.n_layer, 1494, 5 * 1040, 180 * 8 + 1489, wide, narrow, narrow, at_one)

figure, grid = plt.subplots(1, 2, figsize=(8.6, 2.9), sharey=True)
for axes, name, steps in ((grid[0], f"{MODEL}, here", ours), (grid[1], "gpt2-small, the book", book)):
    first = steps["the book's loop"]
    bars = axes.barh(list(steps), [first / work for work in steps.values()], color=BLUE)
    axes.bar_label(bars, fmt="%.1f x", padding=4)
    axes.set(title=name, xlabel="times less work", xlim=(0, 1.25 * first / min(steps.values())))
    print(f"{name}: from {first / 1e9:,.0f} to {min(steps.values()) / 1e9:,.0f} billion multiply-adds")
grid[0].invert_yaxis()
plt.show()

# %% [markdown]
# The bars on the right belong to the table in docs/speed.md, where the whole run is timed with GPT-2 small's
# sizes beside the book's code: compare the last one with the line for fp32.
#
# And the clock? Beside the four steps stands the library as it comes. Its cache runs the frozen blocks with
# fewer passes over the memory (`fast/fused.py`), in bf16 where the processor has it, and its `Trained` is the
# last block at one position, without keys and values.

# %%
network = new_classifier()
with clock("gptcls, features"):
    frozen = Frozen(network, depth, pick_dtype("auto", CPU))
    features = FeatureCache().datasets(frozen, {"train": train_set}, CPU)["train"].features
with clock("gptcls, last block"):
    losses = my_train(network, Trained(network, depth), collate_features)
torch.testing.assert_close(losses, plain_losses, rtol=0.1, atol=0.1)  # bf16 has its rounding

# %% tags=["timing"]
steps = {
    "the book's loop": (None, "the book's loop"),
    "frozen blocks once": ("features, padded", "last block, padded"),
    "less padding": ("features, by length", "last block, batch's width"),
    "one position": ("features, by length", "last block, one position"),
    "gptcls": ("gptcls, features", "gptcls, last block"),
}
once, again = ([seconds.get(pair[i], 0) for pair in steps.values()] for i in (0, 1))
total = [a + b for a, b in zip(once, again, strict=True)]
assert total[0] > 1.5 * total[-1]  # on any machine, however busy

figure, axes = plt.subplots(figsize=(7.2, 3.2))
axes.barh(list(steps), once, color=BLUE, label="once: the frozen blocks")
style = {"color": ORANGE, "hatch": "//", "edgecolor": "white", "label": "in each epoch"}
bars = axes.barh(list(steps), again, left=once, **style)
axes.bar_label(bars, [f"{s:.2f} s, {total[0] / s:.1f} x" for s in total], padding=4)
axes.set(xlabel="seconds of one processor core", xlim=(0, 1.3 * total[0]))
axes.invert_yaxis()
axes.legend(loc="lower right")
plt.show()

for (name, work), s in zip(ours.items(), total, strict=False):
    speed = work / s / 1e9
    print(f"{name:18} {work / 1e9:5.1f} billion multiply-adds in {s:5.2f} s, {speed:4.1f} a nanosecond")

# %% [markdown]
# The clock does not follow the count all the way. Look at the last column: the less work is left, the fewer
# multiply-adds tend to be done in a nanosecond. Each operation has a fixed cost, the call from Python and the
# way to the kernel; the optimizer's step goes over all trained weights however short the texts are; and small
# matrices do not fill a processor. How many it manages at best depends on how many positions meet the matrix
# at once. Here they are for matrices as wide as gpt2-nano's (256) and GPT-2 small's (768):


# %% tags=["timing"]
def rate(rows, width, dtype):
    """Multiply-adds a nanosecond of (rows, width) times (width, 4 width), best of three tries."""
    x, w = torch.randn(rows, width).to(dtype), torch.randn(width, 4 * width).to(dtype)
    work, tries = 4 * rows * width * width, []
    runs = max(1, min(2000, 10**9 // work))
    for _ in range(3):
        start = time.process_time()
        for _ in range(runs):
            x @ w
        tries.append(time.process_time() - start)
    return runs * work / min(tries) / 1e9


print("positions   width    fp32    bf16")
for width in (256, 768):
    for positions in (1, 32, 1024):
        rates = (rate(positions, width, dtype) for dtype in (torch.float32, torch.bfloat16))
        print(f"{positions:9} {width:7}", *(f"{value:7.1f}" for value in rates))

# %% [markdown]
# Read it from one position to many: a processor wants work in bulk. (The figures are of a processor that does
# not multiply in bf16: whatever the bulk, it is at least ten times slower there than in fp32, and the library
# stays in fp32 on such a one.) So larger batches of *positions* are good, larger batches of *padding* are
# not. That is why the frozen pass takes about 1,024 positions a batch, sorted by length, whatever the batch
# size of the training is.
#
# ## Exercises
#
# **1.** How much memory does the cache take for the book's 1,494 messages of 30 tokens with GPT-2 small, in
# bf16? From how many such messages on does it leave the library's budget of 2 GiB and go to a file? Check
# your formula on the cache above.


# %% tags=["solution"]
def cache_bytes(tokens, width, bytes_a_number):
    """A vector for each token."""
    return tokens * width * bytes_a_number


stored = sum(row.numel() * row.element_size() for row in sorted_features)
assert stored == cache_bytes(int(lengths.sum()), C, 4)
needed = cache_bytes(1494 * 30, small.n_embd, 2)
print(f"{needed / 2**20:.0f} MiB; 2 GiB hold {2**31 // (needed // 1494):,} messages")
assert needed < FeatureCache().budget

# %% [markdown]
# **2.** With `freeze("last_2")`, what does a training step cost in blocks, and how much does the cache save
# in e epochs? Check the first by the counter. Is there a number of trained blocks at which the cache is
# useless?

# %% tags=["solution"]
two = new_classifier()
two.freeze("last_2")
ids, sizes = torch.randint(50_000, (8, 40)), torch.full((8,), 40)
step = counted(lambda: two(ids, sizes).sum().backward()) / (8 * my_block_work(C, 40))
assert abs(step - (n_layer - 2 + 3 * 2)) < 0.01


def saving(n, k, e):
    """Times less work with k of n blocks trained for e epochs."""
    return e * (n - k + 3 * k) / (n - k + e * 3 * k)


assert saving(n_layer, n_layer, 5) == 1  # with all of them trained nothing is frozen
assert all(a > b for a, b in pairwise(saving(12, k, 5) for k in range(1, 13)))
print(", ".join(f"{k} trained: {saving(12, k, 5):.1f} x" for k in (1, 2, 3, 6, 12)), "(gpt2-small, 5 epochs)")

# %% [markdown]
# **3.** `my_block_at` still multiplies every position by the key matrix. It need not: q · (W n + b) is
# (Wᵀ q) · n + q · b, and the last term is the same for all positions, so softmax ignores it. Compute the
# attention weights of the last position both ways. How many multiply-adds does each take for T tokens?

# %% tags=["solution"]
x = sorted_features[int(lengths.argmax())]  # (T, C)
T, H = len(x), backbone.config.n_head
D = C // H
with torch.no_grad():
    block = network.backbone.blocks[-1]
    normed = block.norm1(x)
    w_q, w_k, _ = block.attn.qkv.weight.split(C)
    b_q, b_k, _ = block.attn.qkv.bias.split(C)
    q = F.linear(normed[-1], w_q, b_q).view(H, D)
    keys = F.linear(normed, w_k, b_k).view(T, H, D)
    usual = torch.einsum("hd,thd->ht", q, keys).div(D**0.5).softmax(dim=-1)
    absorbed = torch.einsum("hd,hdc->hc", q, w_k.view(H, D, C))  # Wᵀ q, head by head
    short = (absorbed @ normed.T).div(D**0.5).softmax(dim=-1)  # (H, T)
torch.testing.assert_close(short, usual, rtol=1e-3, atol=1e-5)
# Usual: C² for each key and C for each score. Absorbed: C² once, and H scores of C multiply-adds a token.
usual_work, absorbed_work = T * C * C + T * C, C * C + T * H * C
assert absorbed_work < usual_work
print(f"{T} tokens: {usual_work:,} against {absorbed_work:,} multiply-adds")

# %% [markdown]
# ## What changed from the book
#
# | | the book | here |
# | --- | --- | --- |
# | frozen blocks | run in every epoch and evaluation | run once for each text |
# | padding | all to the longest training text | to the longest of a batch of similar lengths |
# | the last block | at all positions | at the position that is read |
# | number format | fp32 | frozen blocks in bf16 where the processor has it, what is trained in fp32 |
# | how we know that it is the same | | losses and weights compared with the plain loop |
#
# Next: [13. Beyond spam](13_beyond.ipynb).
