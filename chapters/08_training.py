# %% [markdown]
# # 8. Training
#
# The network has a good ear, the head has no opinion. Now we show it a few hundred messages with their
# labels and let it find the direction that separates them. The loop that does so has six lines; the rest of
# the chapter is about seeing what it does.
#
# **What you will learn**
#
# - what cross entropy charges for a wrong answer, and why accuracy cannot be trained on directly;
# - the training loop, written out, ending in the same classifier as the library's `Trainer`;
# - how to read the two curves of a run;
# - what the learning rate does, from too timid to too bold.

# %%
import math

import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F

from gptcls.core.batches import TextDataset, plain_loader
from gptcls.core.classifier import Classifier
from gptcls.core.loop import Curves, FitSettings, Trainer, evaluate_loader
from gptcls.core.task import SingleLabel, class_weights
from gptcls.data.sources import load_data
from gptcls.data.split import drop_duplicates, make_split
from gptcls.evaluation.plots import plot_history
from gptcls.evaluation.style import BLUE, GREEN, GREY, VERMILION, use_style
from gptcls.models.pretrained import load_pretrained

use_style()
MODEL = "gpt2-nano"  # "gpt2-small" downloads 548 MB, and takes minutes here
DATA = "sms-sample"  # "sms-spam" downloads the SMS Spam Collection
LR = 5e-5 if MODEL == "gpt2-small" else 2e-4  # a small network takes larger steps
CPU = torch.device("cpu")
if MODEL == "gpt2-nano":
    torch.set_num_threads(1)  # matrices this small are not worth sharing out

# %% [markdown]
# ## The data, in three parts
#
# Chapter 6 looks at the data in detail. Here we need three parts that share no message: one to learn from,
# one to watch while learning, one for the verdict at the end.

# %%
split = make_split(drop_duplicates(load_data(DATA)))
task = SingleLabel.of(split.train["label"])


def dataset(frame):
    """Texts as token ids beside their class numbers."""
    return TextDataset(frame["text"].tolist(), task.targets(frame["label"].tolist()), max_length=256)


train_set, val_set, test_set = dataset(split.train), dataset(split.validation), dataset(split.test)
train_loader = plain_loader(train_set, 8, shuffle=True)
val_loader, test_loader = plain_loader(val_set, 8), plain_loader(test_set, 8)
print("classes:", task.labels)
print("messages:", len(train_set), "train,", len(val_set), "validation,", len(test_set), "test")
ids, lengths, targets = next(iter(val_loader))
print("one batch:", list(ids.shape), "lengths", lengths.tolist(), "targets", targets.tolist())


# %% [markdown]
# A classifier, fresh each time: pretrained weights, a random head, all but the last block frozen (chapter
# 7).


# %%
def new_classifier(seed=123):
    """The same start for the same seed."""
    torch.manual_seed(seed)
    classifier = Classifier(load_pretrained(MODEL), task.n_outputs)
    classifier.freeze("last_block")
    return classifier


# %% [markdown]
# ## What a wrong answer costs
#
# We want many right answers. But accuracy is a staircase: move a weight a little and nearly always no
# answer changes, so there is no slope to follow. **Cross entropy** is the smooth stand-in: the negative
# logarithm of the probability that the model gave to the right class. Being sure and right costs nothing,
# being unsure costs ln 2 with two classes, being sure and wrong costs without limit.


# %%
def my_loss(logits, targets):  # (B, K), (B,) -> one number
    """Mean of −log p(right class)."""
    log_probabilities = logits - logits.exp().sum(dim=-1, keepdim=True).log()
    return -log_probabilities[torch.arange(len(targets)), targets].mean()


def my_accuracy(logits, targets):
    """Share of rows whose largest logit is the right one."""
    return (logits.argmax(dim=-1) == targets).float().mean().item()


classifier = new_classifier().eval()
with torch.no_grad():
    logits = classifier(ids, lengths)
torch.testing.assert_close(my_loss(logits, targets), F.cross_entropy(logits, targets))
torch.testing.assert_close(my_loss(logits, targets), task.loss(logits, targets))
assert my_accuracy(logits, targets) == task.measure(logits, targets)

p = torch.linspace(0.005, 1, 400)
figure, axes = plt.subplots(figsize=(6, 3.2))
axes.plot(p, -p.log(), color=BLUE, lw=2, label="cross entropy")
axes.plot(p, (p < 0.5).float(), "--", color=VERMILION, label="1 − accuracy, two classes")
axes.plot(0.5, math.log(2), "o", color=GREY, label=f"undecided: ln 2 = {math.log(2):.3f}")
axes.set(
    xlabel="probability given to the right class", ylabel="cost of one message", xlim=(0, 1), ylim=(-0.1, 5)
)
axes.grid()
axes.legend()
plt.show()

# %% [markdown]
# Before training, the accuracy should be near a coin's. The loss would be ln 2 if the random head were
# undecided; it lies above, for the head is often sure without reason:

# %%
for name, loader in (("train", train_loader), ("validation", val_loader), ("test", test_loader)):
    loss, accuracy = evaluate_loader(classifier, task, loader, CPU)
    print(f"{name:10} loss {loss:.3f}, accuracy {accuracy:.1%}")


# %% [markdown]
# ## The loop
#
# For each batch: forget the old gradients, compute the loss, send it backwards, take a step. That is all of
# training. AdamW decides how large the step of each parameter is, and pulls all weights a little towards
# zero (`weight_decay`).


# %%
def my_fit(model, loader, epochs, lr):
    """Train what is not frozen; returns the loss of every step."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.1, fused=True)  # fused: the same, faster
    losses = []
    for _ in range(epochs):
        model.train()
        for ids, lengths, targets in loader:
            optimizer.zero_grad()
            loss = my_loss(model(ids, lengths), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


# %% [markdown]
# The library's `Trainer` adds what a real run needs: a learning-rate **schedule** (steps that grow during a
# *warm-up* and shrink later, for instance along a cosine), **clipping** (a gradient that is too long is
# shortened) and **hooks**, small objects that are called after each step and each epoch: they draw curves,
# keep the best weights, save checkpoints. With all of that switched off, and the batches in one fixed order,
# it must end in the same classifier as our six lines.


# %%
def settings(**changes):
    """The book's way: constant learning rate, no clipping."""
    plain = {"epochs": 1, "lr": LR, "decay_on": "all", "schedule": "constant"}
    return FitSettings(**plain | changes)


fixed_order = plain_loader(train_set, 8)
mine, library = new_classifier(), new_classifier()
my_losses = my_fit(mine, fixed_order, epochs=1, lr=LR)
Trainer(library, task, fixed_order, settings(), CPU).fit()

ids, lengths, targets = next(iter(val_loader))
mine.eval()
library.eval()
with torch.no_grad():
    torch.testing.assert_close(mine(ids, lengths), library(ids, lengths), rtol=1e-3, atol=1e-3)
print(f"after {len(my_losses)} steps both give the same logits")
print(f"loss of the first batch {my_losses[0]:.2f}, of the last {my_losses[-1]:.2f}")

# %% [markdown]
# ## The curves
#
# Now a real run: several epochs, shuffled. Every ten steps the hook `Curves` looks at a few batches of both parts
# and notes the loss, and after each epoch the accuracy. The book's chapter 6 draws the same pictures.

# %%
classifier = new_classifier()
curves = Curves(val_loader, eval_freq=10, eval_iter=5)
trainer = Trainer(classifier, task, train_loader, settings(epochs=6), CPU, hooks=[curves])
history = trainer.fit().history
plot_history(history, "loss")

# %%
plot_history(history, "accuracy")

# %% [markdown]
# How to read them:
#
# - **Both fall together:** the model learns something that holds for messages it was not shown.
# - **Training falls, validation rises:** it is learning these very messages by heart; stop earlier.
# - **Neither falls:** the learning rate is too small, too much is frozen, or the labels have slipped.
#
# The curves come from a few batches, and so do their wiggles. The verdict needs all rows, and of the test
# set only one look, at the end:

# %%
for name, loader in (
    ("train", plain_loader(train_set, 64)),
    ("validation", val_loader),
    ("test", test_loader),
):
    loss, accuracy = evaluate_loader(classifier, task, loader, CPU)
    print(f"{name:10} loss {loss:.3f}, accuracy {accuracy:.1%}")
print(f"\none message more or less is {1 / len(test_set):.1%} of the test set")

# %% [markdown]
# Chapter 10 puts an interval around such a number and a simple baseline beside it. Without these it says
# little.
#
# ## The learning rate
#
# The most important number of a run is the size of its steps. Three runs of two epochs from the same start,
# with timid, with fitting and with bold steps:

# %%
figure, axes = plt.subplots(figsize=(7.2, 3.6))
for factor, style, colour in ((0.1, "-", BLUE), (1, "--", GREEN), (20, ":", VERMILION)):
    run = new_classifier()
    losses = torch.tensor(my_fit(run, train_loader, epochs=2, lr=factor * LR))
    smooth = losses.unfold(0, 10, 1).mean(dim=1)  # mean of ten steps
    _, accuracy = evaluate_loader(run, task, val_loader, CPU)
    label = f"lr {factor * LR:g}: validation accuracy {accuracy:.0%}"
    axes.plot(range(10, len(losses) + 1), smooth, style, color=colour, lw=2, label=label)
axes.axhline(math.log(2), color=GREY, lw=1)
axes.set(xlabel="step", ylabel="training loss, mean of 10 steps", ylim=(0, 1.2))
axes.grid()
axes.legend()
plt.show()

# %% [markdown]
# The grey line is ln 2, the loss of being undecided. Too small, and the run has hardly begun when it ends.
# Too large, and the loss first leaps off the picture and ends above that of the fitting steps; the messages
# that were not trained on are judged no better for it. Such steps can overwrite what the pretrained block
# knew.
#
# ## Exercises
#
# **1.** The oldest test of a training loop: it must be able to learn eight messages by heart. Train on one
# batch until its loss is below 0.05. If that failed, there would be no point in a longer run.

# %% tags=["solution"]
one_batch = [next(iter(fixed_order))]
student = new_classifier()
losses = my_fit(student, one_batch, epochs=60, lr=5 * LR)
assert losses[-1] < 0.05 < losses[0]
print(
    f"loss {losses[0]:.3f} at first, below 0.05 after {next(i for i, x in enumerate(losses) if x < 0.05)} steps"
)

# %% [markdown]
# **2.** When one class is rare, its mistakes can be charged more. Write `my_weighted_loss(logits, targets,
# weights)`, a mean weighted by each row's class, and compare it with the library's task with
# `class_weights`.


# %% tags=["solution"]
def my_weighted_loss(logits, targets, weights):
    """Each row counts as much as its class weighs."""
    log_probabilities = logits.log_softmax(dim=-1)[torch.arange(len(targets)), targets]
    mass = torch.tensor(weights)[targets]
    return -(mass * log_probabilities).sum() / mass.sum()


weights = class_weights(["ham"] * 87 + ["spam"] * 13, task.labels)  # as rare as in the real collection
weighted = SingleLabel(task.labels, tuple(weights))
torch.testing.assert_close(my_weighted_loss(logits, targets, weights), weighted.loss(logits, targets))
print({label: round(weight, 2) for label, weight in zip(task.labels, weights, strict=True)})

# %% [markdown]
# **3.** A batch of eight does not fit your memory, two batches of four do. Show that their gradients, added
# up with the right factor, are those of the batch of eight (*gradient accumulation*).

# %% tags=["solution"]
student = new_classifier().eval()
my_loss(student(ids, lengths), targets).backward()
whole = {name: p.grad.clone() for name, p in student.trained_parameters().items()}

student.zero_grad()
for part in (slice(0, 4), slice(4, 8)):
    (
        my_loss(student(ids[part], lengths[part]), targets[part]) * 4 / 8
    ).backward()  # backward adds to what is there
for name, parameter in student.trained_parameters().items():
    torch.testing.assert_close(parameter.grad, whole[name], rtol=1e-4, atol=1e-6)

# %% [markdown]
# ## What changed from the book
#
# | | the book | here |
# | --- | --- | --- |
# | the loop | `train_classifier_simple` | the same shape; `Trainer` adds schedule, clipping, hooks, resuming |
# | the optimizer gets | all parameters, frozen ones included | the trained ones |
# | frozen blocks | run at every step | may run once a text and be kept (chapter 12) |
# | the curves | 5 batches a point | the same here; a run looks at the whole validation set after each epoch |
# | the verdict | accuracy | chapter 10: intervals, baselines, more than one score |
#
# Next: [9. Using it](09_using.ipynb).
