# %% [markdown]
# # 9. Using it
#
# A trained network in memory is gone when Python ends. This chapter keeps it, looks into every byte of what
# is kept, loads it again, and then puts questions to it: single messages, many, broken ones, a whole file,
# and one message while it is being typed.
#
# **What you will learn**
#
# - `classify_review` and its relatives: what goes in, what comes out;
# - what a saved classifier consists of, by reading its two files by hand;
# - why a few of the tensors are enough, and what happens over the wrong base weights;
# - what the probability says about a message, word by word, and what the threshold does;
# - what padding, a very long text, a blank one or a missing value do to the answer.

# %%
import contextlib
import csv
import io
import json
import struct
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from safetensors.torch import load_file

from gptcls import (
    InputError,
    classify_review,
    load_classifier,
)
from gptcls.classify.run import ClassifyConfig, classify
from gptcls.classify.store import SavedClassifier, save_classifier
from gptcls.core.batches import TextDataset, pad, plain_loader
from gptcls.core.classifier import Classifier
from gptcls.core.loop import FitSettings, Trainer
from gptcls.core.task import SingleLabel
from gptcls.core.tasks import task_from_json
from gptcls.core.tokenizer import encode, gpt2_encoding
from gptcls.data.sources import load_data
from gptcls.data.split import drop_duplicates, make_split
from gptcls.evaluation.marked import plot_bars
from gptcls.evaluation.style import BLUE, GREY, VERMILION, use_style
from gptcls.models.pretrained import load_pretrained, weights_sha256

use_style()
MODEL = "gpt2-nano"  # "gpt2-small" downloads 548 MB, and takes minutes here
DATA = "sms-sample"  # "sms-spam" downloads the SMS Spam Collection
LR = 5e-5 if MODEL == "gpt2-small" else 2e-4
if MODEL == "gpt2-nano":
    torch.set_num_threads(1)  # matrices this small are not worth sharing out
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## One to keep
#
# Chapter 8 in short: the same split, the same start, two epochs of the last block.

# %%
split = make_split(drop_duplicates(load_data(DATA)))
task = SingleLabel.of(split.train["label"])


def loader(frame, batch_size, shuffle=False):
    targets = task.targets(frame["label"].tolist())
    return plain_loader(TextDataset(frame["text"].tolist(), targets, max_length=256), batch_size, shuffle)


torch.manual_seed(123)
trained = Classifier(load_pretrained(MODEL), task.n_outputs)
trained.freeze("last_block")
settings = FitSettings(epochs=2, lr=LR, schedule="constant", clip=1.0)
Trainer(trained, task, loader(split.train, 8, shuffle=True), settings, torch.device("cpu")).fit()
trained.eval()  # no dropout from here on, if there was any
n_trained = sum(p.numel() for p in trained.trained_parameters().values())
print(f"{n_trained:,} of {sum(p.numel() for p in trained.parameters()):,} parameters were trained")

# %% [markdown]
# Now keep it. Beside the network goes everything that somebody needs to use it: the names of the classes,
# the number of tokens that are read, the weights it was built on.

# %%
saved = SavedClassifier(
    model=trained,
    task=task,
    max_length=256,
    pad_to=None,
    base={"name": MODEL, "sha256": weights_sha256(MODEL)},
    training={"data": DATA, "epochs": 2, "lr": LR},
    scores={},
)
save_classifier(folder / "trained", saved, full=False)  # what was trained
save_classifier(folder / "full", saved)  # every tensor
for path in sorted(folder.glob("*/*")):
    print(f"{path.relative_to(folder).as_posix():28} {path.stat().st_size / 1000:10,.0f} kB")

# %% [markdown]
# (`python -m gptcls.train` does all this for you, in the folder `classifier` of a run.)
#
# ## Asking it
#
# The book's function is called `classify_review`, and its answers are "spam" and "not spam". What it returns
# has the form of what it gets: a text gives an answer, a list gives a list. (`precision="fp32"` asks for the
# plain arithmetic; otherwise a processor that can takes shorter numbers for the frozen blocks, chapter 12.)

# %%
SPAM = "You have been chosen for a free holiday! Call 0808 157 0199 now to claim"
HAM = "Running ten minutes late, could you order me a coffee please?"

print(classify_review(SPAM, model=folder / "trained"))  # a folder; it stays in memory for the next call
print(classify_review([SPAM, HAM], model=folder / "trained"))
print(classify_review(SPAM))  # no model: the one that ships with gptcls

classifier = load_classifier(folder / "trained", precision="fp32")  # loaded once, kept by us
print(classify_review([SPAM, HAM], model=classifier))

tokenizer = gpt2_encoding()  # the call of the book's section 6.8: a bare network and its tokenizer
print(classify_review(SPAM, trained, tokenizer, "cpu", max_length=120))

# %% [markdown]
# For everything else there is the loaded classifier itself: it answers with the names that stood in its data,
# "ham" and "spam", or with probabilities.

# %%
print(classifier.labels, classifier.predict([SPAM, HAM]))
print(classifier.predict_proba(HAM).round(3), "one text: (K,)")
print(classifier.predict_proba([SPAM, HAM]).round(3), "a list: (N, K)")

# %% [markdown]
# ## What stands in the folder
#
# First the file for people. It is JSON, so nothing in it can be executed, and any editor opens it.

# %%
description = json.loads((folder / "trained" / "classifier.json").read_text(encoding="utf-8"))
for key, value in description.items():
    if key != "versions":  # of Python and the libraries
        line = json.dumps(value)
        print(f"{key:15} {line if len(line) < 90 else line[:89] + '…'}")

# %% [markdown]
# Then the numbers. Chapter 4 opened such a file with bare hands; here is the same as a function: eight
# bytes with the length of the header, the header, and then the tensors one after the other.

# %%
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def my_read_safetensors(path):
    """Name -> tensor."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header, numbers = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            flat = torch.frombuffer(bytearray(numbers[start:end]), dtype=DTYPES[entry["dtype"]])
            tensors[name] = flat.view(entry["shape"])
    return tensors


tensors = my_read_safetensors(folder / "trained" / "model.safetensors")
torch.testing.assert_close(tensors, load_file(folder / "trained" / "model.safetensors"))
for name, tensor in tensors.items():
    print(f"{name:35} {list(tensor.shape)}")

# %% [markdown]
# These are the last block, the final norm and the head, and nothing else. All that was frozen is the same
# as in the base weights, which whoever uses the classifier has already, or can get.
#
# ## Trained tensors over base weights
#
# So loading means: build the base, put the new head on it, lay the trained tensors over it. The description
# says which base, and by its checksum, *exactly* which.


# %%
def my_load(folder):
    """The network in a folder that holds trained tensors only."""
    description = json.loads((folder / "classifier.json").read_text(encoding="utf-8"))
    base = description["base"]
    if weights_sha256(base["name"]) != base["sha256"]:
        raise InputError(f"{base['name']} has changed since the training")
    model = Classifier(
        load_pretrained(base["name"]), len(description["task"]["labels"]), description["pooling"]
    )
    unknown = model.load_state_dict(my_read_safetensors(folder / "model.safetensors"), strict=False)
    assert not unknown.unexpected_keys
    return model.eval(), task_from_json(description["task"])


mine, my_task = my_load(folder / "trained")
library, whole = classifier.saved.model, load_classifier(folder / "full", precision="fp32").saved.model
torch.testing.assert_close(dict(mine.state_dict()), dict(library.state_dict()), rtol=0, atol=0)
torch.testing.assert_close(dict(whole.state_dict()), dict(library.state_dict()), rtol=0, atol=0)
torch.testing.assert_close(dict(trained.state_dict()), dict(library.state_dict()), rtol=0, atol=0)

ids, lengths = pad([encode(text) for text in (SPAM, HAM)])
with torch.no_grad():
    logits = mine(ids, lengths)
print(my_task.decode(logits))
torch.testing.assert_close(
    logits.softmax(dim=-1).numpy(), classifier.predict_proba([SPAM, HAM]), rtol=1e-4, atol=1e-5
)

# %% [markdown]
# All four are the same to the last bit: the network that was trained, both that were saved, and the one
# put together by hand. What if somebody replaced the base by another one of the same shape? Without the
# checksum nothing would complain, and the answers would be nonsense. With it:

# %%
other = folder / "other"
other.mkdir()
(other / "model.safetensors").write_bytes((folder / "trained" / "model.safetensors").read_bytes())
changed = description | {"base": {"name": MODEL, "sha256": "0" * 64}}
(other / "classifier.json").write_text(json.dumps(changed), encoding="utf-8")
try:
    load_classifier(other)
except InputError as error:
    print(str(error).replace(str(folder), "…"))

# %% [markdown]
# ## A message while it is typed
#
# A classifier can be asked at every word. We take the one that ships with gptcls, which has seen thousands
# of real messages, and watch the probability of spam as three messages grow. The third is a harmless
# notice in words that advertisers use.

# %% tags=["front"]
bundled = load_classifier(precision="fp32")
MESSAGES = {
    "spam": "Congrats you have been selected for a prize call 09098790123 to claim",
    "ham": "Congrats on the new job I am so proud of you call me tonight",
    "a notice": "Your parcel arrives today between two and four text STOP to end these messages",
}


def spam_probability(texts):
    """Probability of spam (N,)."""
    return bundled.predict_proba(texts)[:, bundled.labels.index("spam")]


figure, axes = plt.subplots(figsize=(9.4, 5.2))
styles = (("-", VERMILION, "o"), ("--", BLUE, "s"), (":", GREY, "^"))
for number, ((name, message), (style, colour, marker)) in enumerate(
    zip(MESSAGES.items(), styles, strict=True)
):
    words = message.split()
    axes.text(-0.8, -14 - 9 * number, f"{name}:", color=colour, size=9, ha="right")
    grown = [" ".join(words[: n + 1]) for n in range(len(words))]
    axes.plot(100 * spam_probability(grown), style, color=colour, marker=marker, lw=2, label=name)
    for place, word in enumerate(words):
        axes.text(place, -14 - 9 * number, word, color=colour, size=8, ha="center")
axes.axhline(50, color=GREY, lw=1)
axes.set(ylabel="probability of spam (%)", ylim=(-38, 105), xlim=(-0.6, 13.6))
axes.set_xticks([])
axes.set_yticks(range(0, 101, 25))
axes.spines["bottom"].set_visible(False)
axes.spines["left"].set_bounds(0, 100)
axes.legend(loc="upper left", ncols=3)
axes.set_title("each point: the message up to and including the word below it", pad=12)
plt.show()

# %% [markdown]
# One word can turn the answer: of the first message it is the telephone number. Which words of a finished
# message does the answer hang on? Leave each out in turn and see what is lost. Probabilities near 0 or 1
# hardly move, so we measure in **log-odds**, the logarithm of p / (1 − p), which has no ends; with
# two classes it is the difference of the two logits.


# %%
def log_odds(texts):
    """Log-odds of spam (N,): above 0 the answer is spam."""
    p = spam_probability(texts).astype(float)
    return np.log(p) - np.log1p(-p)


def contributions(message):
    """What each word adds to the log-odds of spam: the whole message minus the message without it."""
    words = message.split()
    without = [" ".join(words[:n] + words[n + 1 :]) for n in range(len(words))]
    return words, log_odds([message])[0] - log_odds(without)


figure, grid = plt.subplots(1, 3, figsize=(9.4, 4.2), sharex=True)
for axes, (name, message) in zip(grid, MESSAGES.items(), strict=True):
    words, gains = contributions(message)
    axes.barh(range(len(words)), gains, color=[VERMILION if gain > 0 else BLUE for gain in gains])
    axes.set_yticks(range(len(words)), words, size=9)
    axes.invert_yaxis()
    axes.axvline(0, color=GREY, lw=1)
    axes.set(title=f"{name}: {spam_probability([message])[0]:.0%} spam")
grid[1].set_xlabel("what the word adds to the log-odds of spam (red: towards spam)")
plt.show()

# %% [markdown]
# Take it as a hint, not as an explanation: two words that say the same cover for each other, and a message
# with a word missing is a message that nobody wrote.
#
# The library does the same for every kind of classifier: `explain` here, `gptcls explain "a text"` in a
# terminal, there in colours. It leaves out the word's tokens, so that the first word may differ from ours
# (what follows it keeps the space in front); and it takes the log-odds from the logits, which next to 100 %
# have more digits than a probability. `gradients=True` asks for a second opinion, **integrated
# gradients**: how the log-odds climb while every token's vector fades in, from padding to the text. There
# words that cover for each other share the credit, and what the words get must add up.

# %%
words, gains = contributions(MESSAGES["spam"])
library_gains = bundled.explain(MESSAGES["spam"]).attributions[:, bundled.labels.index("spam")]
np.testing.assert_allclose(library_gains[1:], gains[1:], atol=0.1)

shortcut = "see you at six 09090812345"
print("\n".join(bundled.explain(shortcut, gradients=True).lines()))
for text in ("see you at six", shortcut, "You won a free cruise", "You won a free cruise 09090812345"):
    print(f"{text:36} {spam_probability([text])[0]:6.1%} spam")
assert bundled.predict(["see you at six", shortcut, "You won a free cruise"]) == ["ham", "spam", "ham"]

# %%
why = bundled.explain(["You won a free cruise! Text CLAIM to 80455", shortcut])
figure = plot_bars([panel for each in why for panel in each.panels()], "what the word adds to the log-odds")
figure.set_dpi(80)
figure

# %% [markdown]
# Both opinions name the same culprit. This classifier has learnt a **shortcut** (Geirhos et al. 2020): in its
# training data the spam asked for a call, so a long number alone makes spam of an appointment, and a free
# cruise without one passes. No score on messages like those it learnt from would have shown it.
#
# ## The threshold
#
# `predict` names the likelier class: with two classes, the threshold is one half. Whoever minds a lost
# message more than an advertisement sets it higher. The probabilities are there for this:

# %%
test_texts, is_spam = split.test["text"].tolist(), (split.test["label"] == "spam").to_numpy()
p = classifier.predict_proba(test_texts)[:, task.labels.index("spam")]
for threshold in (0.05, 0.25, 0.5, 0.75, 0.95):
    called = p >= threshold
    print(
        f"threshold {threshold:4.0%}: {(called & ~is_spam).sum():3} of {(~is_spam).sum()} ham called spam, "
        f"{(~called & is_spam).sum():3} of {is_spam.sum()} spam missed"
    )
assert classifier.predict(test_texts) == ["spam" if x > 0.5 else "ham" for x in p]

# %% [markdown]
# From top to bottom the first number falls and the second rises; there is no threshold that is right for
# everybody. Chapter 10 chooses one, on the validation messages and not on these.
#
# ## Padding changes no prediction
#
# Inside, the messages run sorted by length in batches. Does it matter in whose company a message is judged,
# or how wide its batch is? Each test message alone, all together, and all padded to 256 positions:

# %%
alone = np.stack([classifier.predict_proba(text) for text in test_texts])
together = classifier.predict_proba(test_texts)
ids, lengths = pad([encode(text) for text in test_texts], pad_to=256)
with torch.no_grad():
    padded = torch.cat(
        [library(i, n).softmax(dim=-1) for i, n in zip(ids.split(32), lengths.split(32), strict=True)]
    )
torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)
torch.testing.assert_close(padded.numpy(), alone, rtol=0, atol=1e-4)
print("the three agree; by rounding they differ by less than 0.0001")

# %% [markdown]
# ## What is no message
#
# Users send everything. What can be judged gets an answer:

# %%
ODD = ["👍", "你好，我晚点到", "<|endoftext|>", "a" * 5000, "free " * 2000]
for text, row in zip(ODD, classifier.predict_proba(ODD), strict=True):
    print(f"{text[:13]!r:17} {len(text):6,} characters, {len(encode(text)):5,} tokens: {row[1]:5.1%} spam")

# %% [markdown]
# Of a long text the first `max_length` tokens are read, and the log says so. A blank one holds nothing to
# judge, and neither does a missing value in a list or a table: no answer, and NaN for a probability. What is
# no text at all is refused:

# %%
print(classifier.predict([HAM, "   ", None, float("nan")]), classifier.predict_proba(["   "]))
for wrong in (None, 3.5, b"bytes", [HAM, 3.5]):
    try:
        classifier.predict(wrong)
    except TypeError as error:
        print(error)
for call in (lambda: classifier.predict(HAM, max_length=0), lambda: load_classifier(folder)):
    try:
        call()
    except InputError as error:
        print(str(error).replace(str(folder), "…"))

# %% [markdown]
# ## Files
#
# `gptcls.classify.run` labels a file of any size piece by piece and writes its columns with the answer behind
# them. In Python it is a function; on the command line it is `python -m gptcls.classify --data messages.csv
# --out labelled.csv`.

# %%
source, target = folder / "messages.csv", folder / "labelled.csv"
with source.open("w", encoding="utf-8", newline="") as file:
    csv.writer(file).writerows(
        [("id", "text"), (1, HAM), (2, SPAM), (3, ""), (4, "Two lines,\nand “quotes”")]
    )
classify(ClassifyConfig(model=str(folder / "trained"), data=source, out=target, precision="fp32"))
print(target.read_text(encoding="utf-8"))

printed = io.StringIO()  # without a file the answers are printed: label, tab, probability
with contextlib.redirect_stdout(printed):
    classify(ClassifyConfig(texts=(SPAM, HAM), precision="fp32"))
print(printed.getvalue())

# %% [markdown]
# In a table an empty cell means that there is no text, so that row gets no label, rather than a guess.
#
# ## Exercises
#
# **1.** Write `careful(texts, low, high)`, which answers "ham" below `low`, "spam" above `high`, and
# otherwise "unsure", so that a person can look. How many of the test messages are left to the person with
# 0.2 and 0.8, and how good are the answers that are given?


# %% tags=["solution"]
def careful(texts, low=0.2, high=0.8):
    """An answer only where the probability is clear."""
    p = classifier.predict_proba(texts)[:, task.labels.index("spam")]
    return np.where(p < low, "ham", np.where(p > high, "spam", "unsure"))


answers, labels = careful(test_texts), split.test["label"].to_numpy()
sure = answers != "unsure"
print(f"{(~sure).sum()} of {len(answers)} messages are left to a person")
print(
    f"right: {(answers == labels)[sure].mean():.1%} of the answered, {((p > 0.5) == is_spam).mean():.1%} of all"
)
assert (careful(test_texts, 0.5, 0.5) == classifier.predict(test_texts)).all()

# %% [markdown]
# **2.** The names of the classes stand in `classifier.json`, not in the tensors. Make a classifier that
# answers "in" and "bin", without training and without touching a number.

# %% tags=["solution"]
renamed = description | {"task": description["task"] | {"labels": ["in", "bin"]}}
(other / "classifier.json").write_text(json.dumps(renamed), encoding="utf-8")
answers = load_classifier(other, precision="fp32").predict(test_texts)
assert answers == [{"ham": "in", "spam": "bin"}[label] for label in classifier.predict(test_texts)]
print(answers[:6])

# %% [markdown]
# **3.** Be the spammer. Which single word, put at the end of `SPAM`, lowers the bundled classifier's
# log-odds of spam the most? Try the 300 commonest words of the ham among the training messages. Does one
# word get the message through? Do the five best together?

# %% tags=["solution"]
from collections import Counter

ham_words = Counter(word for text in split.train.query("label == 'ham'")["text"] for word in text.split())
candidates = [word for word, _ in ham_words.most_common(300)]
before = log_odds([SPAM])[0]
after = log_odds([f"{SPAM} {word}" for word in candidates])
best = [candidates[i] for i in np.argsort(after)[:5]]
disguised = " ".join([SPAM, *best])
assert after.min() < before
print(
    f"log-odds {before:.2f}, with {best[0]!r} {after.min():.2f}, with all of {best} {log_odds([disguised])[0]:.2f}"
)
print("answers:", bundled.predict([SPAM, f"{SPAM} {best[0]}", disguised]))

# %% [markdown]
# ## What changed from the book
#
# | | the book | here |
# | --- | --- | --- |
# | `classify_review` | one text, a network, its tokenizer, a device, a length | the same call; or a text, or a list, and nothing else |
# | `max_length=None`, its default | a TypeError | all that the model reads |
# | saving | `torch.save(model.state_dict())`; sizes, labels and length must be known to load it | a folder that says everything itself, without pickle |
# | size on disk | every tensor | the trained ones over a base with a checksum, or everything |
# | the answer | a word | also probabilities, for a threshold of your own |
#
# Next: [10. Does it really work?](10_judging.ipynb)
