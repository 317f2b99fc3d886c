# %% [markdown]
# # 4. Pretraining a nano
#
# Chapter 3's network wrote noise until it had gpt2-nano's weights. Weights come from predicting the next token,
# again and again. We train a tiny GPT of our own for a few seconds, and then look at stages of gpt2-nano's
# pretraining: how well each predicts, what it writes, and what a classifier could read from it.
#
# **What you will learn**
#
# - the loss of pretraining by hand, equal to the library's, and a training loop around it;
# - why a network must be judged on text that it was not trained on;
# - what changes with the number of tokens seen: perplexity, samples, and what a probe reads from the vectors.

# %% [markdown]
# <details><summary>中文提要</summary>
#
# 预训练 (pretraining) 就是反复预测下一个词元 (token)：把输入右移一位作为目标，求交叉熵损失 (loss)。我们手写这个损失，
# 与库的实现核对，再用它从随机权重开始训练一个很小的 GPT，观察训练损失、留出短信上的损失和生成的样例。
# 然后读取 gpt2-nano 预训练途中保存的检查点，比较困惑度 (perplexity)、样例和线性探针 (probe) 的准确率。它读过的文本里有
# 电子邮件，其中也有垃圾邮件，但没有标签。它的词元表来自共现计数，所以"只用词元表"是公平的基线 (baseline)。这里的结果是：训练各个块
# (block) 对问题分类帮助较大，对垃圾短信帮助较小：只用词元表已经相当准。困惑度更低，分类不一定更好。
#
# </details>

# %%
import os
import sys

import matplotlib.pyplot as plt
import torch

import gptcls.pretrain.next_token
from gptcls.core import gpt2, tokenizer
from gptcls.data.sources import load_data
from gptcls.data.split import drop_duplicates
from gptcls.evaluation.style import use_style
from gptcls.models.pretrained import load_pretrained

use_style()
torch.manual_seed(123)
DATA = os.environ.get("COURSE_SMS", "sms-sample")  # "sms-spam" downloads UCI's 5,574 messages, 0.2 MB
frame = drop_duplicates(load_data(DATA)).sample(frac=1, random_state=0).reset_index(drop=True)
held, rest = frame.text[: len(frame) // 5], frame.text[len(frame) // 5 :]
print(f"{len(frame):,} different messages: {len(rest):,} to train on, {len(held):,} held out")

# %% [markdown]
# The outputs you see come from UCI's SMS Spam Collection; run without it, the notebook uses the 520 messages
# that come with the package, and prints other numbers.
#
# ## The loss by hand
#
# A text of T tokens gives T − 1 tasks: predict the next token from the first *t*. Thanks to the causal mask one
# forward pass does them all. The targets are the ids shifted by one, the loss is the mean of −ln p(target).


# %%
def my_next_token_loss(network, ids):  # (B, T) -> ()
    logits = network.lm_logits(network(ids[:, :-1]))  # (B, T - 1, V)
    return -logits.log_softmax(dim=-1).gather(-1, ids[:, 1:, None]).mean()  # of −ln p(target)


nano = load_pretrained("gpt2-nano")
ids = torch.tensor([tokenizer.encode("Are you coming home tonight? 你今晚回家吗？")])
with torch.no_grad():
    mine, hidden = my_next_token_loss(nano, ids), nano(ids[:, :-1]).flatten(0, 1)
library = gptcls.pretrain.next_token.next_token_loss  # works in pieces, to need less memory
torch.testing.assert_close(mine, library(hidden, nano.wte.weight, ids[0, 1:], torch.float32))
print(f"loss {mine:.3f}, equal to the library's; perplexity, its exponential, {mine.exp():.0f}")

# %% [markdown]
# ## A tiny GPT of our own
#
# What text is at hand? Our messages: very little for a **language model**, but we have only seconds. To be quick,
# the vocabulary holds the commonest tokens only; one more stands for all others, and one for the end of a
# message. The messages become one long row, from which we draw windows of 33 tokens.

# %%
rows = [tokenizer.encode(text) for text in rest[:3000]]
counts = torch.bincount(torch.tensor([i for row in rows for i in row]), minlength=tokenizer.VOCAB_SIZE)
common = counts.argsort(descending=True)[: min(1998, int((counts > 1).sum()))].tolist()
OTHER, END = len(common), len(common) + 1
number = {token: i for i, token in enumerate(common)}


def stream(rows):  # token ids of many messages -> (N,), in the small vocabulary
    return torch.tensor([i for row in rows for i in [*(number.get(token, OTHER) for token in row), END]])


train, other = stream(rows), stream([tokenizer.encode(text) for text in held])
config = gpt2.GPT2Config(1, n_embd=96, n_head=4, n_positions=32, vocab_size=len(common) + 2, tied=False)
tiny = gpt2.GPT2(config)  # one block, and an output table of its own
torch.nn.init.normal_(tiny.wte.weight, std=0.5)  # larger token vectors: found by trying, it learns faster
print(f"{len(train):,} tokens to train on, a vocabulary of {config.vocab_size:,}")


def my_generate(network, ids, n_new, seed, never=()):  # (T,) -> (T + n_new,), as in chapter 3
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n_new):
        with torch.no_grad():
            logits = network.lm_logits(network(ids[None]))[0, -1]  # (V,)
        logits[list(never)] = -torch.inf
        best = logits.topk(10)
        ids = torch.cat([ids, best.indices[best.values.softmax(dim=-1).multinomial(1, generator=generator)]])
    return ids


def tiny_sample():
    ids = my_generate(tiny, torch.tensor([END]), 14, seed=1, never=[OTHER])[1:].tolist()
    return tokenizer.decode([common[i] if i < OTHER else tokenizer.PAD_ID for i in ids])


# %% [markdown]
# The loop: draw windows, compute the loss, take a step of AdamW (chapter 9) with clipped gradients and a learning
# rate that rises for ten steps and then falls. For comparison, a model without any context (**unigram**): each
# token's probability is its share of the training text, whatever comes before.

# %%
STEPS, B, RATE, draws = 240, 16, 3e-3, torch.Generator().manual_seed(0)
optimizer = torch.optim.AdamW(tiny.parameters(), betas=(0.9, 0.95))
held_windows = other[: len(other) // 33 * 33].view(-1, 33)[:100]
losses, held_losses = [], {}
for step in range(STEPS + 1):
    if step % 20 == 0:
        with torch.no_grad():
            held_losses[seen := step * B * 32] = my_next_token_loss(tiny, held_windows).item()
        if step in (0, 20, 80, STEPS):
            print(f"{seen:7,} tokens, held-out loss {held_losses[seen]:.2f}: {tiny_sample()!r}")
    starts = torch.randint(len(train) - 33, (B, 1), generator=draws)
    loss = my_next_token_loss(tiny, train[starts + torch.arange(33)])
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(tiny.parameters(), 1.0)
    optimizer.param_groups[0]["lr"] = RATE * min((step + 1) / 10, 1 - step / (STEPS + 1))
    optimizer.step()
    losses.append(loss.item())

frequency = (torch.bincount(train, minlength=config.vocab_size) + 1).float()
by_share = -(frequency / frequency.sum()).log()[held_windows[:, 1:]].mean().item()
print(f"unigram: held-out loss {by_share:.2f}; ln V = {torch.tensor(config.vocab_size).log():.2f}")
own = my_next_token_loss(tiny, train[: len(train) // 33 * 33].view(-1, 33)[:100])  # text that it has read
print(f"tiny GPT at the end: {held_losses[STEPS * B * 32]:.2f}; on text that it was trained on {own:.2f}")
_, axes = plt.subplots(figsize=(8, 3.6))
axes.plot([B * 32 * step for step in range(STEPS + 1)], losses, color="C5", label="batches it is trained on")
axes.plot(list(held_losses), list(held_losses.values()), "o-", color="C1", label="held-out messages")
axes.axhline(by_share, color="black", ls="--", label="unigram: token frequencies only")
axes.set(xlabel="tokens seen (repeats included)", ylabel="loss per token (nats)", title="A tiny GPT learns")
axes.legend()
plt.show()
assert min(held_losses.values()) < min(by_share, held_losses[0] - 1.5)

# %% [markdown]
# To know only which tokens are common is worth the dashed line; what gets below it uses what came before. The
# samples have turned from random tokens into words that may follow each other, no more. The held-out loss is the
# one that counts: where the loss on the training text is lower, part of that may be these messages, remembered.
#
# ## gpt2-nano's own pretraining
#
# gpt2-nano read books, interviews, chats, messages, e-mail (spam included, but without labels) and more, listed in
# its model card, but none of the messages measured here. Its weights at some stages are kept in the repository,
# named after the tokens seen by then. Random weights are our zero point.
#
# But nano's **token table did not start random**: it was computed from counts of which tokens stand near which,
# and stood still for the first 13.1 million tokens. So "better than random?" is not enough; we also ask
# "better than the table?".

# %%
networks = {"random": gpt2.GPT2(nano.config).eval()}
sys.path.insert(0, os.path.dirname(os.path.dirname(gptcls.__file__)))  # the root of a clone
try:
    from benchmarks import nano_steps

    networks |= {f"{seen / 1e6:.1f} M": nano_steps.load_step(seen) for seen in nano_steps.kept()}
except ImportError:
    print("the stages of the pretraining come with the repository, not with the package: two networks only")
networks["finished"] = nano

# %% [markdown]
# First the loss on 30 held-out messages. Its exponential, the **perplexity**, is the number of equally likely
# tokens that would give the same loss. The changes from line to line are paired by message, ± for 95 %.

# %%
messages = [ids for text in held[:100] if 8 <= len(ids := tokenizer.encode(text)) <= 40][:30]
before = None
for name, network in networks.items():
    with torch.no_grad():
        loss = torch.stack([my_next_token_loss(network, torch.tensor([ids])) for ids in messages])
    more = "" if before is None else f", change of the loss {(loss - before).mean():+.2f}"
    more += "" if before is None else f" ± {1.96 * (loss - before).std() / len(messages) ** 0.5:.2f}"
    print(f"{name:9}: loss {loss.mean():5.2f}, perplexity {loss.mean().exp():8,.0f}{more}")
    before = loss

# %% [markdown]
# Most of it is learnt early. (Between the last two lines lie 32 million tokens, in which the table learnt too, says the
# card; that may be why the last one gains more here than the one before.) What do they write? Two prompts, one seed:

# %%
for name, network in networks.items():
    for prompt in ("See you", "Where"):
        ids = my_generate(network, torch.tensor(tokenizer.encode(prompt)), 12, seed=3)
        print(f"{name:9}: {tokenizer.decode(ids.tolist())!r}")

# %% [markdown]
# From noise to something like sentences; to put the later stages in order, these samples are too few.
#
# ## What could a classifier read from it?
#
# Predicting tokens is not our aim. A **linear probe** measures how much of a label can be read from frozen
# vectors: we take the mean of a text's vectors and fit a linear function on it, by least squares with a
# penalty, for which there is a formula. Two tasks: is a message spam, and what does a question ask for?


# %%
def mean_vectors(network, texts, blocks=True):  # -> (N, C)
    with torch.no_grad():
        ids = [torch.tensor([tokenizer.encode(text)[:32]]) for text in texts]
        return torch.stack([(network if blocks else network.wte)(row)[0].mean(dim=0) for row in ids])


def my_ridge(x, y, train, test):  # (N, C), (N,) -> the share of test rows that are right
    x = (x - x[train].mean(dim=0)) / x[train].std(dim=0)
    targets = torch.nn.functional.one_hot(y[train]).float()  # (n, K)
    offset = targets.mean(dim=0)
    gram = x[train].T @ x[train] + 300 * torch.eye(x.shape[1])
    weights = torch.linalg.solve(gram, x[train].T @ (targets - offset))  # (C, K)
    return ((x[test] @ weights + offset).argmax(dim=-1) == y[test]).float().mean().item()


def probes(texts, labels, n):  # -> {network: (20,)}: fitted on n texts, judged on the others, 20 splits
    y = torch.tensor([sorted(set(labels)).index(label) for label in labels])
    stage = list(networks.values())[1]  # the first stage; its table is still that of the counts
    vectors = {"table": mean_vectors(stage, texts, blocks=False)}
    vectors |= {name: mean_vectors(network, texts) for name, network in networks.items()}
    orders = [torch.randperm(len(y), generator=torch.Generator().manual_seed(seed)) for seed in range(20)]
    return {k: torch.tensor([my_ridge(x, y, o[:n], o[n:]) for o in orders]) for k, x in vectors.items()}


half = frame.groupby("label").head(min(120, *frame.label.value_counts()))  # as much spam as ham
tasks = {"spam or not": (list(half.text), list(half.label), 80)}
if os.path.exists(questions := os.path.join(sys.path[0], "dataset", "questions.tsv")):
    asked = load_data(questions)
    tasks["what a question asks for"] = (list(asked.text), list(asked.label), 102)
results = {name: probes(*task) for name, task in tasks.items()}
for task, found in results.items():
    texts, labels, n = tasks[task]
    majority = max(map(labels.count, labels)) / len(labels)
    print(f"{task}: {len(texts)} texts, {n} of them to fit the probe; majority class {majority:.0%}")
    for name, scores in found.items():
        wins = f"; better than the table in {(scores > found['table']).sum()} of 20"
        print(f"  {name:9} {scores.mean():.1%}, spread {scores.std():.1%}{'' if name == 'table' else wins}")
    assert found["finished"].mean() > found["random"].mean() + 0.05

figure, axes = plt.subplots(figsize=(8, 4))
for (task, found), colour in zip(results.items(), ("C0", "C1"), strict=False):
    means, spreads = zip(*((100 * found[k].mean(), 100 * found[k].std()) for k in networks), strict=True)
    axes.errorbar(list(networks), means, spreads, fmt="o-", capsize=4, color=colour, label=task)
    axes.axhline(100 * found["table"].mean(), color=colour, ls="--", label=f"{task}: table alone")
axes.set(xlabel="tokens seen in pretraining", ylabel="right answers (%), mean and spread", ylim=(0, 100))
axes.set_title("What a linear probe reads from the stages of gpt2-nano")
axes.legend(loc="lower right")
plt.show()

# %% [markdown]
# A dashed line is what the counted token table gives without any block; what lies above it comes from training.
# In the outputs shown here this is worth more points for questions than for spam, and the last step, clear in
# the perplexity, hardly shows in either probe. A lower perplexity need not make a better classifier.
# (The 20 splits share their texts: the spread tells of the split, not of other texts.)
#
# ## Exercises
#
# **1.** ★ A network gave the tokens of a text these probabilities. What is its perplexity?
#
# <details><summary>中文</summary>已知网络给文本中各个词元的概率，求困惑度。</details>


# %% tags=["your-turn"]
def perplexity(probabilities):  # a list of numbers -> a number
    """Your turn."""


# check
got = perplexity([0.5, 0.125])
right = got is not None and abs(got - 4) < 1e-6
print("your turn" if got is None else "right" if right else f"not yet: {got}; the mean is over logarithms")


# %% tags=["wrong"]
def perplexity(probabilities):
    return len(probabilities) / sum(probabilities)


# %% tags=["solution"]
import math


def perplexity(probabilities):
    return math.exp(-sum(map(math.log, probabilities)) / len(probabilities))


# %% [markdown]
# **2.** ★★ To judge a network on one long row of ids, cut it into pairs of inputs and targets, T tokens each, so
# that every token but the first is a target exactly once; leave out what does not fill a pair.
#
# <details><summary>中文</summary>把一长串词元切成（输入，目标）对，各 T 个；除第一个词元外，每个词元恰好当一次目标。</details>


# %% tags=["your-turn"]
def pairs(ids, T):  # list -> list of (inputs, targets)
    """Your turn."""


# check
got = pairs([5, 6, 7, 8, 9, 10, 11, 12], 3), pairs([5, 6, 7, 8, 9, 10, 11], 3)
right = got == ([([5, 6, 7], [6, 7, 8]), ([8, 9, 10], [9, 10, 11])],) * 2
print("your turn" if got[0] is None else "right" if right else f"not yet: {got}")


# %% tags=["wrong"]
def pairs(ids, T):
    return [(ids[i : i + T], ids[i + 1 : i + T + 1]) for i in range(0, len(ids) - T, T + 1)]


# %% tags=["solution"]
def pairs(ids, T):
    return [(ids[i : i + T], ids[i + 1 : i + T + 1]) for i in range(0, len(ids) - T, T)]


# %% [markdown]
# **3.** ★★★ Does the tiny GPT beat a table of pairs? Let $p(b|a) = (n_{ab} + 1) / (n_a + V)$, where $n_{ab}$ counts
# *a* followed by *b* in the training ids, and $n_a$ *a* followed by anything. Return p for each held-out id but
# the first. Then compare `perplexity(pair_table(train.tolist(), held_windows.flatten().tolist(), config.vocab_size))`
# with the tiny GPT's, e to its last held-out loss.
#
# <details><summary>中文</summary>小 GPT 比“词对表”好吗？按上式求每个留出词元的概率 p，用练习 1 的函数求困惑度，再与小 GPT 的困惑度
# （e 的最后一次留出损失次方）比较。</details>


# %% tags=["your-turn"]
def pair_table(train, held, V):  # lists of ids below V -> a list of probabilities
    """Your turn."""


# check
got = pair_table([0, 1, 0, 1, 0], [0, 1, 1], 2)
right = got is not None and [round(p, 4) for p in got] == [0.75, 0.25]
print("your turn" if got is None else "right" if right else f"not yet: {got} and not [0.75, 0.25]")


# %% tags=["wrong"]
def pair_table(train, held, V):
    return [(train.count(b) + 1) / (len(train) + V) for b in held[1:]]


# %% tags=["solution"]
from collections import Counter
from itertools import pairwise


def pair_table(train, held, V):
    n, first = Counter(pairwise(train)), Counter(train[:-1])
    return [(n[a, b] + 1) / (first[a] + V) for a, b in pairwise(held)]


# %% [markdown]
# ## Quiz
#
# <details><summary><b>Five questions</b></summary>
#
# 1. Who wrote the labels for pretraining? <details><summary>Answer</summary>Nobody: the next token of the text is the label.</details>
# 2. How many predictions does one forward pass over a text of T tokens train? <details><summary>Answer</summary>T − 1: the causal mask hides each answer from the position that predicts it.</details>
# 3. The training loss falls and the held-out loss rises. What is going on? <details><summary>Answer</summary>Overfitting: the network remembers its training text.</details>
# 4. Why is "random weights" alone not a fair baseline for nano's probes? <details><summary>Answer</summary>Its token table was computed from counts, before any step of training.</details>
# 5. Perplexity falls from one stage to the next. Must a probe get better? <details><summary>Answer</summary>No: what is learnt need not be what the task asks for.</details>
# </details>
#
# Next: [5. Loading GPT-2](05_loading.ipynb).
