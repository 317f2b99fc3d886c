# %% [markdown]
# # 6. The data
#
# A classifier is no better than the messages it is shown, and most mistakes with data make no noise: half a
# file, two rows that vanish, a test message that was also trained on. This chapter follows the messages
# from the network to the batch, provokes each of these mistakes, and repairs it.
#
# **What you will learn**
#
# - how to download a file so that half of it never passes for the whole;
# - how two of 5,574 messages get lost in the book's reading of the file, shown on five lines;
# - why repeated messages must go before the split, and what *stratified* means;
# - how rows become batches: a `Dataset`, a `DataLoader`, and padding in batches of similar length.

# %%
import csv
import hashlib
import os
import shutil
import tempfile
import threading
import urllib.request
from collections import Counter
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset

from gptcls import InputError
from gptcls.core.batches import BucketSampler, TextDataset, pad, plain_loader
from gptcls.core.task import SingleLabel, class_weights
from gptcls.core.tokenizer import PAD_ID, encode
from gptcls.data.book import read_as_book, split_as_book
from gptcls.data.download import data_folder, sms_spam_file
from gptcls.data.resample import undersample
from gptcls.data.sources import load_data
from gptcls.data.split import drop_duplicates, make_split
from gptcls.evaluation.style import BLUE, GREY, ORANGE, VERMILION, use_style
from gptcls.fast.parts import by_length

use_style()
DATA = "sms-sample"  # "sms-spam" downloads the SMS Spam Collection

# %% [markdown]
# ## Where the messages come from
#
# The book, and most who write about spam in messages, use the *SMS Spam Collection* of Almeida and Gómez
# Hidalgo, number 228 in the UCI Machine Learning Repository: one text file, a message a line. It is free to
# use, but it has to be fetched. So that this course runs without a network, gptcls brings a sample of its
# own: messages written for it, in the same form.
#
# ## Downloading is not copying
#
# A download can end in four ways: well, not at all, in the middle, or with something else, such as the
# login page of a hotel's network. To see them all we start a small web server inside this notebook. It
# offers one file under three addresses.

# %%
CONTENT = "".join(f"ham\tmessage number {i}\n" for i in range(5000)).encode()
PAGES = {"/whole": CONTENT, "/broken": CONTENT[:60_000], "/login": b"<html>Please log in</html>"}
asked = []  # the requests that arrived


class Server(BaseHTTPRequestHandler):
    """Three answers; the broken one promises the whole file and hangs up too early."""

    def do_GET(self):
        asked.append(self.path)
        body = PAGES[self.path]
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT if self.path == "/broken" else body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Say nothing."""


server = ThreadingHTTPServer(("127.0.0.1", 0), Server)  # port 0: any that is free
threading.Thread(target=server.serve_forever, daemon=True).start()
SITE = f"http://127.0.0.1:{server.server_port}"
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# First the obvious way, piece by piece into the file that we want:


# %%
def fetch(url, path):
    """Write what comes to ``path``."""
    with urllib.request.urlopen(url) as response, path.open("wb") as file:
        shutil.copyfileobj(response, file)


def naive_download(url, path):
    """The file at ``path``, unless it was downloaded before."""
    if not path.exists():
        fetch(url, path)


for page in ("/broken", "/whole"):
    path = folder / "naive.txt"
    try:
        naive_download(SITE + page, path)
    except Exception as error:
        print("an error:", type(error).__name__)
    print(f"after {page}: {path.stat().st_size:,} of {len(CONTENT):,} bytes")

# %% [markdown]
# The second line is the worse one. The file is there, so the second attempt does not even try: a broken
# download stays broken until somebody wonders about the results. Three habits help.
#
# - **A checksum.** SHA-256 turns any content into 64 hexadecimal digits. One changed letter gives quite
#   different ones, so whoever knows the digits of the right file can tell whether ours is the same.
# - **A temporary name.** Write beside the target, check, and only then rename. Renaming inside one folder is
#   *atomic*: there is no moment at which half of it is done.
# - **Several addresses.** If the first has gone, the next may work.

# %%
for content in (b"message number 1", b"message number 2"):
    print(content.decode(), hashlib.sha256(content).hexdigest()[:32], "…")


def my_download(urls, path, sha256):
    """The file with that checksum at ``path``, from the first address that has it; or nothing at all."""
    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
        return "was there"
    problems = []
    for url in urls:
        temporary = path.with_name(path.name + ".partial")
        try:
            fetch(url, temporary)
            if hashlib.sha256(temporary.read_bytes()).hexdigest() == sha256:
                os.replace(temporary, path)
                return "downloaded"
            problems.append(f"{url.removeprefix(SITE)} gave {temporary.stat().st_size:,} other bytes")
        except (OSError, HTTPException) as error:
            problems.append(f"{url.removeprefix(SITE)}: {error}")
        finally:
            temporary.unlink(missing_ok=True)
    raise InputError(f"no address had the file: {'; '.join(problems)}")


SHA256 = hashlib.sha256(CONTENT).hexdigest()
path = folder / "mine.txt"
try:
    my_download([SITE + "/broken", SITE + "/login"], path, SHA256)
except InputError as error:
    print(error)
assert not list(folder.glob("mine*"))  # nothing is left, not even a piece

every = [SITE + page for page in ("/broken", "/login", "/whole")]
print(my_download(every, path, SHA256), "after", len(asked), "requests in all")
print(my_download(every, path, SHA256), "after", len(asked), "requests in all")
assert path.read_bytes() == CONTENT

# %% [markdown]
# `DATA = "sms-spam"` does the same with UCI's address, the mirror that the book uses, and the known
# checksum. Pointed at our server it must refuse, and leave nothing:

# %%
try:
    sms_spam_file(folder / "uci", urls=(SITE + "/login", SITE + "/whole"))
except InputError as error:
    print(str(error).replace(SITE, "…").split(". ")[0])
assert not (folder / "uci").exists() or not list((folder / "uci").iterdir())
server.shutdown()
server.server_close()

# %% [markdown]
# ## The rows that quoting swallows
#
# The file's format could not be simpler: a label, a tab, the message. Here are five lines of that kind, in
# which people use quotation marks as people do:

# %%
LINES = """\
ham\tDid you like "Jaws"?
ham\t"Worst film ever" is what Ben says
ham\t"A friend is somebody who knows all about you. Good night
ham\tWhat time is the train?
spam\tText CLAIM to 80455 for a prize. Be the next to shout "I WON!"
"""
five = folder / "five.txt"
five.write_text(LINES, encoding="utf-8")

default = pd.read_csv(five, sep="\t", header=None, names=["label", "text"])
for label, text in default.itertuples(index=False):
    print(f"{label:5} {text!r}")

# %% [markdown]
# Five lines, three rows, and no word of warning. pandas takes a quotation mark at the beginning of a field
# for CSV's quoting: everything up to the next one belongs to the field, tabs and line ends included. So
# the third message swallowed two others, one of them spam, and the second lost its quotation marks. The
# cure is one argument; the library knows the format and reads it so by itself.

# %%
plain = pd.read_csv(five, sep="\t", header=None, names=["label", "text"], quoting=csv.QUOTE_NONE)
assert plain["text"].tolist() == [line.split("\t")[1] for line in LINES.splitlines()]
pd.testing.assert_frame_equal(plain[["text", "label"]], load_data(five), check_dtype=False)
print(f"by default {len(default)} rows, without quoting {len(plain)}")

# %% [markdown]
# The book reads the real file in the first way, and so gets 5,572 of its 5,574 rows: one message opens a
# quotation that is closed two lines further down. If the file is there we look at it:

# %%
if DATA == "sms-spam":
    path = sms_spam_file()
    swallowed = read_as_book(path)
    print(f"as the book reads it {len(swallowed):,} rows, line by line {len(load_data(path)):,}")
    for text in swallowed["text"][swallowed["text"].str.contains("\n")]:
        print(*(f"    {line[:70]}" for line in text.split("\n")), sep="\n")
else:
    print(f'DATA = "sms-spam" would download it into the folder {data_folder()} and show the place')

# %% [markdown]
# ## Looking at it
#
# Read the data before any program does. Ten messages drawn at random tell more than a table of statistics:

# %%
data = load_data(DATA)
print(f"{len(data):,} rows, {dict(Counter(data['label']))}")
for label, text in data.sample(10, random_state=5)[["label", "text"]].itertuples(index=False):
    print(f"{label:5} {text if len(text) < 90 else text[:89] + '…'}")

# %% [markdown]
# Two things are worth a picture. **Lengths:** if spam is longer than ham, then a classifier may learn to
# count instead of to read, and the longest message decides how much padding there is. **Balance:** how much
# of each class is there? The numbers of the SMS Spam Collection stand beside those of our sample.

# %%
UCI = {"ham": 4827, "spam": 747}
length_of = data["text"].map(lambda text: len(encode(text)))

figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.6), width_ratios=(1.5, 1))
bins = np.arange(0, length_of.max() + 5, 4)
for label, colour, hatch in (("ham", BLUE, ""), ("spam", ORANGE, "//")):
    here = length_of[data["label"] == label]
    name = f"{label}, mean {here.mean():.1f}"
    left.hist(here, bins, alpha=0.6, color=colour, hatch=hatch, edgecolor="white", label=name)
left.set(title="lengths", xlabel="tokens in a message", ylabel="messages")
left.legend()

counts = {DATA: Counter(data["label"]), "the SMS Spam\nCollection": UCI}
bottom = np.zeros(len(counts))
for label, colour, hatch in (("ham", BLUE, ""), ("spam", ORANGE, "//")):
    share = np.array([100 * count[label] / sum(count.values()) for count in counts.values()])
    bars = right.bar(
        list(counts), share, 0.6, bottom, color=colour, alpha=0.6, hatch=hatch, edgecolor="white"
    )
    right.bar_label(bars, [f"{label} {s:.0f} %" for s in share], label_type="center")
    bottom += share
right.set(title="balance", ylabel="share of the messages (%)")
plt.show()

# %% [markdown]
# ## Balance
#
# In the real collection spam is rare. A program that says "ham" to everything is then right most of the
# time, and worthless. There are three common answers:
#
# - **Undersampling**, as in the book: throw ham away until there is as much of it as spam. Simple, and it
#   makes accuracy easy to read, but most of the data is gone, and the classifier learns a world in which
#   every second message is spam.
# - **Class weights**: keep everything, and let each mistake on the rare class count more (chapter 8). A class
#   weighs all rows / (number of classes · its own rows).
# - **Nothing**, and judge by scores that know of the two kinds of mistakes (chapter 10).

# %%
everything = ["ham"] * UCI["ham"] + ["spam"] * UCI["spam"]
print(f"always saying ham to the collection: accuracy {UCI['ham'] / len(everything):.1%}")
print("weights:", [round(weight, 3) for weight in class_weights(everything, ["ham", "spam"])])

frame = pd.DataFrame({"text": [f"message {i}" for i in range(len(everything))], "label": everything})
balanced = undersample(frame, seed=123)
print(
    f"undersampled: {dict(Counter(balanced['label']))}, {len(balanced) / len(frame):.0%} of the rows are left"
)

# %% [markdown]
# ## Duplicates
#
# Chain messages and advertisements are sent more than once. If one copy is drawn for training and another
# for the test, the test asks for something that was learnt by heart. The bundled sample has no repeats, so
# we make some, as many for its size as the SMS Spam Collection has, together with two texts that stand under
# both labels. Of one, the majority of its rows decides. Of the other nobody can say which is right, so its
# rows go.


# %%
def my_drop_duplicates(frame):
    """Each text once, under the label of most of its rows, and how many there were; none that is a tie."""
    labels = {}
    for text, label in zip(frame["text"], frame["label"], strict=True):
        labels.setdefault(text, []).append(label)
    rows = []
    for text, found in labels.items():
        (label, most), *others = Counter(found).most_common()
        if not others or others[0][1] < most:
            rows.append((text, label, len(found)))
    return pd.DataFrame(rows, columns=["text", "label", "rows"])


UCI_REPEATS = 403  # rows of the collection whose text stands in an earlier row
share = UCI_REPEATS / sum(UCI.values())
print(f"{UCI_REPEATS} of the collection's {sum(UCI.values()):,} rows, {share:.1%}, are repeats")

repeats = data.sample(round(share * len(data)), random_state=1, replace=True)
texts = ["Call me now"] * 2 + ["Ring me back"] * 3
both = pd.DataFrame({"text": texts, "label": ["ham", "spam", "ham", "ham", "spam"]})
messy = pd.concat([data, repeats, both], ignore_index=True)
mine, library = my_drop_duplicates(messy), drop_duplicates(messy)
pd.testing.assert_frame_equal(mine, library, check_dtype=False)
print(f"{len(messy)} rows, {messy['text'].nunique()} different texts, {len(library)} kept")

book = split_as_book(messy)  # shuffled and cut, as in the book
leaked = book.test["text"].isin(book.train["text"]).sum()
print(f"split with the repeats still there: {leaked} of {len(book.test)} test messages stand in train too")

# %% [markdown]
# Chapter 10 measures what such a leak does to the score. In a chat, where "ok" comes again and again and is
# what people say, training can still see every text as often as it stands there (`--repeats keep` or
# `weight`): the split draws texts instead of rows, so that each stays on one side.
#
# ## The split
#
# Three parts: one to train on, one to look at while training, one for a single look at the end. If they are
# drawn blindly, one part gets more spam than another by accident. A **stratified** split draws the same
# share of each class instead. Per class: shuffle its rows, cut.


# %%
def my_split(frame, validation=0.1, test=0.2, seed=123):
    """Train, validation and test, class by class."""
    random = np.random.RandomState(seed)
    parts = {"train": [], "validation": [], "test": []}
    for label in sorted(set(frame["label"])):
        rows = random.permutation(np.flatnonzero(frame["label"] == label))
        first = round(validation * len(rows))
        second = first + round(test * len(rows))
        for name, drawn in zip(("validation", "test", "train"), np.split(rows, [first, second]), strict=True):
            parts[name].extend(drawn)
    return {name: frame.iloc[sorted(rows)].reset_index(drop=True) for name, rows in parts.items()}


clean = drop_duplicates(data)
mine, split = my_split(clean), make_split(clean)
for name, part in split.items():
    pd.testing.assert_frame_equal(mine[name], part)
    print(f"{name:10} {len(part):5} rows, {(part['label'] == 'spam').mean():.1%} spam")
assert not split.test["text"].isin([*split.train["text"], *split.validation["text"]]).any()

# %% [markdown]
# The library's does one thing more: if a text stands in two parts all the same, since somebody brought a
# test file of their own, it is taken out of train. How much does stratifying matter? Draw five hundred
# splits either way and look at the share of spam in the test part.

# %%
spam = (clean["label"] == "spam").to_numpy()
n_test = len(split.test)
blind = [spam[np.random.RandomState(seed).permutation(len(spam))[:n_test]].mean() for seed in range(500)]
stratified = (split.test["label"] == "spam").mean()

figure, axes = plt.subplots(figsize=(7.2, 3.2))
axes.hist(100 * np.array(blind), 25, color=GREY, alpha=0.6, edgecolor="white", label="500 blind draws")
axes.axvline(100 * stratified, color=VERMILION, lw=2, ls="--", label="stratified, whatever the seed")
axes.set(xlabel=f"spam among the {n_test} test messages (%)", ylabel="draws")
figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
plt.show()
print(f"blind draws lie between {min(blind):.0%} and {max(blind):.0%}")

# %% [markdown]
# ## Dataset and DataLoader
#
# PyTorch divides the work in two. A `Dataset` knows how many rows there are and what row number i is: here
# its token ids and its class as a number. A `DataLoader` draws row numbers, fetches the rows, and has them
# made into one batch by a *collate* function. Classes are numbered in the order of their names, which
# `SingleLabel` keeps, so that 0 is ham and 1 is spam.

# %%
task = SingleLabel.of(split.train["label"])
print(task.labels, task.targets(["spam", "ham"]))


class MyDataset(Dataset):
    """Token ids and class, row by row."""

    def __init__(self, frame, max_length):
        self.rows = [encode(text)[:max_length] for text in frame["text"]]
        self.targets = [task.labels.index(label) for label in frame["label"]]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i], self.targets[i]


def my_collate(items):
    """Rows -> ids (B, T), padded on the right, lengths (B,), targets (B,)."""
    lengths = torch.tensor([len(row) for row, _ in items])
    ids = torch.full((len(items), int(lengths.max())), PAD_ID)
    for i, (row, _) in enumerate(items):
        ids[i, : len(row)] = torch.tensor(row)
    return ids, lengths, torch.tensor([target for _, target in items])


def library_dataset(frame):
    return TextDataset(frame["text"].tolist(), task.targets(frame["label"].tolist()), max_length=256)


mine, library = MyDataset(split.train, 256), library_dataset(split.train)
for shuffle in (False, True):
    # While training: in random order, and without the last batch if it is not full.
    my_loader = DataLoader(mine, 8, shuffle=shuffle, drop_last=shuffle, collate_fn=my_collate)
    its_loader = plain_loader(library, 8, shuffle=shuffle)
    torch.manual_seed(123)
    my_batches = list(my_loader)
    torch.manual_seed(123)
    torch.testing.assert_close(my_batches, list(its_loader))
    print(f"shuffle={shuffle}: {len(my_batches)} batches, the last of {len(my_batches[-1][0])} rows")
ids, lengths, targets = my_batches[0]
print("one batch:", list(ids.shape), "lengths", lengths.tolist(), "targets", targets.tolist())

# %% [markdown]
# ## Batches of similar length
#
# Every batch is as wide as its longest row (chapter 1). Sorting would make the batches narrow but leave
# nothing to chance: first all the short ones, always with the same neighbours. The compromise: shuffle, cut
# into *windows* of many batches, sort inside each window, and shuffle the batches.
#
# There is a catch: spam is long. Sorted by length alone, many batches hold one class, and a step that has
# seen only ham learns to say ham. So each row is sorted by its place among its own class, from the shortest
# (0) to the longest (1): short ham then meets short spam, and every batch holds both in their shares.


# %%
def my_sorted(rows, lengths, classes):
    """The rows of a window by their place in their own class."""
    rows = rows[lengths[rows].argsort(stable=True)]
    places = torch.empty(len(rows))
    for one in classes[rows].unique():
        own = classes[rows] == one
        places[own] = (torch.arange(int(own.sum())) + torch.rand(())) / own.sum()
    return rows[places.argsort(stable=True)]


def my_buckets(lengths, classes, batch_size, window=32):
    """Row numbers in batches of similar length, drawn anew each time."""
    windows = torch.randperm(len(lengths)).split(window * batch_size)
    rows = torch.cat([my_sorted(rows, lengths, classes) for rows in windows])
    sizes = [len(batch) for batch in rows.split(batch_size)]
    first = window * (
        len(windows) - 1
    )  # batch of the last window: any of its batches may be the incomplete one
    sizes.insert(int(torch.randint(first, len(sizes), ())), sizes.pop())
    batches = rows.split(sizes)
    return [batches[i].tolist() for i in torch.randperm(len(batches))]


lengths, classes = torch.tensor(library.lengths), library.targets
torch.manual_seed(123)
mine = my_buckets(lengths, classes, 8)
torch.manual_seed(123)
assert mine == list(BucketSampler(library.lengths, 8, classes))
assert sorted(row for batch in mine for row in batch) == list(range(len(lengths)))  # every row once

by_length_alone = list(BucketSampler(library.lengths, 8))
shuffled = [batch.tolist() for batch in torch.randperm(len(lengths)).split(8)]
for what, batches in (("shuffled", shuffled), ("sorted by length", by_length_alone), ("by place", mine)):
    share = np.mean([len(classes[batch].unique()) == 1 for batch in batches])
    print(f"{what}: {share:.0%} of the batches hold one class")

# %% [markdown]
# A batch now holds short ham beside longer spam, and would be padded to the spam. It need not go through the
# network in one piece: gradients add up, so the library cuts it where its lengths jump (`by_length` in
# `gptcls/fast/parts.py`), and takes one step for all its parts.

# %%
parts = []
for batch in mine:
    whole = *pad([library.rows[row] for row in batch]), torch.tensor(batch)  # each row's number as its target
    parts += [numbers.tolist() for _, _, numbers in by_length(whole, worth=32)]

figure, grid = plt.subplots(1, 2, figsize=(9.2, 3.6), sharey=True)
for axes, batches, title in zip(
    grid, (shuffled, parts), ("shuffled", "by place, cut by length"), strict=True
):
    widths = np.array([int(lengths[batch].max()) for batch in batches])
    means = np.array([float(lengths[batch].float().mean()) for batch in batches])
    positions = sum(width * len(batch) for width, batch in zip(widths, batches, strict=True))
    axes.bar(range(len(batches)), widths, 1, color=ORANGE, label="padding")
    axes.bar(range(len(batches)), means, 1, color=BLUE, label="tokens")
    axes.set(
        title=f"{title}: {1 - lengths.sum() / positions:.0%} padding", xlabel="batch of 8, or part of one"
    )
grid[0].set_ylabel("positions in a row, mean")
figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
plt.show()

# %% [markdown]
# Each bar is a batch, on the right a part: its height is what is computed for each of its rows, blue what is a token of it. On
# the right the bars differ more, and there is hardly any orange. Since the network is told the lengths,
# padding changes no answer, only the time (chapter 7).
#
# ## Exercises
#
# **1.** Spammers change a digit or a capital in each copy. Write `key(text)`, the same for two texts that
# differ only in case, digits, punctuation and spaces, and count how many of the data's messages have such a
# twin. Check your function on the two messages below.

# %% tags=["solution"]
TWINS = "WINNER! Call 0909 8790 111 now", "winner, call 0909 8790 222 NOW!!"


def key(text):
    """The letters of a text, nothing else."""
    return "".join(letter for letter in text.lower() if letter.isalpha())


assert key(TWINS[0]) == key(TWINS[1])
assert key(TWINS[0]) != key("Winner, call later")
for name, found in (("the data", list(data["text"])), ("the data and these two", [*data["text"], *TWINS])):
    groups = Counter(filter(None, map(key, found)))  # a message of digits alone has no letters to compare
    print(f"{name}: {sum(n for n in groups.values() if n > 1)} messages have a twin")

# %% [markdown]
# **2.** Write the book's split: shuffle with `frame.sample(frac=1, random_state=123)`, then cut at 70 and 80
# per cent. Compare it with the library's `split_as_book`, and print the share of spam in the three parts.


# %% tags=["solution"]
def my_book_split(frame):
    """Shuffle, then cut at 70 and 80 per cent; not stratified."""
    frame = frame.sample(frac=1, random_state=123).reset_index(drop=True)
    first = int(0.7 * len(frame))
    second = first + int(0.1 * len(frame))
    return [part.reset_index(drop=True) for part in (frame[:first], frame[first:second], frame[second:])]


for part, (name, its) in zip(my_book_split(data), split_as_book(data).items(), strict=True):
    pd.testing.assert_frame_equal(part, its)
    print(f"{name:10} {len(part):5} rows, {(part['label'] == 'spam').mean():.1%} spam")

# %% [markdown]
# **3.** `max_length` cuts long texts. For each length from 10 to 100 in steps of 10: what share of the
# messages is cut, and what share of all tokens is lost? `TextDataset` counts the cut ones, so check yourself
# against `truncated`.

# %% tags=["solution"]
n_tokens = length_of.to_numpy()
for limit in range(10, 101, 10):
    cut, lost = n_tokens > limit, np.maximum(n_tokens - limit, 0).sum()
    dataset = TextDataset(data["text"].tolist(), task.targets(data["label"].tolist()), limit)
    assert dataset.truncated == cut.sum()
    assert sum(dataset.lengths) == n_tokens.sum() - lost
    print(
        f"at most {limit:3} tokens: {cut.mean():6.1%} of the messages cut, {lost / n_tokens.sum():6.1%} lost"
    )

# %% [markdown]
# ## What changed from the book
#
# | | the book | here |
# | --- | --- | --- |
# | download | written in place, no checksum, two addresses | checked and renamed, nothing left of a failure; the same two addresses |
# | reading | pandas' quoting swallows two rows | a line is a message |
# | repeats | stay, on both sides of the split | dropped before the split |
# | balance | undersampled to 747 of each | all rows; weights or sampling by choice |
# | split | blind, 70 / 10 / 20 | stratified, 70 / 10 / 20, no text in two parts |
# | a batch | ids, targets | ids, lengths, targets |
# | padding | to the longest training text | to the longest of a batch of similar lengths |
#
# Next: [7. A new head](07_head.ipynb), which the messages are to train.
