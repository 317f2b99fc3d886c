# %% [markdown]
# # 10. What happens inside
#
# Training made a language model into a classifier. What changed inside? We look at every depth before and
# after, draw the vectors that the head reads, and switch attention heads off.
#
# **What you will learn**
#
# - to read the network at every depth: the *logit lens*, and a probe by layer;
# - how fine-tuning pulls the two classes apart, and what the network can then no longer do;
# - how much single attention heads matter, with the noise beside it.
#
# <details><summary>中文提要</summary>
#
# logit lens 把每一层的隐藏状态 (hidden state) 直接接到输出头上，看模型在这一深度“会写什么”；微调 (fine-tuning) 之后，同样看每一层的垃圾短信得分。
# 探针 (probe) 是在隐藏状态上拟合的逻辑回归：平均向量里的信息微调前就有，微调可能把它带到了输出头读取的最后一个词元 (last token)，但五次抽样未必能证实。
# 再把这些向量投影到二维 (PCA)，比较微调前后两类是否分开。最后逐个关掉注意力头 (attention head)，看判断变差多少。
# 数字来自五次抽样，附 95% 置信区间 (confidence interval)。微调之后，它不宜再当语言模型用。
#
# </details>

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from gptcls.core import tokenizer
from gptcls.core.classifier import Classifier
from gptcls.data import sources, split
from gptcls.evaluation import intervals, style
from gptcls.models.pretrained import load_pretrained

style.use_style()
torch.set_num_threads(1)  # matrices this small are not worth sharing out
DATA = os.environ.get("COURSE_SMS", "sms-sample")  # "sms-spam" downloads UCI's 5,574 messages, 0.2 MB

# %% [markdown]
# ## Five draws of the messages
#
# Each has 120 to train on and 80 to judge by, half spam: chance is 50 %. To be quick, the network reads the
# first 24 tokens of a message. The outputs you see come from UCI's SMS Spam Collection; run without it, the
# notebook uses the 520 messages that come with the package, and prints other numbers.

# %%
frame = split.drop_duplicates(sources.load_data(DATA))
rows = [tokenizer.encode(text, max_length=24) for text in frame["text"]]
spam = torch.tensor((frame["label"] == "spam").tolist()).long()
TRAIN, TEST = (torch.tensor([0] * n + [1] * n) for n in (60, 40))  # the classes of a draw's rows
DRAWS = []  # row numbers of training and test messages, ham before spam in both
for seed in range(5):
    torch.manual_seed(seed)
    ham, junk = (torch.where(spam == c)[0][torch.randperm(int((spam == c).sum()))].tolist() for c in (0, 1))
    DRAWS.append((ham[:60] + junk[:60], ham[60:100] + junk[60:100]))
print(f"{len(frame):,} messages, {int(spam.sum())} of them spam")

# %% [markdown]
# ## The state at every depth
#
# A block adds to its input and passes the sum on. So there is a hidden state after the embedding and after
# each block, all of one width. The **logit lens** puts the output head on each of them: which token would the
# model write next, were this depth the last?


# %%
@torch.no_grad()
def my_states(network, ids):  # T token ids -> (L + 1, T, C): after the embedding and after each block
    states = [network.embed(torch.tensor([ids]))]
    for block in network.blocks:
        states.append(block(states[-1]))
    return torch.cat(states)


network = load_pretrained("gpt2-nano").eval()
L, H, C = network.config.n_layer, network.config.n_head, network.config.n_embd
ids = tokenizer.encode("Are you coming to the party")
with torch.no_grad():
    torch.testing.assert_close(network.norm(my_states(network, ids)[-1:]), network(torch.tensor([ids])))
    for prompt in ("Are you coming to the", "Thank you very", "Call me when you get"):
        states = my_states(network, tokenizer.encode(prompt))[:, -1]
        top = network.lm_logits(network.norm(states)[None])[0].topk(4).indices
        print(prompt)
        for depth, ids in enumerate(top.tolist()):
            print(f"   depth {depth}:", "  ".join(repr(tokenizer.decode([i])) for i in ids))

# %% [markdown]
# At depth 0 the answer depends on the last token (and its place) alone; deeper the rest of the prompt comes in.
#
# ## Fine-tuning
#
# Now five classifiers, one for each draw, with all blocks trained: the loop of chapter 9, two epochs.


# %%
def batch_of(part):  # N row numbers -> (N, T), (N,)
    ids = [torch.tensor(rows[row]) for row in part]
    return torch.nn.utils.rnn.pad_sequence(ids, batch_first=True), torch.tensor([len(row) for row in ids])


def my_fit(train, seed, epochs=2, lr=3e-4):  # the learning rate is fixed, not tuned here
    torch.manual_seed(seed)
    classifier = Classifier(load_pretrained("gpt2-nano"), 2)  # its head reads the last token
    classifier.freeze("blocks")
    optimizer = torch.optim.AdamW(classifier.trained_parameters().values(), lr, weight_decay=0.1, fused=True)
    for batch in torch.cat([torch.randperm(len(train)) for _ in range(epochs)]).split(8):
        optimizer.zero_grad()
        logits = classifier(*batch_of([train[i] for i in batch]))
        torch.nn.functional.cross_entropy(logits, TRAIN[batch]).backward()
        optimizer.step()
    return classifier.eval()


tuned = [my_fit(train, seed) for seed, (train, _) in enumerate(DRAWS)]


def vectors(network, part):  # -> at each depth: means (N, L + 1, C), last tokens (N, L + 1, C)
    states = [my_states(network, rows[row]) for row in part]
    return torch.stack([s.mean(dim=1) for s in states]), torch.stack([s[:, -1] for s in states])


before = [[vectors(network, part) for part in parts] for parts in DRAWS]
after = [[vectors(c.backbone, part) for part in parts] for c, parts in zip(tuned, DRAWS, strict=True)]


# %% [markdown]
# ## Is it still a language model?
#
# How well do the changed blocks predict test messages? The perplexity (chapter 4), and how far the loss rises.
# In brackets stands the 95 % interval over the five draws; [chapter 14](14_what_to_train.ipynb) builds it.


# %%
def over_draws(values):  # (5, …) -> (3, …): the mean, and the ends of its interval
    return np.apply_along_axis(intervals.mean_interval, 0, values.numpy())


def interval(values):  # (5,) -> text
    return "{:6.2f} [{:.2f}, {:.2f}]".format(*over_draws(values))


@torch.no_grad()
def next_token_loss(network, part):
    logits = [network.lm_logits(network(torch.tensor([rows[row]])))[0, :-1] for row in part]
    wanted = torch.tensor([i for row in part for i in rows[row][1:]])
    return torch.nn.functional.cross_entropy(torch.cat(logits), wanted)


for name, part in (("ham", slice(0, 40, 4)), ("spam", slice(40, 80, 4))):
    old = torch.stack([next_token_loss(network, test[part]) for _, test in DRAWS])
    new = torch.stack([next_token_loss(c.backbone, d[1][part]) for c, d in zip(tuned, DRAWS, strict=True)])
    print(f"{name}: perplexity {old.mean().exp():.0f} → {new.mean().exp():.0f}, loss {interval(new - old)}")
    assert new.mean() > old.mean()

# %% [markdown]
# Worse for both classes: after fine-tuning, do not use the network as a language model.
#
# ## The lens on the classifier
#
# The same with the new head, which was trained for the last depth only: at each depth the spam logit minus the
# ham logit at a test message's last token, median by class, and the share of right answers.

# %%
with torch.no_grad():
    logits = torch.stack([c.head(c.backbone.norm(a[1][1])) for c, a in zip(tuned, after, strict=True)])
gaps = logits[..., 1] - logits[..., 0]  # (draw, message, depth)
for depth in range(L + 1):
    ham, junk = (gaps[:, c == TEST, depth].median() for c in (0, 1))
    right = ((gaps[..., depth] > 0) == (TEST == 1)).float().mean(dim=1) * 100
    print(f"depth {depth}: ham {ham:6.2f}, spam {junk:6.2f}; right answers, per cent: {interval(right)}")

# %% [markdown]
# ## A probe at every depth
#
# A **probe** asks another question: not what this head says, but what *any* line could find. At each depth a
# logistic regression is fitted on vectors of the training messages, the mean or the last token's, and tested.


# %%
def probe(train, test):  # two (N, C), -> per cent of right answers
    mean, std = train.mean(dim=0), train.std(dim=0)
    line = LogisticRegression(C=0.01, max_iter=1000).fit((train - mean) / std, TRAIN)
    return 100 * line.score((test - mean) / std, TEST)


def probes(side, k):  # k: 0 the means, 1 the last tokens; -> (5, L + 1): draw, depth
    return torch.tensor([[probe(a[k][:, d], b[k][:, d]) for d in range(L + 1)] for a, b in side])


figure, grid = plt.subplots(1, 2, figsize=(9, 4), sharey=True)
for k, (axes, what) in enumerate(zip(grid, ("mean of all tokens", "last token"), strict=True)):
    runs = probes(before, k), probes(after, k)
    for scores, colour, name in zip(runs, (style.GREY, style.BLUE), ("before", "after"), strict=True):
        mean, _, high = over_draws(scores)
        places = np.arange(L + 1) + 0.06 * (name == "after")
        axes.errorbar(places, mean, high - mean, fmt="o-", color=colour, lw=2, capsize=4, label=name)
    axes.set(title=what, xlabel="depth (0: embedding)", xticks=range(L + 1))
    for depth, gain in enumerate((runs[1] - runs[0]).T):
        print(f"{what}, depth {depth}: after minus before, points: {interval(gain)}")
grid[0].set_ylabel("right answers of the probe (%)")
axes.legend()
plt.show()
assert runs[1][:, L].mean() > runs[0][:, L].mean()

# %% [markdown]
# The mean vectors held it before: where an interval holds 0, no gain is shown. The last token, which the head
# reads, held less: does fine-tuning bring there what the network knew, or can five draws not tell?
#
# ## The picture: before and after
#
# The vectors that the head reads, in the two directions in which the training messages of the draw vary most
# (**PCA**, fitted for each side apart). The dots are test messages of the first draw.


# %%
def flat(network, parts):  # -> (N, 2) of the training and of the test messages
    with torch.no_grad():
        train, test = (network.norm(lasts[:, -1]) for _, lasts in parts)
    directions = torch.linalg.svd(train - train.mean(dim=0), full_matrices=False).Vh[:2]
    return (train - train.mean(dim=0)) @ directions.T, (test - train.mean(dim=0)) @ directions.T


figure, grid = plt.subplots(1, 2, figsize=(9, 4.2))
found = torch.zeros(2, 5)  # per cent of right answers of a line in these two dimensions
for i, (axes, side) in enumerate(zip(grid, (before, after), strict=True)):
    for j, parts in enumerate(side):
        train, test = flat(tuned[j].backbone if i else network, parts)
        found[i, j] = probe(train, test)
        for c, colour, mark in ((0, style.BLUE, "o"), (1, style.ORANGE, "^")) if j == 0 else ():
            axes.plot(*test[c == TEST].T, mark, color=colour, alpha=0.8, label=("ham", "spam")[c])
    axes.set(title=("before", "after")[i], xlabel="first direction", ylabel="second direction")
grid[0].legend()
plt.show()
print("right by a line in these, %: before", interval(found[0]), "gain", interval(found[1] - found[0]))
assert found[1].mean() > found[0].mean()

# %% [markdown]
# Before, a line in two directions finds the class of many messages already; after fine-tuning, of more.
#
# ## Heads switched off
#
# Each head fills its own slice of the vector that `proj` reads. To switch a head off, set the columns of
# `proj` that read its slice to zero. We measure the margin, the right logit minus the wrong one.


# %%
@torch.no_grad()
def margin(classifier, part):
    logits = classifier(*batch_of(part))
    return ((logits[:, 1] - logits[:, 0]) * (2 * TEST[::4] - 1)).mean().item()


lost = torch.zeros(5, L, H + 1)  # of the margin, in per cent; the last column: all heads of the block
for i, (classifier, (_, test)) in enumerate(zip(tuned, DRAWS, strict=True)):
    whole = margin(classifier, test[::4])
    for layer, block in enumerate(classifier.backbone.blocks):
        weight = block.attn.proj.weight.detach()  # the same memory
        saved = weight.clone()
        for column in range(H + 1):
            weight[:, slice(column * C // H, (column + 1) * C // H) if column < H else slice(None)] = 0
            lost[i, layer, column] = 100 * (whole - margin(classifier, test[::4])) / whole
            weight.copy_(saved)
mean, _, high = over_draws(lost)  # (L, H + 1)
half = high - mean
figure, axes = plt.subplots(figsize=(8.5, 4))
image = axes.imshow(mean, cmap="PuOr_r", vmin=-75, vmax=75, aspect="auto")
for (layer, column), value in np.ndenumerate(mean):
    axes.text(column, layer, f"{value:+.0f} ± {half[layer, column]:.0f}", ha="center", va="center")
axes.set_xticks(range(H + 1), [*(f"head {h}" for h in range(H)), "all heads"])
axes.set_yticks(range(L), [f"block {i}" for i in range(L)])
figure.colorbar(image, ax=axes, label="margin lost by switching off (%)", extend="both")
plt.show()
single = mean[:, :H]
clear, luck = int((abs(single) > half[:, :H]).sum()), 0.05 * L * H
print(f"{clear} of {L * H} single heads have an interval without 0, luck alone would give about {luck:.1f};")
print(f"the largest loss by one head {single.max():.0f} %, by all heads of a block {mean[:, H].max():.0f} %")
more = lost[..., H] - lost[..., :H].sum(dim=-1)  # (draw, block)
print("all heads minus the sum of the four, block by block:", *(interval(each) for each in more.T))

# %% [markdown]
# Each cell is the mean over five networks ± half its interval: where ± is larger than the number, nothing is
# shown. Where all heads together cost more than the sum of the four, one may have made up for another.
#
# ## Exercises
#
# **1.** ★ Of the C channels that `proj` reads, which belong to head h of H, counted from 0? Give the first of them
# and the one behind the last.
#
# <details><summary>中文</summary>`proj` 读取的 C 个通道里，哪一段属于第 h 个注意力头（共 H 个，从 0 数起）？给出起点和终点（不含终点）。</details>

# %% tags=["your-turn"]
h, H, C = 2, 4, 256
first, behind = None, None  # your turn

# check
right = (first, behind) == (128, 192)
print("your turn" if first is None else "right" if right else f"not yet: head 2 of 4 has [{first}, {behind})")

# %% tags=["wrong"]
h, H, C = 2, 4, 256
first, behind = h * H, (h + 1) * H

# %% tags=["solution"]
h, H, C = 2, 4, 256
first, behind = h * C // H, (h + 1) * C // H
print(first, behind)

# %% [markdown]
# **2.** ★★ The lens names one token at each depth. From which depth on is it the final one, without a break?
#
# <details><summary>中文</summary>logit lens 在每一层给出一个词元。从哪一层起，它一直就是最后的答案？</details>


# %% tags=["your-turn"]
def settles(tops):  # the top token at depth 0, 1, … -> a depth
    """Your turn."""


# check
got = settles(["a", "home", "a", "home", "home"]), settles(["the", "the"])
print("your turn" if got[0] is None else "right" if got == (3, 0) else f"not yet: {got}, not (3, 0)")


# %% tags=["wrong"]
def settles(tops):
    return tops.index(tops[-1])


# %% tags=["solution"]
def settles(tops):
    return max((depth + 1 for depth, top in enumerate(tops) if top != tops[-1]), default=0)


print("from depth", settles(["a", "home", "a", "home", "home"]))

# %% [markdown]
# **3.** ★★★ Zero is an unusual output for a head. A gentler switch puts the mean over all rows in its place.
# Write it for one column of a list of rows, and leave the other columns alone.
#
# <details><summary>中文</summary>更温和的关法：把某一列换成它在所有行上的平均值，而不是零；其余列不变。</details>


# %% tags=["your-turn"]
def mean_off(rows, column):
    """Your turn."""


# check
got = mean_off([[1, 2, 3], [3, 6, 9]], 1)
print("your turn" if got is None else "right" if got == [[1, 4, 3], [3, 4, 9]] else f"not yet: {got}")


# %% tags=["wrong"]
def mean_off(rows, column):
    return [[*row[:column], sum(row) / len(row), *row[column + 1 :]] for row in rows]


# %% tags=["solution"]
def mean_off(rows, column):
    mean = sum(row[column] for row in rows) / len(rows)
    return [[*row[:column], mean, *row[column + 1 :]] for row in rows]


print(mean_off([[1, 2, 3], [3, 6, 9]], 1))

# %% [markdown]
# ## Quiz
#
# <details><summary><b>Five questions</b></summary>
#
# 1. What does the logit lens read? <details><summary>Answer</summary>A state inside the network, through the final norm and head.</details>
# 2. How does a probe differ from the lens? <details><summary>Answer</summary>It fits a line of its own to the states of that depth.</details>
# 3. Why do before and after agree at the embedding? <details><summary>Answer</summary>The tables were not trained, so nothing changed there.</details>
# 4. Switching one head off changes little. Is it useless? <details><summary>Answer</summary>Not shown: other heads may stand in for it.</details>
# 5. Why should the fine-tuned network not write texts? <details><summary>Answer</summary>It predicts next tokens worse: nothing held it to that.</details>
# </details>
#
# Next: [11. What it has learnt](11_learned.ipynb).
