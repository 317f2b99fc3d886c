# %% [markdown]
# # 6. Asking and probing
#
# The network of chapter 5 continues any text. Can it tell spam from ham? We find out in two ways: by *asking*,
# which needs no labels, and by *probing*, which needs a few. A probe turns out to be a classification head.
#
# **What you will learn**
#
# - how to get an answer out of a language model by comparing two continuations, and to calibrate it;
# - a linear probe: logistic regression on frozen mean vectors, beside the majority class and TF-IDF;
# - why a score belongs to the messages it was measured on.
#
# <details><summary>中文提要</summary>
#
# 语言模型只会续写。本章用两种办法考察它是否分得清垃圾短信。第一种是提问（zero-shot）：不用标注，比较两个续写的
# 对数似然（log-likelihood），再用"空消息"做上下文校准（contextual calibration）。第二种是线性探针（linear probe）：
# 冻结（frozen）网络，取每条短信的平均向量，只训练一个逻辑回归，并在同样的短信、同样的划分上与多数类、TF-IDF 和未经
# 预训练的网络比较。预训练读过的邮件里也有垃圾邮件，但没有标签。探针就是在冻结特征上训练的输出头（head）。
# 最后看分布偏移（shift）：换一批短信，分数就变了。
#
# </details>

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import torch

from gptcls import load_classifier
from gptcls.core import tokenizer
from gptcls.core.classifier import Classifier
from gptcls.data import sources, split
from gptcls.evaluation import baselines, style
from gptcls.models.pretrained import load_pretrained

style.use_style()
model = load_pretrained("gpt2-nano")
DATA = os.environ.get("COURSE_SMS", "sms-sample")  # "sms-spam" downloads UCI's 5,574 messages, 0.2 MB


def balanced(name, n=90):
    """n messages of each label, no text twice, and 1 for spam."""
    data = split.drop_duplicates(sources.load_data(name)).groupby("label").sample(n, random_state=0)
    return data["text"].tolist(), torch.tensor((data["label"] == "spam").to_numpy()).double()


texts, targets = balanced(DATA)
print(f"{len(sources.load_data(DATA)):,} messages; used here: {len(texts)}, half of them spam")

# %% [markdown]
# The outputs you see come from UCI's SMS Spam Collection; run without it, the notebook uses the 520 messages
# that come with the package, and prints other numbers. We take as many spam as ham, so that the majority
# class is right half of the time, and every accuracy can be read against 50 %.
#
# ## The prompt, and what the network expects next

# %%
QUESTION = "Is the following text 'spam'? '{}'\nAnswer:"
messages = ["You have won a £1000 prize! Call to claim", "Are we still on for dinner?", "今晚一起吃饭吗？"]
for text in messages:
    with torch.no_grad():
        ids = torch.tensor([tokenizer.encode(QUESTION.format(text))])
        logits = model.lm_logits(model(ids)[0, -1])  # (V,), for what follows
    likeliest = [tokenizer.decode([i]) for i in logits.topk(4).indices]
    ranks = {word: int((logits > logits[tokenizer.encode(word)[0]]).sum()) + 1 for word in (" Yes", " No")}
    print(f"expects {likeliest}, ranks {ranks}: {text}")
    assert min(ranks.values()) > 4

# %% [markdown]
# None of the likeliest tokens is an answer; Yes and No stand further down. `gpt2-nano` is a
# **base model**: trained to continue texts, not to answer. What a larger one does, this run does not show.
#
# ## An answer by comparison
#
# The network still finds one of two answers *likelier*. We write both ourselves and compare their
# log-likelihoods, $\sum_i \log p(a_i \mid \text{prompt}, a_{<i})$ over the tokens of the answer. This is
# **zero-shot** classification: it takes no labelled message.


# %%
def my_log_likelihood(prompts, answer):
    """log p(answer | prompt) of N prompts: (N,)."""
    tail, before = torch.tensor(tokenizer.encode(answer)), []
    with torch.no_grad():
        for prompt in prompts:
            ids = torch.cat([torch.tensor(tokenizer.encode(prompt)), tail])
            before.append(model(ids[None])[0, -len(tail) - 1 : -1])  # what precedes a token predicts it
        log_p = model.lm_logits(torch.stack(before)).log_softmax(dim=-1)  # (N, answer, V)
    return log_p[:, range(len(tail)), tail].sum(dim=1)


def ask(template, ham, spam, texts):
    """How much more likely the answer for spam is: the difference of log-likelihoods, in nats: (N,)."""
    prompts = [template.format(text) for text in texts]
    return my_log_likelihood(prompts, spam) - my_log_likelihood(prompts, ham)


questions = {
    "“spam?” No / Yes": (QUESTION, " No", " Yes"),
    "“this message is” ham / spam": ("{}\nThis message is", " ham", " spam"),
    "“it was from” her / the company": ("{}\nIt was a message from", " her", " the company"),
}
scores = {name: ask(*question, texts) for name, question in questions.items()}

# %% [markdown]
# ## Calibration
#
# One answer may be the more common phrase, whatever the message. **Contextual calibration** (Zhao et al. 2021)
# asks about messages without content and subtracts the mean of their scores: it moves the threshold. Beside
# the two accuracies stands one number without a threshold, the **AUC**: the share of the pairs of one spam
# and one ham message in which the spam has the higher score.

# %%
calls = {}  # whether the calibrated question says spam
print("plain  calibrated  AUC")
for name, question in questions.items():
    calls[name] = scores[name] > ask(*question, ("", "N/A", "…", "ok")).mean()
    plain, calibrated = [(each == targets).double().mean() for each in (scores[name] > 0, calls[name])]
    auc = (scores[name][targets == 1][:, None] > scores[name][targets == 0]).double().mean()
    print(f"{plain:5.0%}  {calibrated:10.0%}  {auc:.2f}  {name}")

# %% [markdown]
# Where the AUC is high, the network does order the messages, and calibration finds a better threshold without
# labels. Where it is below one half, spam gets the *lower* scores, and no threshold helps. Which wording works
# one only learns from labels; so the best row of three, picked on these messages, is a little too good.
#
# ## A linear probe
#
# With labels there is a shorter way: leave out the words and read the hidden vectors. The network stays
# **frozen**; each message becomes the mean of its hidden vectors, and a logistic regression
# $p(\text{spam}) = \sigma(w \cdot v + b)$ learns what to look for. This is a **probe**. It minimises
# $\frac12 \|w\|^2 + C \sum \text{cross entropy}$ over standardised vectors. We take a small $C$, 0.01, since
# there are more channels than messages to learn from.


# %%
def mean_vectors(network, texts):
    with torch.no_grad():
        ids = [torch.tensor([tokenizer.encode(text)[:256]]) for text in texts]
        return torch.cat([network(each).mean(dim=1) for each in ids]).double()  # (N, C)


def my_probe(vectors, targets, C=0.01):
    """Weight (C,) and bias of a logistic regression on the vectors, by Newton's method."""
    mean, std = vectors.mean(dim=0), vectors.std(dim=0, unbiased=False)
    X = torch.cat([(vectors - mean) / std, torch.ones(len(vectors), 1)], dim=1)  # the last is for the bias
    decay = torch.cat([torch.ones_like(mean), torch.zeros(1)])
    w = torch.zeros_like(decay)
    for _ in range(15):
        p = (X @ w).sigmoid()
        gradient = decay * w + C * X.T @ (p - targets)
        hessian = decay.diag() + C * (X.T * p * (1 - p)) @ X
        w = w - torch.linalg.solve(hessian, gradient)
    weight = w[:-1] / std  # in the units of the vectors
    return weight, w[-1] - weight @ mean


vectors = mean_vectors(model, texts)
weight, bias = my_probe(vectors, targets)
standard = (vectors - vectors.mean(dim=0)) / vectors.std(dim=0, unbiased=False)
expected = baselines.regression(0.01).set_params(tol=1e-8).fit(standard, targets).decision_function(standard)
torch.testing.assert_close(vectors @ weight + bias, torch.tensor(expected), rtol=1e-3, atol=1e-3)
print("the same scores as scikit-learn's LogisticRegression")

# %% [markdown]
# ## Like with like
#
# Ten times we draw half of the messages to train on and judge everything on the other half: the probe, TF-IDF
# with the same kind of regression, the questions (which need no training), and the same probe on networks
# that were never pretrained. Each split gives all of them the same messages, so they are compared in pairs.


# %%
def ten_splits(callers, targets):
    """The accuracies of each way to call messages spam, on ten test halves; the last is compared to all."""
    results = {name: [] for name in callers}
    for seed in range(10):
        random = np.random.RandomState(seed)
        drawn = [random.permutation(np.flatnonzero(targets == label)) for label in (0, 1)]
        train, test = (np.concatenate([rows[part::2] for rows in drawn]) for part in (0, 1))
        for name, caller in callers.items():
            results[name].append((caller(train, seed) == targets)[test].double().mean().item())
    *others, last = results
    print(f"{np.mean(results[last]):.1%}  {last}")
    for name in others:
        gain = 100 * (np.array(results[last]) - results[name])
        less = f"{gain.mean():.1f} points less, on {sum(gain > 0)} of 10 splits"
        print(f"{np.mean(results[name]):.1%}  {name}: {less}")
    return results


def by_probe(vectors, targets, train, judged=None):
    weight, bias = my_probe(vectors[train], targets[train])
    return (vectors if judged is None else judged) @ weight + bias > 0


def by_words(train, seed):
    words = baselines.tfidf_baseline().fit([texts[i] for i in train], targets[train])
    return torch.tensor(words.predict(texts))


callers = {f"asked, {name}": lambda train, seed, name=name: calls[name] for name in questions}
untrained = []
for seed in range(3):
    torch.manual_seed(seed)
    untrained.append(mean_vectors(type(model)(model.config).eval(), texts))
callers["probe, not pretrained"] = lambda train, seed: by_probe(untrained[seed % 3], targets, train)
callers["TF-IDF of words"] = by_words
callers["probe, gpt2-nano"] = lambda train, seed: by_probe(vectors, targets, train)
results = ten_splits(callers, targets)
assert np.mean(results["probe, gpt2-nano"]) > np.mean(results["probe, not pretrained"]) + 0.03

# %%
figure, axes = plt.subplots(figsize=(8, 4))
for row, (name, each) in enumerate(results.items()):
    colour = style.BLUE if name == "probe, gpt2-nano" else style.GREY
    axes.plot(100 * np.array(each), row + np.linspace(-0.25, 0.25, 10), "o", ms=5, color=colour, alpha=0.7)
    axes.plot(100 * np.mean(each), row, "|", ms=28, mew=3, color=style.VERMILION)
axes.axvline(50, color=style.GREY, ls=":")
axes.set_yticks(range(len(results)), list(results))
axes.set(xlabel="accuracy on the test half (%); dotted: majority class", xlim=(0, 100))
axes.set_title("Ten splits, a dot each; the bar is their mean")
plt.show()

# %% [markdown]
# In pretraining the network read e-mail, spam included, but without labels; still its vectors tell the two apart
# better than those of an untrained network. Whether they beat counting words, the rows show, split by split.
# (Ten splits of the same messages are not ten experiments: the dots show what one split is worth.)
#
# ## A probe is a head
#
# A classifier is a network, a pooling of its vectors, and a linear layer on top, the **head**. Ours has two
# outputs, one per label, and softmax over $(0, z)$ is $\sigma(z)$. So the probe's numbers fit in as they are:

# %%
network = Classifier(model, n_outputs=2, pooling="mean")
network.head.weight.data = torch.stack([0 * weight, weight]).float()
network.head.bias.data = torch.stack([0 * bias, bias]).float()
ids = torch.tensor([tokenizer.encode(texts[0])])
p = network(ids, torch.tensor([ids.shape[1]])).softmax(dim=-1)[0, 1]  # 1 is spam
torch.testing.assert_close(p, (vectors[0] @ weight + bias).sigmoid().float(), rtol=1e-3, atol=1e-4)
print(f"the classifier with the probe as its head: p(spam) = {p:.4f} for the first message, as by the probe")

# %% [markdown]
# The next chapters train a head by small steps instead, and may go on to change the network below it.
#
# ## Other messages
#
# A score belongs to messages like those it was measured on. The package's own messages were written for this
# course. On the same halves of them we judge a probe trained on the other half, one trained on as many of the
# collection's (where that is loaded), and `sms-spam-nano`, the classifier that ships, trained on the collection.

# %%
own_texts, own_targets = balanced("sms-sample")
own_vectors = mean_vectors(model, own_texts)
shipped = torch.tensor([label == "spam" for label in load_classifier(precision="fp32").predict(own_texts)])
callers = {"sms-spam-nano": lambda train, seed: shipped}
if DATA != "sms-sample":
    callers["probe, on the collection"] = lambda train, seed: by_probe(vectors, targets, train, own_vectors)
callers["probe, on the other half"] = lambda train, seed: by_probe(own_vectors, own_targets, train)
shift = ten_splits(callers, own_targets)

# %% [markdown]
# The two probes have the same features and as many labels; only the messages that they learnt from differ.
# This is called **shift**. It also bears on the shipped classifier: far more labels, none of this kind.
#
# ## Exercises
#
# **1.** ★ Divide the probabilities of K answers by those for an empty message, and normalise each row again.
#
# <details><summary>中文</summary>把 K 个答案的概率除以空消息的概率，再归一化，使每行之和为 1。</details>


# %% tags=["your-turn"]
def calibrated(p, p_empty):  # (N, K), (K,) -> (N, K)
    """Your turn."""


# check
import torch

got = calibrated(torch.tensor([[0.9, 0.1], [0.4, 0.6]]), torch.tensor([0.9, 0.1]))
wanted = torch.tensor([[0.5, 0.5], [0.0689655, 0.9310345]])
print("your turn" if got is None else "right" if torch.allclose(got, wanted) else f"not yet: {got.tolist()}")


# %% tags=["wrong"]
def calibrated(p, p_empty):  # each row no longer sums to 1
    return p / p_empty


# %% tags=["solution"]
def calibrated(p, p_empty):
    quotient = p / p_empty
    return quotient / quotient.sum(dim=1, keepdim=True)


# %% [markdown]
# **2.** ★★ Standardise a training and a test part for a probe (`unbiased=False`), with no leak from test to train.
#
# <details><summary>中文</summary>标准化训练集和测试集的向量（标准差用 `unbiased=False`），但不能让测试集的信息泄漏（leak）到训练里。</details>


# %% tags=["your-turn"]
def standardise(train, test):  # (N, C), (M, C) -> (N, C), (M, C)
    """Your turn."""


# check
import torch

got = standardise(torch.tensor([[0.0], [2.0]]), torch.tensor([[5.0]]))
good = got is not None and got[0].flatten().tolist() == [-1, 1] and got[1].item() == 4
print("your turn" if got is None else "right" if good else f"not yet: {got}; use mean and std of train")


# %% tags=["wrong"]
def standardise(train, test):  # each by its own numbers: the parts are no longer comparable
    return [(part - part.mean(dim=0)) / part.std(dim=0, unbiased=False) for part in (train, test)]


# %% tags=["solution"]
def standardise(train, test):
    mean, std = train.mean(dim=0), train.std(dim=0, unbiased=False)
    return (train - mean) / std, (test - mean) / std


# %% [markdown]
# **3.** ★★★ Two classifiers answered the same N messages. Give the difference of their accuracies and its
# 95 % interval, mean ± 1.96 standard errors, *paired*: the standard error is that of the N differences.
#
# <details><summary>中文</summary>两个分类器回答了同样的 N 条短信。求准确率之差及其 95% 置信区间，要按配对的差来算。</details>


# %% tags=["your-turn"]
def paired(right, other):  # two arrays (N,) of 0 and 1 -> difference, low, high
    """Your turn."""


# check
import numpy as np

a, b = np.array([1, 1, 1, 0] * 25), np.array([1, 1, 0, 0] * 25)
got, wanted = paired(a, b), (0.25, 0.25 - 1.96 * 0.0433013, 0.25 + 1.96 * 0.0433013)
print("your turn" if got is None else "right" if np.allclose(got, wanted, atol=2e-3) else f"not yet: {got}")


# %% tags=["wrong"]
def paired(right, other):  # as if the messages were different ones: too wide
    error, gain = np.sqrt((right.var() + other.var()) / len(right)), right.mean() - other.mean()
    return gain, gain - 1.96 * error, gain + 1.96 * error


# %% tags=["solution"]
import numpy as np


def paired(right, other):
    gain = right - other
    mean, error = gain.mean(), gain.std() / np.sqrt(len(gain))
    return mean, mean - 1.96 * error, mean + 1.96 * error


print(np.round(paired(np.array([1, 1, 1, 0] * 25), np.array([1, 1, 0, 0] * 25)), 3))

# %% [markdown]
# ## Quiz
#
# <details><summary><b>Five questions</b></summary>
#
# 1. What is zero-shot? <details><summary>Answer</summary>Answering without labelled examples.</details>
# 2. AUC 0.9, accuracy 50 %: how? <details><summary>Answer</summary>A good order, a bad threshold.</details>
# 3. What does a probe train? <details><summary>Answer</summary>One linear layer; the network is frozen.</details>
# 4. Why probe an untrained network? <details><summary>Answer</summary>To see what pretraining adds to the same design.</details>
# 5. Why compare on the same messages? <details><summary>Answer</summary>Some are harder: pairs cancel that.</details>
# </details>
#
# Next: [7. The data](07_data.ipynb)
