# %% [markdown]
# # 11. What should be trained?
#
# The book trains the last block, reads the last position, pads everything to 120 tokens. Why these choices
# and not others? One can argue about it, or change one thing at a time and measure. Such a run with one thing
# changed or taken away is called an **ablation**. The author of the book published nineteen of them, one run
# each. This chapter repeats them with a small model and several seeds, and asks which of the differences would
# still be there tomorrow.
#
# **What you will learn**
#
# - how to keep nineteen experiments in one table of options, so that nothing else differs between them;
# - which differences in such a table are larger than luck, and why pairing by seed shows smaller ones;
# - what it changes to read another position, to train more or less, to start from random weights;
# - LoRA: training two thin matrices beside a frozen one, built by hand;
# - what a GPT becomes when its causal mask is taken away.

# %%
import logging
import math
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.stats import t
from torch import nn
from torch.nn import functional as F

from benchmarks.ablation_report import NANO, plot, read_results, summarise
from benchmarks.ablation_rows import ABLATIONS
from benchmarks.ablations import AblationConfig, run_ablations
from gptcls.core.classifier import Classifier
from gptcls.core.gpt2 import GPT2, PRESETS, GPT2Config
from gptcls.core.tokenizer import encode
from gptcls.data.sources import load_data
from gptcls.evaluation.intervals import mean_interval, wilson_interval
from gptcls.evaluation.style import BLUE, GREY, VERMILION, use_style
from gptcls.models.lora import LoRAConfig, LoRALinear, add_lora, learn_adapters
from gptcls.models.pretrained import load_pretrained

use_style()
plt.close(plt.figure())  # from the first figure of pyplot on, a notebook also shows those of the library
logging.getLogger("gptcls").setLevel(logging.WARNING)
MODEL = "gpt2-nano"  # "gpt2-small" downloads 548 MB; its all-layer runs take an hour on a laptop
DATA = "sms-sample"  # "sms-spam" downloads the SMS Spam Collection; the published figures are about it
if MODEL == "gpt2-nano":
    torch.set_num_threads(1)  # matrices this small are not worth sharing out

# %% [markdown]
# ## Nineteen variants, one table
#
# An experiment that is a script of its own drifts away from its neighbours: somebody repairs one of them, and
# from then on two things differ. Here every variant is a line: a few options that differ from the first row,
# which is the book's recipe itself. Everything else is the same code.

# %%
for row in ABLATIONS.values():
    options = ", ".join(f"{name}={value}" for name, value in row.options.items())
    print(f"{row.number:2}  {row.name:33} {options}")

# %% [markdown]
# Rows 6 to 9 and 12 take larger models, which only makes sense beside GPT-2 itself. Row 18 changes nothing
# at all, and exercise 1 shows why. `python -m benchmarks.ablations` runs any of them:
#
# ```bash
# python -m benchmarks.ablations --rows 1 4 16 --seeds 0 1 2 --data sms-spam
# ```
#
# It writes each result as it comes and goes on where it was stopped. A seed draws everything anew: which ham
# messages are kept to balance the spam, how they are split (and with it the longest training text, to which
# the book's recipe pads), the new head, and the order of training. So the spread over seeds is what would
# change if somebody repeated the whole experiment on another draw of these messages. (The draws overlap,
# since the spam is always the same; new messages would spread a little more.)
#
# ## The result, beside the published one
#
# All rows that apply to `gpt2-nano`, on the SMS Spam Collection, were run before this notebook was built, with
# the first `gpt2-nano` (6 blocks, 128 wide; the one that ships now has 3 of 256); the file lies next to the
# program, in `benchmarks/ablations-nano`. The diamonds are gpt2-small, a far larger model that has read far
# more, one run each. The dots are ours.

# %%
results = read_results(NANO / "results.csv")
summaries = summarise(results, tuple(ABLATIONS.values()))
seeds = sorted(set(results["seed"]))
n_test = int(results["n_test"].iloc[0])
print(f"{len(results)} runs, seeds {', '.join(map(str, seeds))}; {n_test} test messages each")
print("rows with fewer seeds:", {s.row.number: s.n_seeds for s in summaries if 0 < s.n_seeds < len(seeds)})
figure = plot(summaries)
figure.set_dpi(66)
figure

# %% [markdown]
# The same in numbers. `published` and `nano` are test accuracies in percent; `low` and `high` are the 95 %
# interval of the mean over seeds (chapter 10), wide where the seeds are few. A dash means that the row does not
# apply.


# %%
def shown(interval):
    """Mean, low and high for a table."""
    return [""] * 3 if interval is None else [f"{value:.2f}" for value in interval]


pd.DataFrame(
    [[s.row.name, f"{s.row.published[2]:.2f}", *shown(s.test)] for s in summaries],
    index=[s.row.number for s in summaries],
    columns=["change", "published", "nano", "low", "high"],
).replace("", "–")

# %% [markdown]
# ## How large is noise?
#
# Before reading a story out of such a table, one should know what it shows when there is nothing to show. The
# test set has a few hundred messages, so accuracies come in steps:

# %%
print(f"one error is {100 / n_test:.2f} points")
right = round(0.95 * n_test)
low, high = wilson_interval(right, n_test)
print(f"{right} of {n_test} right, {right / n_test:.0%}: 95 % interval {100 * low:.1f} to {100 * high:.1f} %")

# %% [markdown]
# A single run of 95 % says: somewhere in that interval. A difference of two such runs is less certain still,
# for both sides are. If p is the accuracy that a run would have on endless messages, its measured accuracy has
# the variance p (1 − p) / n, and the variances of two runs add up. Which of the published rows differ from
# the published default by more than 1.96 standard deviations of that?


# %%
def margin(one, other, n):
    """What two accuracies, in percent, on n messages each may differ by through luck, 95 times in 100."""
    return 1.96 * math.sqrt(sum(share * (100 - share) / n for share in (one, other)))


default = ABLATIONS[1].published[2]
others = sorted(ABLATIONS.values(), key=lambda row: abs(row.published[2] - default), reverse=True)[:-2]
for row in others:
    difference, luck = row.published[2] - default, margin(row.published[2], default, 300)
    verdict = "more than luck" if abs(difference) > luck else ""
    print(f"{row.number:2} {row.name:33} {difference:+7.2f}  luck up to {luck:.2f}  {verdict}")

# %% [markdown]
# Four rows lie ten and more points below the default: no luck explains those. Of those above it, some pass
# the mark by a hair. But seventeen rows were compared, and one in twenty passes by luck alone. One run each
# cannot say more than that these rows are about as good, perhaps better.
#
# ## Pairing
#
# With several seeds one can do better. Some splits are easy and some are hard, for every row alike. So we do
# not compare the mean of one row with the mean of another; for each seed we take the *difference* of two rows
# on the same split, and ask whether the mean of these differences is away from zero. Student's formula gives
# the interval: mean ± t · s / √n, with s the standard deviation of the n differences, and t a factor that
# pays for estimating s from so few.


# %%
def my_mean_interval(values, confidence=0.95):
    """Mean and Student's interval of it."""
    n, mean = len(values), sum(values) / len(values)
    s = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    half = t.ppf((1 + confidence) / 2, n - 1) * s / math.sqrt(n)
    return mean, mean - half, mean + half


test = results.pivot(index="seed", columns="row", values="test")  # a line a seed, a column a row
differences = test.sub(test[1], axis=0).drop(columns=1)  # each row minus the default, seed by seed
for row in differences:
    values = differences[row].dropna()  # the seeds that both rows have
    mine, library = my_mean_interval(list(values)), mean_interval(values)
    torch.testing.assert_close(torch.tensor(mine).double(), torch.tensor(library).double())
for n in (2, 3, 5, 30):
    print(f"{n:2} seeds: t = {t.ppf(0.975, n - 1):5.2f}")

# %%
figure, axes = plt.subplots(figsize=(7.0, 4.1))
names = []
for line, row in enumerate(differences):
    values = differences[row].dropna()
    mean, low, high = my_mean_interval(list(values))
    clear = low > 0 or high < 0
    colour, marker = (VERMILION, "s") if clear else (BLUE, "o")
    axes.plot([low, high], [line, line], "-" if clear else ":", color=colour, lw=2)
    axes.plot(mean, line, marker, color=colour)
    axes.plot(values, [line + 0.22] * len(values), "|", color=GREY, ms=6)
    names.append(f"{row}  {ABLATIONS[row].name}")
axes.axvline(0, color=GREY, lw=1)
axes.set_yticks(range(len(names)), names)
axes.invert_yaxis()
axes.set(xlabel="test accuracy minus that of row 1, same seed (points)")
axes.grid(axis="x")
for style, label in ((("s-", VERMILION), "interval without 0"), (("o:", BLUE), "interval with 0")):
    axes.plot([], [], style[0], color=style[1], label=label)
axes.plot([], [], "|", color=GREY, label="one seed")
figure.legend(loc="outside upper center", ncols=3)
plt.show()

# %%
for row in differences:
    values = differences[row].dropna()
    mean, low, high = mean_interval(values)
    verdict = "clearly better" if low > 0 else "clearly worse" if high < 0 else "cannot be told apart"
    print(f"{row:2} {ABLATIONS[row].name:33} {mean:+6.2f} [{low:+6.2f}, {high:+6.2f}]  {verdict}")
print(
    f"\n{len(differences.columns)} comparisons at 95 %: {0.05 * len(differences.columns):.1f} of them would"
)
print("come out as clear by luck alone, were all rows equally good")

# %% [markdown]
# "Cannot be told apart" is a statement about this experiment, not about the rows: more seeds make the
# intervals narrower. And the last line is a warning against reading the table as a list of winners: who makes
# many comparisons will find something. The verdicts to trust are those that are far from zero, and those that
# had a reason beforehand.
#
# The reasons, row by row:
#
# - **First position (2).** Under the causal mask the first token has seen nothing but itself (chapter 7). The
#   head must judge a message by its first word.
# - **Head only (3).** The hidden vectors were made for predicting the next token. A straight cut through them
#   is the least one can train.
# - **More layers (4, 5) and LoRA (11)** can fit more, and take longer.
# - **Random weights (10)** have the same shape, and know nothing: the difference to row 5 is what
#   pretraining is worth.
# - **Padded to the model's length (13).** Position −1 then lies behind a long stretch of padding tokens.
# - **No padding, last real token (14, 15, 16).** The answer is read where the text ends. Rows 14 and 15
#   differ from 16 in the size of a step's batch, not in what is read.
# - **No causal mask (17).** All positions see the whole text. The weights were trained with the mask, and
#   have to get used to it.
# - **Mean of all positions (19).** Ours is the mean of the real tokens, the book's takes in the padding.
#
# ## A few rows, here and now
#
# Enough of files. Some rows in small, with the `gpt2-nano` that ships now: the short messages of the bundled
# sample, two epochs, two seeds. With so little of everything expect other numbers and gaps than above.

# %%
ROWS, SEEDS = (1, 2, 3, 5, 10, 11, 16), (0, 1)
messages = load_data(DATA)
messages = messages[[len(encode(text)) <= 32 for text in messages["text"]]]
with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    messages.to_csv(folder / "short.csv", index=False)
    data = {"data": str(folder / "short.csv"), "epochs": 2}
    config = AblationConfig(rows=ROWS, seeds=SEEDS, model=MODEL, **data, out=folder / "out")
    small = run_ablations(config)
    again = run_ablations(config)  # everything is there: nothing is trained
pd.testing.assert_frame_equal(small, again)

by_seed = small.pivot(index="row", columns="seed", values="test")
by_seed.columns = [f"seed {seed}: test %" for seed in by_seed]
by_seed.insert(0, "change", [ABLATIONS[row].name for row in by_seed.index])
by_seed.round(1)

# %%
n_small = int(small["n_test"].iloc[0])
print(f"one error of {n_small} is {100 / n_small:.1f} points")

# %% [markdown]
# The rows share work: the frozen blocks are the same function in rows that train the same part, so they run
# once a text, and chapter 12 makes a subject of it.
#
# ## LoRA by hand
#
# Between training one block and training everything there is a third way. Leave every matrix W as it is, and
# learn what should be *added* to it, under the condition that the addition is thin: the product of a matrix B
# with r columns and a matrix A with r rows, scaled by α / r. With r = 16 that is a small share of W's
# parameters. B starts at zero, so that training starts at the pretrained network.


# %%
class MyLoRALinear(nn.Module):
    """y = x Wᵀ + b + α / r · x Aᵀ Bᵀ with W and b frozen."""

    def __init__(self, base: nn.Linear, r: int, alpha: float) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.A = nn.Parameter(torch.empty(r, base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, r))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # as nn.Linear starts
        self.scale = alpha / r

    def forward(self, x):  # (…, in) -> (…, out)
        return self.base(x) + self.scale * (x @ self.A.T @ self.B.T)


model = load_pretrained(MODEL)
linear = model.blocks[0].attn.qkv
x = torch.randn(3, 5, linear.in_features, generator=torch.Generator().manual_seed(0))
torch.manual_seed(123)
mine = MyLoRALinear(linear, r=16, alpha=16.0)
torch.manual_seed(123)
library = LoRALinear(linear, LoRAConfig(rank=16, alpha=16.0))
torch.testing.assert_close(mine.A, library.lora_A.weight)  # the same random start
torch.testing.assert_close(mine(x), linear(x))  # at the start nothing is added

with torch.no_grad():  # pretend that both have learnt something
    learnt = torch.randn(mine.B.shape, generator=torch.Generator().manual_seed(1)) / 10
    mine.B.copy_(learnt)
    library.lora_B.weight.copy_(learnt)
    torch.testing.assert_close(mine(x), library(x))
    print(f"what was added: {(mine(x) - linear(x)).norm() / linear(x).norm():.0%} of the layer's output")
print(f"W holds {linear.weight.numel():,} numbers, A and B together {mine.A.numel() + mine.B.numel():,}")

# %% [markdown]
# How many parameters does each way train, and what does it bring? The sizes are counted here, the accuracies
# are those of the file.


# %%
def trained_parameters(policy, config):
    """How many parameters a policy trains; the network has shapes only, and no values."""
    with torch.device("meta"):
        classifier = Classifier(GPT2(config), 2)
        if policy == "lora":
            add_lora(classifier.backbone.blocks, LoRAConfig(rank=16, alpha=16.0))
            learn_adapters(classifier)
        else:
            classifier.freeze(policy)
    return sum(p.numel() for p in classifier.trained_parameters().values())


ways = {3: "head", 11: "lora", 1: "last_block", 4: "last_2", 5: "all", 10: "all"}  # row -> --train
figure, axes = plt.subplots(figsize=(7.2, 3.2))
for line, number in enumerate(ways):
    mean, low, high = mean_interval(test[number].dropna())
    colour, marker = (VERMILION, "s") if number == 10 else (BLUE, "o")
    axes.errorbar(mean, line, xerr=[[mean - low], [high - mean]], fmt=marker, color=colour, capsize=4)
first_nano = GPT2Config(n_layer=6, n_embd=128, n_head=4, n_positions=256)
labels = [f"{policy}: {trained_parameters(policy, first_nano):,}" for policy in ways.values()]
labels[-1] += "\nfrom random weights"
axes.set_yticks(range(len(ways)), labels)
axes.invert_yaxis()
axes.set(xlabel="test accuracy (%)", ylabel="trained parameters")
axes.grid(axis="x")
plt.show()

# %% [markdown]
# More parameters are not the same as more accuracy: the step from the head to one block is the large one.
# LoRA trains about as many numbers as one block holds, spread over all of them. On a CPU that saves no time,
# since the gradients have to pass through every block. Where it shines is memory: with a model of billions of
# parameters, the gradients and the optimizer's state of all of them would not fit.
#
# ## Without the mask
#
# Row 17 takes the causal mask away: the same weights, but each token attends to the whole text, as in BERT.
# One switch, and the picture of chapter 7, how strongly each vector is moved by each token, is no longer a
# triangle.


# %%
def reach(model, ids):
    """Share of the influence of each token (columns) on each vector (rows)."""
    embedded = model.embed(ids).detach().requires_grad_(True)
    stream = embedded
    for block in model.blocks:
        stream = block(stream)
    hidden = model.norm(stream)[0]  # (T, C)
    direction = torch.randn(hidden.shape[1], generator=torch.Generator().manual_seed(1))
    rows = [
        torch.autograd.grad(h @ direction, embedded, retain_graph=True)[0][0].norm(dim=-1) for h in hidden
    ]
    rows = torch.stack(rows)
    return rows / rows.sum(dim=1, keepdim=True)


words = ["You", " have", " won", " a", " free", " holiday"]
ids = torch.tensor([encode("".join(words))])
masked, open_ = reach(model, ids), reach(load_pretrained(MODEL).drop_causal_mask(), ids)
assert (masked.triu(1) == 0).all()
assert (open_ > 0).all()

figure, grid = plt.subplots(1, 2, figsize=(7.2, 3.4), sharey=True)
for axes, shares, title in zip(grid, (masked, open_), ("causal", "no causal mask"), strict=True):
    image = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=60)
    axes.set_xticks(
        range(len(words)), [w.strip() for w in words], rotation=45, ha="right", rotation_mode="anchor"
    )
    axes.set_yticks(range(len(words)), [w.strip() for w in words])
    axes.set(title=title, xlabel="… is moved by this one")
    axes.spines[:].set_visible(True)
grid[0].set_ylabel("the vector of this token …")
figure.colorbar(image, ax=grid, label="share of the influence (%)", extend="max")
plt.show()

# %% [markdown]
# On the right every token takes up what stands behind it as well, though the weights never saw that side
# when they were trained. In return the network has lost its old trade: it would have to predict a token that
# it can see. `lm_logits` refuses.
#
# ## Exercises
#
# **1.** Row 18 gives the loss `ignore_index=50256`, the padding token. Show that with two classes it changes
# neither the loss nor its gradient, and that it would change both if one of the targets were 50256.

# %% tags=["solution"]
logits = torch.randn(8, 2, generator=torch.Generator().manual_seed(2)).requires_grad_(True)
targets = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])
plain, ignoring = F.cross_entropy(logits, targets), F.cross_entropy(logits, targets, ignore_index=50256)
assert torch.equal(plain, ignoring)
(gradient,), (other,) = (torch.autograd.grad(loss, logits) for loss in (plain, ignoring))
assert torch.equal(gradient, other)

targets[3] = 50256  # no class of ours: only ignoring it is possible
without = F.cross_entropy(logits[targets != 50256], targets[targets != 50256])
torch.testing.assert_close(F.cross_entropy(logits, targets, ignore_index=50256), without)
assert without != plain
print(f"loss {plain.item():.4f} both ways; with one target of 50256: {without.item():.4f}")

# %% [markdown]
# **2.** After training, A and B can be merged into W, and the network is as fast as before. Do it for
# `mine`. Then count: how many parameters does LoRA with r = 16 on every linear layer of the blocks train in
# gpt2-small, its two-way head included?

# %% tags=["solution"]
with torch.no_grad():
    merged = nn.Linear(linear.in_features, linear.out_features)
    merged.weight.copy_(linear.weight + mine.scale * mine.B @ mine.A)
    merged.bias.copy_(linear.bias)
    torch.testing.assert_close(merged(x), mine(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(merged.weight, library.weight)

C, n_layer, r = 768, 12, 16
by_hand = n_layer * r * ((C + 3 * C) + (C + C) + (C + 4 * C) + (4 * C + C)) + (2 * C + 2)
assert by_hand == trained_parameters("lora", PRESETS["gpt2-small"])
print(f"{by_hand:,} parameters")

# The book's query, key and value are three layers, with an A each, and its head has an adapter instead of
# learning as a whole. So it counts 2,666,528.
assert by_hand - (2 * C + 2) + n_layer * r * 2 * C + r * (C + 2) == 2_666_528

# %% [markdown]
# **3.** Two classifiers are equally good: each is right with probability 0.97 on each of 300 messages,
# independently. How often do their measured accuracies differ by a full point or more? And how often does the
# best of twelve such classifiers beat a thirteenth by a full point?

# %% tags=["solution"]
rng = np.random.default_rng(0)
scores = rng.binomial(300, 0.97, size=(100_000, 13)) / 3  # percent
differ = np.mean(abs(scores[:, 0] - scores[:, 1]) > 0.999)
best = np.mean(scores[:, 1:].max(axis=1) - scores[:, 0] > 0.999)
assert best > differ > 0.3
print(
    f"two differ by a point in {differ:.0%} of the cases; the best of twelve is a point ahead in {best:.0%}"
)

# %% [markdown]
# ## What changed from the book
#
# | | the book | here |
# | --- | --- | --- |
# | the variants | options of one script, run one by one | a table of options, run and resumed by one command |
# | runs of each | one | one for each seed, with an interval; differences are paired |
# | a seed changes | it is fixed to 123 | the messages drawn, the split, the head and the order |
# | `ignore_index` | a run of its own | row 1 again, to the last bit; a test trains both |
# | mean of all positions | padding included | real tokens only |
# | no causal mask | a buffer is zeroed | a switch of the network, saved with the classifier |
#
# Next: [chapter 12, why it is fast](12_speed.ipynb).
