# %% [markdown]
# # 7. A new head
#
# A pretrained GPT answers one question: which of 50,257 tokens comes next? We want the answer to another
# one: is this spam? The surprise of this chapter is how little has to change. The last product, that with
# the token table, is left out, a tiny matrix with two outputs takes its place, and nearly everything else
# stays exactly as it is.
#
# **What you will learn**
#
# - how to swap the head, and what it says before it has learnt anything;
# - why the answer is read at the last token, measured and not just argued;
# - why the book's way of reading it depends on the padding, in a picture;
# - what freezing is, what it saves, and how to see that frozen parameters really stay as they are.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from gptcls.core.batches import pad
from gptcls.core.classifier import Classifier, FirstToken, LastToken, MeanToken
from gptcls.core.task import SingleLabel
from gptcls.core.tokenizer import decode, encode
from gptcls.data.sources import load_data
from gptcls.evaluation.style import BLUE, GREY, ORANGE, VERMILION, use_style
from gptcls.models.pretrained import load_pretrained

use_style()
MODEL = "gpt2-nano"  # "gpt2-small" downloads 548 MB

# %% [markdown]
# ## From writing to judging
#
# The library's `GPT2` returns the hidden vectors, one of C numbers for each token. What makes an answer of
# such a vector is called the **head**. Writing needs a matrix with 50,257 rows; judging needs one with two.

# %%
model = load_pretrained(MODEL)
C = model.config.n_embd

ids = torch.tensor([encode("Do you have time")])  # (B, T) = (1, 4)
with torch.no_grad():
    hidden = model(ids)  # (1, 4, C)
    print("to write:", list(model.lm_logits(hidden).shape))

torch.manual_seed(123)
head = nn.Linear(C, 2)
with torch.no_grad():
    logits = head(hidden)
print("to judge:", list(logits.shape))
print(logits[0])

# %% [markdown]
# Four tokens, two numbers each: a score for "ham" and one for "spam" at every position. They mean nothing
# yet, for the head's weights are random. (With `MODEL = "gpt2-small"` and this seed the book prints −1.5854
# and 0.9904 for the first token, −3.5983 and 3.9902 for the last.)
#
# ## Which position should answer?
#
# The head gives an answer at each token; we need one for the text. Chapter 2 said that a token sees only
# what stands before it. Here is the same, measured on the whole trained network: how strongly does the
# hidden vector of each token change when the vector of another one is moved a little?

# %%
TEXT = "Congratulations, you have won a free holiday"
ids = torch.tensor([encode(TEXT)])
tokens = [decode([i]).strip() for i in ids[0].tolist()]
T = len(tokens)

embedded = model.embed(ids).detach().requires_grad_(True)  # (1, T, C)
stream = embedded
for block in model.blocks:
    stream = block(stream)
hidden = model.norm(stream)[0]  # (T, C)

# One number of each vector, taken along a random direction: its gradient says which inputs it depends on.
direction = torch.randn(C, generator=torch.Generator().manual_seed(1))
reach = torch.stack(
    [torch.autograd.grad(h @ direction, embedded, retain_graph=True)[0][0].norm(dim=-1) for h in hidden]
)
reach = reach / reach.sum(dim=1, keepdim=True)  # (T, T), each row sums to 1
assert (reach.triu(diagonal=1) == 0).all()

figure, axes = plt.subplots(figsize=(5.8, 4.6))
image = axes.imshow(100 * reach, cmap="Blues", vmin=0, vmax=60)
axes.set_xticks(range(T), tokens, rotation=45, ha="right", rotation_mode="anchor")
axes.set_yticks(range(T), tokens)
axes.set(xlabel="… is moved by this one", ylabel="the vector of this token …")
axes.spines[:].set_visible(True)
figure.colorbar(image, ax=axes, label="share of the influence (%)", extend="max")
plt.show()

# %% [markdown]
# Above the diagonal there is nothing at all, and only the last row is filled from end to end. The first
# token knows of nothing but itself: whoever reads the answer there asks a model that has seen one word.
#
# ## The last token of each row
#
# In a batch the last token stands elsewhere in each row, since the rows are padded to one length. The
# lengths tell where.


# %%
def my_last_token(hidden, lengths):  # (B, T, C), (B,) -> (B, C)
    """The vector of each row's last real token."""
    return hidden[torch.arange(len(hidden)), lengths - 1]


class MyClassifier(nn.Module):
    """A backbone, a place to read, a new head."""

    def __init__(self, backbone: nn.Module, n_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.config.n_embd, n_classes)

    def forward(self, ids, lengths):  # (B, T), (B,) -> (B, K)
        return self.head(my_last_token(self.backbone(ids), lengths))


texts = ["ok", "Running late, start without me", "WIN cash now! Text CLAIM to 80455"]
ids, lengths = pad([encode(text) for text in texts])
print(list(ids.shape), "lengths", lengths.tolist())

torch.manual_seed(123)
mine = MyClassifier(model, 2).eval()
torch.manual_seed(123)
library = Classifier(model, 2).eval()
with torch.no_grad():
    torch.testing.assert_close(mine(ids, lengths), library(ids, lengths))
    print(library(ids, lengths))

# %% [markdown]
# ## Padding must not change the answer
#
# The book reads position −1 instead, the last of the row, after padding every text to the same length. So
# it mostly reads what the network thinks at a padding token. How does the answer depend on how much padding
# there is?

# %%
messages = [
    "Running late, start without me",
    "WIN cash now! Text CLAIM to 80455",
    "Are we still on for lunch?",
]
amounts = list(range(0, 101, 5))
figure, grid = plt.subplots(1, 2, figsize=(8.6, 3.4), sharey=True)
for axes, pooling, title in zip(
    grid, ("position-1", "last"), ("position −1 (the book)", "the last real token"), strict=True
):
    torch.manual_seed(123)
    classifier = Classifier(model, 2, pooling=pooling).eval()  # pooling: where the head reads
    for text, style, colour in zip(messages, ("-", "--", ":"), (BLUE, VERMILION, GREY), strict=True):
        row = encode(text)
        gaps = []
        for amount in amounts:
            padded, length = pad([row], pad_to=len(row) + amount)
            with torch.no_grad():
                ham, spam = classifier(padded, length)[0]
            gaps.append((spam - ham).item())
        axes.plot(amounts, gaps, style, color=colour, lw=2, label=text)
    axes.set(title=title, xlabel="padding tokens behind the text")
    axes.grid()
grid[0].set_ylabel("logit of spam − logit of ham")
figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center")
plt.show()

# %% [markdown]
# On the left the answer drifts with the padding: the same message gets another score in another batch, or
# when somebody types a larger `max_length`. Fine-tuning with a fixed length teaches the model to live with
# that one length, which is why the book's recipe works and why its classifier must be told the same number
# later. On the right the lines are flat, to the last bit that counts: padding changes nothing.
#
# ## Freezing
#
# Should all parameters learn? The blocks know language already, and a few hundred messages are not enough
# to teach them better. **Freezing** leaves them as they are: no gradients, no optimizer state, no
# forgetting. The book trains the head, the final norm and the last block; gptcls calls that `last_block`.

# %%
total = sum(p.numel() for p in library.parameters())
for policy in ("head", "last_block", "last_2", "all"):
    library.freeze(policy)
    trained = sum(p.numel() for p in library.trained_parameters().values())
    print(f"{policy:10} trains {trained:10,} of {total:,} parameters: {trained / total:7.3%}")

# %% [markdown]
# And does what is frozen really stay as it is? Take one training step and compare all tensors before and
# after, bit by bit.

# %%
library.freeze("last_block")
before = {name: p.detach().clone() for name, p in library.named_parameters()}
optimizer = torch.optim.AdamW(library.trained_parameters().values(), lr=1e-3)
loss = nn.functional.cross_entropy(library(ids, lengths), torch.tensor([0, 0, 1]))
loss.backward()
optimizer.step()

changed = [name for name, p in library.named_parameters() if not torch.equal(p, before[name])]
assert set(changed) == set(library.trained_parameters())
print(f"{len(changed)} of {len(before)} tensors changed:")
print(*changed, sep="\n")

# %% [markdown]
# ## What an untrained head thinks of real messages
#
# Before training, the classifier has a good ear and no opinion. Here are its answers to the messages of the
# bundled sample, half of them spam.


# %%
def probabilities(classifier, texts):
    """Probability of the second class, text by text, in batches of 64."""
    parts = []
    for start in range(0, len(texts), 64):
        ids, lengths = pad([encode(text) for text in texts[start : start + 64]])
        with torch.inference_mode():
            parts.append(classifier(ids, lengths).softmax(dim=-1)[:, 1])
    return torch.cat(parts)


data = load_data("sms-sample")
task = SingleLabel.of(data["label"])
targets = task.targets(data["label"].tolist())
model = load_pretrained(MODEL)  # the step above has changed its last block
torch.manual_seed(123)
untrained = Classifier(model, task.n_outputs).eval()
spam_probability = probabilities(untrained, data["text"].tolist())

figure, axes = plt.subplots(figsize=(6.8, 3.2))
bins = np.linspace(float(spam_probability.min()), float(spam_probability.max()), 31)
for label, colour, hatch in ((0, BLUE, ""), (1, ORANGE, "//")):
    values = spam_probability[targets == label].numpy()
    axes.hist(values, bins, alpha=0.6, color=colour, hatch=hatch, edgecolor="white", label=task.labels[label])
axes.axvline(0.5, color=GREY, ls="--")
axes.set(xlabel="probability of spam, before training", ylabel="messages")
axes.yaxis.get_major_locator().set_params(integer=True)
axes.legend()
plt.show()
accuracy = ((spam_probability > 0.5) == (targets == 1)).float().mean()
print(f"accuracy before training: {accuracy:.1%}")

# %% [markdown]
# The two heaps overlap: a random direction in a space of C dimensions has nothing to do with spam. But the
# direction that does is there, as the last exercise of chapter 5 found. Learning it is the business of the
# next chapter.
#
# ## Exercises
#
# **1.** Another way to make one vector of many is their mean. Write `my_mean_token(hidden, lengths)` over
# the *real* tokens only, compare it with the library's, and show that padding does not change it.


# %% tags=["solution"]
def my_mean_token(hidden, lengths):
    """The mean of each row's real tokens."""
    return torch.stack([row[:length].mean(dim=0) for row, length in zip(hidden, lengths, strict=True)])


wider, _ = pad([encode(text) for text in texts], pad_to=60)
with torch.no_grad():
    hidden, hidden_wider = model(ids), model(wider)
library_mean = MeanToken(hidden.shape[-1])
torch.testing.assert_close(my_mean_token(hidden, lengths), library_mean(hidden, lengths))
torch.testing.assert_close(library_mean(hidden_wider, lengths), library_mean(hidden, lengths))
assert not torch.allclose(
    hidden_wider.mean(dim=1), hidden.mean(dim=1)
)  # the mean over everything does change

# %% [markdown]
# **2.** Show that the *first* position gives the same vector for all messages that begin with the same
# token. What is the best accuracy that any classifier reading there could reach on the sample?

# %% tags=["solution"]
pair, pair_lengths = pad([encode("You won a prize"), encode("You left your keys here")])
with torch.no_grad():
    first = FirstToken(model.config.n_embd)(model(pair), pair_lengths)
torch.testing.assert_close(first[0], first[1])

# One answer for each first token: the best is the majority label of the messages that begin with it. A token
# that opens a single message is always "right" here; on new messages such a classifier would do much worse.
opening = [encode(text)[0] for text in data["text"]]
best = sum(
    targets[[i for i, o in enumerate(opening) if o == token]].bincount().max().item()
    for token in set(opening)
)
assert best / len(data) < 1
print(f"{len(set(opening))} different first tokens, at best {best / len(data):.1%} on these very messages")

# %% [markdown]
# **3.** With `last_block`, all blocks but one are a fixed function of the text. Compute what they give
# once, then only run the last block, the norm and the head on it. Is it the same as the whole network? What
# does that save in five epochs?

# %% tags=["solution"]
with torch.no_grad():
    frozen = model.embed(ids)
    for block in model.blocks[:-1]:
        frozen = block(frozen)  # (B, T, C), to be kept
    rest = untrained.head(LastToken(model.config.n_embd)(model.norm(model.blocks[-1](frozen)), lengths))
    torch.testing.assert_close(rest, untrained(ids, lengths))

# In five epochs the frozen blocks run once instead of five times a text, evaluations not counted.
print(f"{len(model.blocks) - 1} of {len(model.blocks)} blocks need to run once a text only")

# %% [markdown]
# ## What changed from the book
#
# | | the book | here |
# | --- | --- | --- |
# | the head | `model.out_head` is overwritten | a `Classifier` around the backbone, which has no head of its own |
# | the answer is read | at position −1, mostly a padding token | at the last real token, or over all of them |
# | padding | part of the answer | without effect, and tests make sure of it |
# | frozen parts | `requires_grad = False` | the same, and kept in eval mode: no dropout in what does not learn |
#
# Next: [8. Training](08_training.ipynb).
