# %% [markdown]
# # 5. Asking instead of training
#
# Chapter 4 ended with a model that continues any text. So why train anything? Write the question into the
# text, let the model continue, and read the answer. With the large assistants of today this works. With
# GPT-2 it does not, and the reasons are worth knowing, because they say what the next chapters have to
# supply.
#
# **What you will learn**
#
# - why a base model does not answer the question "Is the following text 'spam'?";
# - how to get an answer out of it nevertheless, by comparing how likely two answers are (*zero-shot*);
# - what calibration with an empty message repairs, and what it cannot;
# - how to tell a poor threshold from poor knowledge, with a score that needs no threshold.

# %%
import math
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch

from gptcls import load_classifier
from gptcls.core.batches import pad, token_budget_batches
from gptcls.core.tokenizer import decode, encode
from gptcls.data.sources import load_data
from gptcls.evaluation.metrics import classification_scores
from gptcls.evaluation.style import BLUE, GREEN, GREY, ORANGE, VERMILION, use_style
from gptcls.models.pretrained import load_pretrained
from gptcls.models.sampling import generate
from gptcls.pretrain.next_token import perplexity

use_style()
MODEL = "gpt2-nano"  # "gpt2-small" downloads 548 MB, and takes minutes here
DATA = "sms-sample"  # "sms-spam" downloads the SMS Spam Collection, and takes many minutes

# %% [markdown]
# ## The question
#
# The book asks in these words about one message. We ask about two, the second of them harmless:

# %%
model = load_pretrained(MODEL)
QUESTION = "Is the following text 'spam'? Answer with 'yes' or 'no': '{}'"
messages = [
    "You are a winner! Text CLAIM to 80455 for your £1000 cash prize",
    "Are we still on for dinner tonight? Let me know",
]
for message in messages:
    prompt = QUESTION.format(message)
    written = generate(model, torch.tensor([encode(prompt)]), 20)[0].tolist()
    print(f"{prompt}\n    goes on with {decode(written)[len(prompt) :]!r}\n")

# %% [markdown]
# No answer, and this is not because the model is small: the book's pretrained gpt2-small repeats the
# question and does not answer it either. Nobody ever taught it that a question is to be answered. It was
# trained to continue, and in what it has read a line like ours is followed by more of the same, by the end
# of the text, by anything. A model before such teaching is called a **base model**. *Instruction tuning*,
# which makes an assistant of it, is training on many thousands of questions with their answers.
#
# How far from an answer is it? Here is what the model thinks comes next, and where "Yes" and "No" stand
# among all 50,257 tokens.

# %%
ANSWERS = (" yes", " Yes", " no", " No")


def next_probabilities(prompts):
    """The probability (N, V) of every token to follow each of N texts."""
    ids, lengths = pad([encode(prompt) for prompt in prompts])
    with torch.inference_mode():
        last = model(ids)[torch.arange(len(ids)), lengths - 1]  # (N, C)
        return model.lm_logits(last).softmax(dim=-1)


def shown(token):
    return repr(decode([token])).replace("'<|endoftext|>'", "(end)")


figure, grid = plt.subplots(1, 2, figsize=(9, 4))
for axes, message in zip(grid, messages, strict=True):
    probabilities = next_probabilities([QUESTION.format(message)])[0]
    answers = [encode(word)[0] for word in ANSWERS]
    tokens = [*probabilities.topk(7).indices.tolist(), *answers]
    ranks = [int((probabilities > probabilities[token]).sum()) + 1 for token in tokens]
    bars = axes.barh(range(len(tokens)), 100 * probabilities[tokens], color=[GREY] * 7 + [VERMILION] * 4)
    axes.bar_label(bars, [f"rank {rank:,}" for rank in ranks], padding=4, size=9)
    axes.set_yticks(range(len(tokens)), [shown(token) for token in tokens], family="monospace")
    axes.invert_yaxis()
    axes.set(
        xscale="log",
        xlim=(1e-4, 1e3),
        xlabel="probability (%), logarithmic",
        title=f"“{message[:26]}…”",
    )
    axes.set_xticks([1e-4, 1e-2, 1, 100], ["0.0001", "0.01", "1", "100"])
plt.show()

# %% [markdown]
# The answers, the coloured bars, are far down the list. Is that so for every message? Count how often the
# likeliest next token is any kind of yes or no.

# %%
data = load_data(DATA)
texts = [decode(encode(text)[:180]) for text in data["text"]]  # the question must fit as well
targets = (data["label"] == "spam").to_numpy().astype(int)  # 1 is spam
answered = 0
for start in range(0, len(texts), 40):
    likeliest = next_probabilities(map(QUESTION.format, texts[start : start + 40])).argmax(dim=-1)
    answered += sum(decode([i]).strip().lower() in ("yes", "no") for i in likeliest.tolist())
print(f"{answered} of {len(texts)} messages are answered by yes or no")


# %% [markdown]
# ## An answer by comparison
#
# A model that will not say yes or no still has an opinion: one of the two is *likelier* to it. So we do not
# let it write. We write both answers ourselves, and ask how probable each is. This is **zero-shot**
# classification: it takes no labelled example.
#
# The probability of several tokens in a row is that of the first, times that of the second given the first,
# and so on. Products of small numbers vanish, so one adds logarithms; the sum is the **log-likelihood**.
# Written out token by token:


# %%
def slow_log_likelihood(prompt, continuation):
    """log p(continuation | prompt), asking the model anew for each token."""
    row, total = encode(prompt), 0.0
    for token in encode(continuation):
        with torch.inference_mode():
            logits = model.lm_logits(model(torch.tensor([row]))[:, -1])[0]
        total += logits.log_softmax(dim=-1)[token].item()
        row = [*row, token]
    return total


for answer in (" a friend", " a company"):
    value = slow_log_likelihood("Call me when you get home\nThis message is from", answer)
    print(f"log p({answer!r}) = {value:.2f}, a probability of {math.exp(value):.6f}")

# %% [markdown]
# The same for many prompts: one pass a batch gives the predictions at all positions at once, since no
# position sees what follows it (chapter 2). The position *before* a token is the one that predicts it.


# %%
def my_log_likelihood(prompts, continuations):
    """log p(continuation | prompt) of N pairs, as an array (N,)."""
    before, after = [encode(p) for p in prompts], [encode(c) for c in continuations]
    rows = [a + b for a, b in zip(before, after, strict=True)]
    result = np.zeros(len(rows))
    for batch in token_budget_batches([len(row) for row in rows], 1024):
        ids, _ = pad([rows[i] for i in batch])  # (B, T)
        # The places (row, position) of the continuations' tokens, behind those of the prompts.
        at = [(b, t) for b, i in enumerate(batch) for t in range(len(before[i]), len(rows[i]))]
        row, position = torch.tensor(at).T
        with torch.inference_mode():
            logits = model.lm_logits(model(ids)[row, position - 1])  # (n, V), n tokens of continuations
            own = logits.gather(1, ids[row, position][:, None])[:, 0]
            log_p = own - logits.logsumexp(dim=-1)
        result[batch] = torch.zeros(len(batch)).index_add(0, row, log_p)
    return result


prompts = [f"{text}\nThis message is from" for text in texts[:5]]
answers = [" a friend", " a company", " somebody that I used to know", " me", " a friend"]
mine = my_log_likelihood(prompts, answers)
slow = [slow_log_likelihood(*pair) for pair in zip(prompts, answers, strict=True)]
torch.testing.assert_close(torch.tensor(mine), torch.tensor(slow).double(), rtol=1e-4, atol=1e-4)

# %% [markdown]
# The library measures the same thing under another name: **perplexity** is exp of the mean negative
# log-likelihood a token, "between how many equally likely tokens does the model waver?"

# %%
line = encode("Running ten minutes late, could you order me a coffee please?")
whole = my_log_likelihood([decode(line[:1])], [decode(line[1:])])
my_perplexity = torch.tensor(whole / -(len(line) - 1)).exp()
torch.testing.assert_close(
    my_perplexity[0].item(), perplexity(model, torch.tensor([line])), rtol=1e-4, atol=0
)
print(f"perplexity of that message: {my_perplexity[0]:.0f}, of {model.config.vocab_size:,} for mere guessing")

# %% [markdown]
# ## Zero-shot
#
# The score of a message is the log-likelihood of the spam answer minus that of the ham answer. Above zero
# we say spam. Two questions: the one we began with, a little shorter, and one in plainer words, of the kind
# that nano has read more of.


# %%
def ask(template, ham, spam, texts):
    """Scores (N,): by how much the answer ``spam`` is likelier than the answer ``ham``."""
    prompts = [template.format(text) for text in texts]
    return my_log_likelihood(prompts, [spam] * len(texts)) - my_log_likelihood(prompts, [ham] * len(texts))


yes_or_no = partial(ask, "Is the following text 'spam'? '{}'\nAnswer:", " No", " Yes")
from_whom = partial(ask, "{}\nIt was a message from", " her", " the company")
two = {"“No” or “Yes”": yes_or_no, "“her” or “the company”": from_whom}
scores_of = {name: question(texts) for name, question in two.items()}
for name, scores in scores_of.items():
    print(f"{name}: {np.mean(scores > 0):.1%} called spam, accuracy {np.mean((scores > 0) == targets):.1%}")

# %% [markdown]
# Half of these messages are spam, and both questions call fewer of them so. One reason has nothing to do with
# the messages: one of the two answers is simply the commoner phrase. It may also be the shorter one, and
# every further token makes a sequence less likely.
#
# ## Calibration with an empty message
#
# The remedy: find out how much likelier one answer is *anyway*, by asking about a message that says
# nothing, and subtract that. Zhao et al. ("Calibrate Before Use", 2021) call this contextual calibration.
# They divide the probabilities of the answers by those for a content-free input, and normalise again. In
# logarithms a division is a difference, so all that happens is that the threshold moves:

# %%
score, empty = torch.tensor(from_whom([texts[0], ""]))
p, p_empty = (torch.stack([0 * s, s]).softmax(dim=-1) for s in (score, empty))  # ham, spam
quotient = p / p_empty
torch.testing.assert_close(quotient[1] / quotient.sum(), (score - empty).sigmoid())

NOTHING = ("", "N/A", "…", "ok")  # the paper takes several as well


def my_threshold(question):
    """What the question answers to messages without content."""
    return question(NOTHING).mean()


figure, grid = plt.subplots(1, 2, figsize=(9.4, 3.8), sharey=True)
for axes, (name, question) in zip(grid, two.items(), strict=True):
    scores, threshold = scores_of[name], my_threshold(question)
    bins = np.linspace(min(0, scores.min()), max(0, scores.max()), 41)
    for target, (label, colour, hatch) in enumerate((("ham", BLUE, ""), ("spam", ORANGE, "//"))):
        here = scores[targets == target]
        axes.hist(here, bins, alpha=0.6, color=colour, hatch=hatch, edgecolor="white", label=label)
    axes.axvline(0, color=GREY, lw=2, label="equally likely")
    axes.axvline(threshold, color=VERMILION, lw=2, ls="--", label="as likely as for an empty message")
    axes.set(title=name, xlabel="log p(spam answer) − log p(ham answer), in nats")
grid[0].set_ylabel("messages")
figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
plt.show()

# %% [markdown]
# What is right of a line is called spam. The dashed line lies nearer to the middle of the heaps than the
# grey one. For “her” or “the company” it parts ham from spam better. For “No” or “Yes” the heaps stand the
# wrong way round, most of the spam on the left, and no moving of the line mends that. Nor would any line
# separate the heaps wholly: they overlap.
#
# ## A score without a threshold
#
# So there are two ways to fail: a wrong threshold, and no knowledge. Accuracy mixes them. To see the
# knowledge alone, take all pairs of one spam and one ham message, and count in how many the spam has the
# higher score. Half is guessing, and one is perfect, wherever the threshold lies. This is the *area under
# the ROC curve*, **AUC**.


# %%
def my_auc(scores):
    """Share of the pairs (spam, ham) in which the spam scores higher; a tie counts half."""
    spam, ham = scores[targets == 1][:, None], scores[targets == 0][None]
    return ((spam > ham) + 0.5 * (spam == ham)).mean()


def judge(scores):
    """The library's scores, which want probabilities."""
    p = 1 / (1 + np.exp(-scores))
    return classification_scores(targets, np.stack([1 - p, p], axis=1), ("ham", "spam"))


for name, scores in scores_of.items():
    torch.testing.assert_close(my_auc(scores), judge(scores)["roc_auc"])
    print(f"{name}: AUC {my_auc(scores):.3f}")

# %% [markdown]
# Below one half means that the answers tend to be the wrong way round.
#
# ## The other way round
#
# One can also turn the question over: not "which label follows this message?" but "after which label is
# this message likely?" Then the message is the continuation, and all of its tokens take part instead of
# one or two (the *noisy channel*, Min et al. 2022). Here is that as well, below several wordings of the
# first way.


# %%
def channel(ham, spam, texts):
    """Scores (N,): by how much a text is likelier behind the introduction ``spam`` than behind ``ham``."""
    texts = [f" {text}" for text in texts]
    return my_log_likelihood([spam] * len(texts), texts) - my_log_likelihood([ham] * len(texts), texts)


questions = {
    "'spam'? Answer: No / Yes": yes_or_no,
    "This message is ham / spam": partial(ask, "{}\nThis message is", " ham", " spam"),
    "This message is from my friend / a stranger": partial(
        ask, "{}\nThis message is from", " my friend", " a stranger"
    ),
    "It was a message from her / the company": from_whom,
    "A message from a friend: / An advertisement: …": partial(
        channel, "A message from a friend:", "An advertisement:"
    ),
}
results, scores_of = {}, {name: question(texts) for name, question in questions.items()}
print("  plain calibrated    AUC")
for name, scores in scores_of.items():
    threshold = my_threshold(questions[name])
    results[name] = judge(scores)["accuracy"], judge(scores - threshold)["accuracy"]
    print(f"{results[name][0]:7.1%} {results[name][1]:10.1%} {my_auc(scores):6.3f}  {name}")

# %% [markdown]
# ## Beside what?
#
# A number alone says nothing. Two others belong beside it: what one gets by always naming the commoner
# class, and what a *trained* classifier gets. The one that ships with gptcls has the same nano inside. It
# was trained on the messages of the SMS Spam Collection, so those of the bundled sample are new to it, and
# of another style. (With `DATA = "sms-spam"` it has seen most of them, and the comparison flatters it.)
# Chapter 9 shows how to use it.

# %%
majority = max(targets.mean(), 1 - targets.mean())
trained = load_classifier(precision="fp32").predict_proba(texts)
trained = classification_scores(targets, trained, ("ham", "spam"))
print(f"always the commoner class: {majority:.1%}")
print(f"trained: {trained['accuracy']:.1%}, AUC {trained['roc_auc']:.3f}")

luck = 1.96 * math.sqrt(majority * (1 - majority) / len(texts))
figure, axes = plt.subplots(figsize=(9, 3.8))
axes.axvspan(100 * (majority - luck), 100 * (majority + luck), color=GREY, alpha=0.2, label="luck, 95 %")
axes.axvline(100 * majority, color=GREY, lw=2, label="always the commoner class")
axes.axvline(100 * trained["accuracy"], color=GREEN, lw=2, ls="--", label="trained classifier")
for row, (plain, moved) in enumerate(results.values()):
    axes.plot([100 * plain, 100 * moved], [row, row], color=GREY, lw=1)
    axes.plot(100 * plain, row, "o", ms=9, mfc="white", color=BLUE, label="asked" if row == 0 else None)
    axes.plot(100 * moved, row, "o", ms=7, color=VERMILION, label="asked, calibrated" if row == 0 else None)
axes.set_yticks(range(len(results)), list(results))
axes.invert_yaxis()
axes.set(xlabel="accuracy (%)", xlim=(0, 100))
figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
plt.show()

# %% [markdown]
# The grey band is how far an accuracy of that size moves by mere luck, 19 times out of 20, with so many
# messages. A dot inside it is no success. Outside there are dots on both sides: by its wording alone one
# question comes near the trained classifier, and another does worse than guessing. So beware of the best dot:
# whoever tries many questions and keeps the best has used the labels to choose it, and needs other messages
# to judge it (exercise 2).
#
# Large models are far better at this, and assistants better still; how good gpt2-small is you can see by
# changing `MODEL`. (`gptcls train --head lm --epochs 0` asks in this way about any labels, calibrated, and
# `--shots` shows examples.) But whoever has a few hundred messages with their labels need not ask at all:
# the next chapters let the network learn from them.
#
# ## Exercises
#
# **1.** Show the model what you want: put two answered questions before the real one (*few-shot*, or
# in-context learning). Does it now know that yes or no is wanted? Does it also know which?

# %% tags=["solution"]
FORM = "Message: {}\nSpam? Answer:"
SHOWN = f"{FORM.format('See you at six')} No\n{FORM.format('WIN cash now! Text CLAIM to 80455')} Yes\n"


def willing(before):
    """Mean probability that the next token is the word Yes or No."""
    probabilities = next_probabilities([before + FORM.format(text) for text in texts[:40]])
    return probabilities[:, [encode(" Yes")[0], encode(" No")[0]]].sum(dim=1).mean().item()


print(f"probability of Yes or No: {willing(''):.3%} without examples, {willing(SHOWN):.3%} with two")
for name, before in (("without", ""), ("with", SHOWN)):
    scores = ask(before + FORM, " No", " Yes", texts)
    print(f"{name:7} examples: {np.mean(scores > 0):4.0%} called spam, AUC {my_auc(scores):.3f}")
assert willing(SHOWN) > willing("")  # the form of an answer is picked up from two examples

# %% [markdown]
# **2.** How good could each question be with the best of all thresholds? Find it by trying them all on one
# half of the messages, and judge it on the other half. Why are the two accuracies not the same?


# %% tags=["solution"]
def best_threshold(scores, targets):
    """Of all thresholds between two scores, the one with the highest accuracy."""
    candidates = np.append(np.sort(scores), np.inf)
    right = [np.mean((scores >= t) == targets) for t in candidates]
    return candidates[int(np.argmax(right))], max(right)


half = len(texts) // 2
for name, scores in scores_of.items():
    threshold, seen = best_threshold(scores[:half], targets[:half])
    new = np.mean((scores[half:] >= threshold) == targets[half:])
    print(f"{seen:.1%} where it was chosen, {new:.1%} on the others: {name}")
    share = targets[:half].mean()
    assert seen >= max(share, 1 - share)  # one of the thresholds calls everything the commoner class
# Among many thresholds some fit these very messages by luck, and luck does not carry over. (Where a figure
# rises, the other half was the easier one.)

# %% [markdown]
# **3.** Is the knowledge missing, or only the words for it? Take the hidden vector of each message's last
# token, fit scikit-learn's `LogisticRegression` on one half, and judge it on the other.

# %% tags=["solution"]
from sklearn.linear_model import LogisticRegression

parts = []
for start in range(0, len(texts), 40):
    ids, lengths = pad([encode(text) for text in texts[start : start + 40]])
    with torch.inference_mode():
        parts.append(model(ids)[torch.arange(len(ids)), lengths - 1].numpy())
vectors = np.concatenate(parts)  # (N, C)
half = len(texts) // 2
vectors = vectors / vectors[:half].std(axis=0)
line = LogisticRegression(C=0.01, max_iter=1000).fit(vectors[:half], targets[:half])
found = line.score(vectors[half:], targets[half:])
print(f"{found:.1%} on messages that the line was not fitted to")
assert found > majority + luck
# The vectors tell ham from spam quite well. A line through them gets it out; of the questions only some do.

# %% [markdown]
# ## What changed from the book
#
# | | the book | here |
# | --- | --- | --- |
# | asking | one prompt, to show that a base model does not follow instructions | the same, and how far down the answers stand |
# | zero-shot | not tried | by log-likelihood, both ways round, plain and calibrated |
# | verdict | the output is looked at | accuracy and AUC beside the commoner class, chance, and a trained classifier |
#
# Next: [6. The data](06_data.ipynb), the labelled messages that a better answer is learnt from.
