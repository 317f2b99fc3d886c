# %% [markdown]
# # 1. Text to tokens
#
# A neural network multiplies numbers; it has never seen a letter. Before a message can be judged it has to
# become a list of integers, and how that is done decides what the network finds easy, what it finds hard,
# and how long it takes.
#
# **What you will learn**
#
# - how byte-pair encoding (BPE) learns a vocabulary, by running it on one sentence;
# - how GPT-2's 50,257 tokens come from the same algorithm, and how to write its encoder in fifteen lines;
# - which texts are cut into surprising pieces, and why;
# - what padding is, why three quarters of the book's arithmetic is spent on it, and how to spend less.
#
# You need Python and a little PyTorch. Nothing is downloaded.

# %%
from collections import Counter
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import regex  # comes with tiktoken; unlike re, it knows \p{L}, "any letter of any alphabet"
import torch
from matplotlib.colors import ListedColormap
from matplotlib.patches import Rectangle

from gptcls.core.batches import pad, token_budget_batches
from gptcls.core.tokenizer import PAD_ID, decode, encode, gpt2_encoding
from gptcls.data.sources import load_data
from gptcls.evaluation.style import BLUE, ORANGE, SKY, use_style

use_style()
DATA = "sms-sample"  # "sms-spam" downloads the 5,574 messages of the SMS Spam Collection (0.2 MB)

# %% [markdown]
# ## What should one integer stand for?
#
# **A character?** Then there are few different integers, but a message becomes a long list, and the network
# must learn from scratch that `c`, `a`, `s`, `h` belong together. **A word?** Then lists are short, but the
# vocabulary never ends: `caash`, `c4sh` and `Cash!!` would all be unknown. **Something between** that is
# learnt from text: frequent strings get an integer of their own, rare ones are spelt from smaller pieces,
# and nothing is ever unknown. That is byte-pair encoding.
#
# ## BPE by hand
#
# Start from bytes: a text in UTF-8 is a list of bytes, and there are only 256 of them. Then repeat: find
# the pair of neighbours that occurs most often, and make it a new token. That is all. We try it on one
# sentence.

# %%
SENTENCE = "she sells sea shells by the sea shore and the shells she sells are sea shells"

words = Counter(tuple(bytes([b]) for b in piece.encode()) for piece in regex.findall(" ?[a-z]+", SENTENCE))
for word, count in words.most_common(3):
    print(f"{count} x", word)

# %% [markdown]
# Each word keeps the space before it, so that `she` at the start and ` she` further on are different words.
# Merges will not cross words; otherwise the pieces would be arbitrary stretches of the text. Now the two
# halves of a step: count the pairs, merge one.


# %%
def pair_counts(words):
    """How often each two tokens stand side by side."""
    counts = Counter()
    for word, count in words.items():
        for pair in pairwise(word):
            counts[pair] += count
    return counts


def merge(word, pair):
    """The word with every occurrence of the pair made one token."""
    merged, i = [], 0
    while i < len(word):
        step = 2 if word[i : i + 2] == pair else 1
        merged.append(b"".join(word[i : i + step]))
        i += step
    return tuple(merged)


# %%
toy_ranks = {bytes([b]): b for b in range(256)}  # token -> its number; the bytes come first
learnt = words
for _ in range(12):
    pair, count = pair_counts(learnt).most_common(1)[0]
    toy_ranks[b"".join(pair)] = len(toy_ranks)
    learnt = Counter({merge(word, pair): n for word, n in learnt.items()})
    print(f"token {len(toy_ranks) - 1} = {pair[0].decode()!r} + {pair[1].decode()!r}, seen {count} times")

# %% [markdown]
# After a dozen merges the frequent words are single tokens and the rare ones are still spelt out:

# %%
print(" | ".join(token.decode() for word in learnt for token in word))

# %% [markdown]
# ## Encoding with ranks
#
# The order in which tokens were learnt is all that an encoder needs; it is called their **rank**. To encode
# a new piece of text, cut it into bytes, then keep merging the two neighbours whose union has the *lowest*
# rank, until no union of neighbours is in the table. So the encoder repeats the merges in the order in
# which they were learnt.


# %%
def bpe(piece: bytes, ranks: dict[bytes, int]) -> list[int]:
    """Token ids of one piece of text."""
    tokens = [bytes([b]) for b in piece]
    while len(tokens) > 1:
        unions = [a + b for a, b in pairwise(tokens)]
        best = min(unions, key=lambda union: ranks.get(union, len(ranks)))
        if best not in ranks:
            break
        i = unions.index(best)
        tokens[i : i + 2] = [best]
    return [ranks[token] for token in tokens]


for text in ("shells", " seashells", " cash"):
    print(f"{text!r:14}", bpe(text.encode(), toy_ranks))

# %% [markdown]
# Numbers below 256 are plain bytes. ` seashells` was never seen, and yet it needs few tokens, because its
# parts were. ` cash` falls back to letters. Nothing can fail: every text is bytes, and every byte has a
# number.
#
# ## GPT-2's ranks
#
# GPT-2 did the same on 40 GB of web text and stopped at 50,000 merges. Its table ships inside gptcls, so we
# can look up any token. 256 bytes and 50,000 merges make 50,256; number 50,256 itself is `<|endoftext|>`,
# which marks the border between documents.

# %%
encoding = gpt2_encoding()
gpt2_ranks = {encoding.decode_single_token_bytes(rank): rank for rank in range(50256)}

print("vocabulary:     ", len(gpt2_ranks), "tokens and the special one,", repr(decode([PAD_ID])))
for name, start in (("first merges:   ", 256), ("around 10,000:  ", 10_000), ("the last merges:", 50_246)):
    print(name, [decode([rank]) for rank in range(start, start + 9)])

# %% [markdown]
# The first merges are the commonest pairs of English, around 10,000 they are ordinary words, and the last
# ones are what was left. Capitals and the space in front are part of a token.
#
# One more part is needed: the rule that cuts a text into pieces which merges never cross. GPT-2's rule is a
# regular expression, read from left to right as: a contraction, or letters, or digits, or other signs, each
# with one space before it if there is one, or white space.

# %%
PIECES = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def my_encode(text: str) -> list[int]:
    """GPT-2's tokenizer: cut into pieces, then merge inside each."""
    return [rank for piece in regex.findall(PIECES, text) for rank in bpe(piece.encode(), gpt2_ranks)]


print(regex.findall(PIECES, "You've WON £1000!! Call 0900-555"))
print(my_encode("Hello, I am"))

# %% [markdown]
# Is it the same tokenizer as the library's, which runs tiktoken's compiled code? We compare them on a few
# strings made to be difficult, and on every message of the course's data set: short texts, each with the
# label *spam*, an advertisement or a fraud that nobody asked for, or *ham*, everything else.

# %%
data = load_data(DATA)
difficult = [
    "",
    "   \n\t two  spaces ",
    "naïve café",
    "你好，世界",
    "👍🏽👍",
    "'S 'll don't",
    "a" * 300,
    "x²+½",
    "\u200b",
]
for text in [*data["text"], *difficult]:
    torch.testing.assert_close(torch.tensor(my_encode(text)), torch.tensor(encode(text)))
print(f"equal on {len(data) + len(difficult)} texts")

# %% [markdown]
# From here on we use the library's.
#
# ## Surprising tokenizations
#
# To the network, two texts are similar only if their tokens are. Look at what that means for one word:

# %%
for text in ("hello", " hello", "Hello", "HELLO", " HELLO", "h e l l o", "heIIo"):
    print(f"{text!r:12}", encode(text), [decode([i]) for i in encode(text)])

# %% [markdown]
# No two of them share their first token. The model has to learn from examples that `hello` and ` hello`
# mean the same; the spelling is not visible to it. The last line has two capital I's where the l's should
# be, an old trick of spammers: what looks the same to a person is a different list of numbers.
#
# Numbers, links and other alphabets:

# %%
for text in ("2024", "20245", "08712345678", "https://claim-now.example", "👍", "你好", "<|endoftext|>"):
    tokens = [encoding.decode_single_token_bytes(i) for i in encode(text)]
    print(
        f"{text!r:28} {len(tokens)} tokens:", *(token.decode(errors="backslashreplace") for token in tokens)
    )

# %% [markdown]
# - A number is cut wherever some digits happened to be frequent, so a network cannot easily tell a phone
#   number from a price by its length.
# - An emoji or a Chinese character, one sign to us, takes two or three tokens, because its bytes were rare
#   in GPT-2's text. A token may even be half a sign.
# - `<|endoftext|>` in a message is ordinary text here. A user must not be able to type a control token.
#
# Seen in colour, one box a token: plain words are one token each, while codes, links, capitals and the
# spelling of text messages fall into splinters.


# %%
def draw_tokens(axes, texts):
    """One row a text, one coloured box a token."""
    for row, text in enumerate(texts):
        column = 0
        for number, token in enumerate(encode(text)):
            string = decode([token])
            box = (column, row - 0.36), len(string), 0.72
            axes.add_patch(
                Rectangle(*box, facecolor=(SKY, ORANGE)[number % 2], alpha=0.55, edgecolor="white")
            )
            for letter in string:
                axes.text(column + 0.5, row, letter, family="monospace", ha="center", va="center", size=10)
                column += 1
        axes.text(column + 1, row, f"{len(encode(text))} tokens", va="center", size=10, color=BLUE)
    axes.set(xlim=(0, 78), ylim=(len(texts) - 0.4, -0.6))
    axes.axis("off")


messages = [
    "Running ten minutes late, could you order me a coffee please?",
    "see u 2moro nite, gr8 2 c u m8",
    "WINNER!! U have been selected 4 a £1000 prize, claim code XJ4471",
    "Txt STOP to 80455 or visit http://prize-4u.example/claim",
]
figure, axes = plt.subplots(figsize=(9, 2.3))
draw_tokens(axes, messages)
plt.show()

# %% [markdown]
# ## Padding, and what it costs
#
# Texts have different lengths, but a tensor is a rectangle. So the short rows of a batch are filled up with
# a **padding** token. GPT-2 has none; by custom its end-of-text token, 50256, stands in.

# %%
rows = [encode(text) for text in data["text"]]
lengths = np.array([len(row) for row in rows])
print(f"{len(rows)} messages, {lengths.mean():.1f} tokens on average, the longest has {lengths.max()}")


# %%
def my_pad(rows):
    """Rows of token ids as one rectangle, and how much of each row is real."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.full((len(rows), int(lengths.max())), PAD_ID)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return ids, lengths


mine, theirs = my_pad(rows[:8]), pad(rows[:8])
torch.testing.assert_close(mine, theirs)
print(mine[0][:, :10])
print("lengths:", mine[1].tolist())

# %% [markdown]
# We keep the lengths beside the ids. The rest of this course never looks for a padding token to find out
# where a text ends: a text may contain any token, but its length is its length.
#
# A padded position goes through every layer like a real one, and its result is thrown away. The book pads
# every message to the longest one of its training set. How much of the work is that?

# %%
BOOK_LONGEST, BOOK_MEAN = 120, 30.4  # tokens of the messages in the book's training set
longest = max(BOOK_LONGEST, int(lengths.max()))

print(
    f"the book's messages, padded to {BOOK_LONGEST}: {1 - BOOK_MEAN / BOOK_LONGEST:.1%} of all positions are padding"
)
print(f"the messages loaded here, padded to {longest}: {1 - lengths.mean() / longest:.1%}")
print(f"the same, padded to their longest, {lengths.max()}: {1 - lengths.mean() / lengths.max():.1%}")


# %% [markdown]
# Three quarters of the book's arithmetic is spent on nothing. Two ideas save most of it: pad each *batch*
# only to its own longest text, and put texts of similar length into one batch.


# %%
def padded_share(batches):
    """Share of the positions in these batches (lists of row numbers) that hold no token of a text."""
    positions = sum(len(batch) * lengths[batch].max() for batch in batches)
    return 1 - lengths.sum() / positions


def in_batches(order, size):
    """Row numbers cut into batches."""
    return [order[i : i + size] for i in range(0, len(order), size)]


shuffled = np.random.default_rng(123).permutation(len(rows))
by_length = np.argsort(lengths, kind="stable")
shares = {
    f"all to {longest} tokens, as in the book": 1 - lengths.mean() / longest,
    "all to the longest text": padded_share([np.arange(len(rows))]),
    "batches of 8, shuffled": padded_share(in_batches(shuffled, 8)),
    "batches of 8, by length": padded_share(in_batches(by_length, 8)),
    "up to 1,024 positions a batch, by length": padded_share(token_budget_batches(lengths.tolist(), 1024)),
}
figure, axes = plt.subplots(figsize=(7.2, 2.6))
bars = axes.barh(list(shares), [100 * share for share in shares.values()], color=BLUE)
axes.bar_label(bars, fmt="%.1f %%", padding=4)
axes.invert_yaxis()
axes.set(xlabel="positions that are padding (%)", xlim=(0, 100))
plt.show()

# %% [markdown]
# The same as a map: one line a message, real tokens dark, padding bright. On the left every line is as wide
# as the book makes it. On the right the same messages sorted by length, in batches of 8; the white part is
# never computed.

# %%
shown = shuffled[:160]
rectangle = np.where(np.arange(longest) < lengths[shown][:, None], 2, 1)
ordered = shown[np.argsort(lengths[shown], kind="stable")]
widths = np.concatenate([np.full(len(batch), lengths[batch].max()) for batch in in_batches(ordered, 8)])
stairs = np.where(np.arange(longest) < lengths[ordered][:, None], 2, np.arange(longest) < widths[:, None])

figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 4), sharey=True)
colours = ListedColormap(["white", ORANGE, BLUE])
for axes, picture, title in (
    (left, rectangle, "shuffled, all padded alike"),
    (right, stairs, "sorted, batches of 8"),
):
    axes.imshow(picture, cmap=colours, vmin=0, vmax=2, aspect="auto", interpolation="nearest")
    share = (picture == 1).sum() / (picture > 0).sum()
    axes.set(title=f"{title}: {share:.0%} padding", xlabel="position")
left.set_ylabel("message")
keys = [Rectangle((0, 0), 1, 1, color=colour) for colour in (BLUE, ORANGE)]
figure.legend(keys, ["token", "padding"], loc="outside lower center", ncols=2)
plt.show()

# %% [markdown]
# Sorting has a price: a batch of only short messages is not a random draw, and where spam is long it holds
# only ham. The library's training batches shuffle first, sort each class on its own within windows of 32
# batches, and shuffle the batches (`BucketSampler` in `gptcls/core/batches.py`); short and long rows of a
# batch then go through the network apart: nearly all of the saving, and still random.
#
# Could padding also change the *answer*? In the book it can: it reads the network's opinion at the last
# position, which is mostly padding. Chapter 2 shows why a real token never sees the padding behind it, and
# chapter 7 reads the last real token instead.
#
# ## Exercises
#
# **1.** Write `toy_decode(ids)`, which turns the toy vocabulary's ids back into text. Show that a sentence
# with letters that the toy never saw, even an emoji, survives encoding and decoding.

# %% tags=["solution"]
toy_tokens = {rank: token for token, rank in toy_ranks.items()}


def toy_decode(ids):
    """Put the tokens' bytes one after the other; only then is it UTF-8 again."""
    return b"".join(toy_tokens[i] for i in ids).decode()


sentence = "Zoë sells 3 🐚 by the sea shore"
ids = bpe(sentence.encode(), toy_ranks)
assert toy_decode(ids) == sentence
assert len(ids) < len(sentence.encode())
print(f"{len(sentence.encode())} bytes, {len(ids)} tokens")

# %% [markdown]
# **2.** Does spam take more tokens than ham for the same number of characters? Guess first, after what you
# saw above, then measure it. And which message of the data has the fewest characters a token?

# %% tags=["solution"]
characters = data["text"].str.len().to_numpy()
per_token = {}
for label in ("ham", "spam"):
    here = (data["label"] == label).to_numpy()
    per_token[label] = characters[here].sum() / lengths[here].sum()
    print(f"{label}: {per_token[label]:.2f} characters a token")
worst = int((characters / lengths).argmin())
print(repr(data["text"][worst]), [decode([i]) for i in rows[worst]])

# Codes and links are splinters, but they are few, and ham has short forms and typing errors of its own.
assert abs(per_token["spam"] - per_token["ham"]) < 1
assert (characters / lengths).min() < min(per_token.values())

# %% [markdown]
# **3.** How does the share of padding grow with the batch size when batches are drawn at random? Compute it
# for 1, 2, 4, … 256 texts a batch. What is it for one text, and why does it level off?

# %% tags=["solution"]
sizes = [2**n for n in range(9)]
waste = [padded_share(in_batches(shuffled, size)) for size in sizes]
for size, share in zip(sizes, waste, strict=True):
    print(f"{size:4} texts a batch: {share:6.1%} padding")

assert waste[0] == 0  # one text needs no padding
assert all(a < b for a, b in pairwise(waste[:6]))
# Once nearly every batch holds one of the longest texts, a larger batch cannot be padded much further.
assert waste[-1] <= padded_share([shuffled])

# %% [markdown]
# ## What changed from the book
#
# | | the book | here |
# | --- | --- | --- |
# | the tokenizer | `tiktoken.get_encoding("gpt2")`, which downloads its ranks | the same ranks, shipped with the package |
# | `<\|endoftext\|>` in a message | an error, unless it is allowed | ordinary text |
# | a text's end | not known after padding | `lengths` goes along with every batch |
# | padding | all to the longest training text | each batch to its own longest, texts of similar length together |
#
# Next: [2. Attention](02_attention.ipynb), where the tokens begin to talk to each other.
