# %% [markdown]
# # 7. The data
#
# Most mistakes with data are silent: rows that vanish, a test message that was also trained on, batches
# that are mostly padding. We follow the messages from the file to the batch, make each mistake, and repair it.
#
# **What you will learn**
#
# - how reading a file can lose rows without a warning;
# - what a repeat is, and an honest split: stratified, and no text in two parts;
# - padding, the lengths that go with it, what it costs, and batches of similar length.
#
# <details><summary>中文提要</summary>
#
# 数据里的错误往往悄无声息：读文件时引号会"吞掉"几行；同一条短信换个大小写或标点重复出现，造成数据泄漏（leak）。
# 划分训练集、验证集（validation set）和测试集要分层（stratified）。长短不一的文本要补齐（padding），同时保存真实长度
# （lengths），并测量补齐浪费了多少位置；最后手写 Dataset、DataLoader 和按长度分桶（length bucketing）的批次。
#
# </details>

# %%
import io
import os

import matplotlib.pyplot as plt
import pandas as pd
import torch

from gptcls.core import batches, tokenizer
from gptcls.data import sources, split
from gptcls.data.same_text import text_key
from gptcls.evaluation import style
from gptcls.models.pretrained import load_pretrained

style.use_style()
DATA = os.environ.get("COURSE_SMS", "sms-sample")  # "sms-spam" downloads UCI's 5,574 messages, 0.2 MB

# %% [markdown]
# The outputs you see come from UCI's SMS Spam Collection; run without it, the notebook uses the 520 messages
# that come with the package, and prints other numbers.
#
# ## Rows that quoting swallows
#
# A line of the file is a **label**, a tab, a message. People use quotation marks freely; here are four lines.

# %%
LINES = """\
ham\t"Worst film ever" is what Ben says
ham\t"A friend is somebody who knows all about you. Good night
ham\tWhat time is the train?
spam\tText CLAIM to 80455 for a prize. Be the next to shout "I WON!"
"""


def read(file, quoting):  # 0 is the default; 3 takes a quotation mark like any other character
    return pd.read_csv(file, sep="\t", header=None, names=["label", "text"], quoting=quoting)


for row in read(io.StringIO(LINES), 0).itertuples():
    print(f"{row.label:5} {row.text!r}")
assert read(io.StringIO(LINES), 3)["text"].tolist() == [line.split("\t")[1] for line in LINES.splitlines()]
if os.path.isfile(DATA):
    print(f"the collection: by default {len(read(DATA, 0)):,} rows, without quoting {len(read(DATA, 3)):,}")

# %% [markdown]
# Four lines, two rows, no warning. pandas takes a quotation mark at the start of a field for CSV's quoting:
# all up to the next one belongs to the field, tabs and line ends included. `load_data` reads without quoting.
#
# ## Repeats
#
# Chain messages and advertisements are sent more than once, often with other marks or capitals. We call texts
# the same if their letters and digits are, in Unicode's compatibility form (NFKC), without regard to case. We
# keep the first row of each text, under the label of most of its rows; without a majority, all are dropped.


# %%
def my_key(texts):
    """What is compared of each text; of one without letters and digits, all but the white space."""
    key = texts.str.normalize("NFKC").str.casefold().str.replace(r"[\W_]", "", regex=True)
    return key.where(key != "", texts.str.replace(r"\s", "", regex=True))


def my_drop_duplicates(frame):
    rows = []
    for _, same in frame.groupby(my_key(frame["text"]), sort=False):
        labels = same["label"].tolist()
        label = max(labels, key=labels.count)
        if 2 * labels.count(label) > len(labels):
            rows.append((same["text"].iloc[0], label, len(labels)))
    return pd.DataFrame(rows, columns=["text", "label", "rows"])


data = sources.load_data(DATA)
assert my_key(data["text"]).tolist() == data["text"].map(text_key).tolist()
print(my_key(pd.Series(["FREE entry!!", "Free Entry", "１００元 免费", "100元免费。", ": )"])).tolist())
exact, by_key = (texts.duplicated().sum() for texts in (data["text"], my_key(data["text"])))
print(f"{len(data):,} messages, {exact} repeat an earlier one to the letter, {by_key} by our key")
own = [("Call me", "ham"), ("call me!", "spam"), ("Ring me", "ham"), ("ring me", "ham"), ("RING me.", "spam")]
print(my_drop_duplicates(pd.DataFrame(own, columns=["text", "label"])).values.tolist())
clean = my_drop_duplicates(data)[["text", "label"]]
pd.testing.assert_frame_equal(clean, split.drop_duplicates(data)[["text", "label"]], check_dtype=False)
leaks = []
for seed in range(20):  # a fifth of the rows as a test part, drawn with the repeats still there
    key = my_key(data["text"].sample(frac=1, random_state=seed))
    leaks.append(key[: len(key) // 5].isin(key[len(key) // 5 :]).sum())
print(f"{len(clean):,} kept; else ~{sum(leaks) / 20:.0f} of {len(key) // 5:,} test texts are in train too")

# %% [markdown]
# ## The split
#
# A test text that was trained on may be answered from memory (chapter 12 measures what that does to a score).
# Train on one part, choose settings by a second (validation), look at the third (test) once. Drawn blindly, one
# part gets more spam than another. A **stratified** split shuffles and cuts each class alone.


# %%
def my_split(frame, validation=0.1, test=0.2, seed=123):
    parts = {"train": [], "validation": [], "test": []}
    for _, rows in frame.groupby("label"):
        rows = rows.sample(frac=1, random_state=seed)
        first = round(validation * len(rows))
        second = first + round(test * len(rows))
        for name, start, end in (("validation", 0, first), ("test", first, second), ("train", second, None)):
            parts[name].append(rows[start:end])
    return {name: pd.concat(each, ignore_index=True) for name, each in parts.items()}


parts = my_split(clean)
for name, part in split.make_split(clean).items():
    assert parts[name]["label"].value_counts().to_dict() == part["label"].value_counts().to_dict()
    print(f"{name:10} {len(parts[name]):5,} rows, {(parts[name]['label'] == 'spam').mean():.1%} spam")
assert not pd.concat([my_key(part["text"]) for part in parts.values()]).duplicated().any()

blind = [
    (clean["label"].sample(len(parts["test"]), random_state=seed) == "spam").mean() for seed in range(500)
]
print(f"500 blind draws of as many test messages: from {min(blind):.1%} to {max(blind):.1%} spam")

# %% [markdown]
# ## Padding
#
# Texts have different lengths, and a tensor is a rectangle. So the shorter rows of a batch are filled with a
# **padding** token. GPT-2 has none; by custom its end-of-text token, 50256, stands in. A text may hold any
# token, so we never look for padding to find the end of a text: the **lengths** go along with the ids.


# %%
def my_pad(rows):
    """Rows of ids -> ids (B, T), padded on the right, and lengths (B,)."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.full((len(rows), int(lengths.max())), tokenizer.PAD_ID)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return ids, lengths


rows = [tokenizer.encode(text)[:256] for text in ("See you at six", "你好", "WINNER! Claim your prize now")]
ids, lengths = my_pad(rows)
torch.testing.assert_close((ids, lengths), batches.pad(rows))
print(ids, lengths, sep="\n")
model = load_pretrained("gpt2-nano")
with torch.no_grad():
    torch.testing.assert_close(model(ids)[1, :4], model(torch.tensor([rows[1]]))[0], rtol=1e-4, atol=1e-4)
print("the second text has the same vectors with and without padding behind it, up to rounding")

# %% [markdown]
# Under the causal mask no token sees what follows it (chapter 2), so padding changes no text's vectors. What
# it does change: the last position of a row is no longer its last token; that is at `lengths - 1`.
#
# ## Dataset and DataLoader
#
# A `Dataset` knows how many rows there are and what row number i is: token ids and the class as a number. A
# `DataLoader` draws row numbers and has the rows made into one batch by a *collate* function.


# %%
class MyDataset(torch.utils.data.Dataset):
    def __init__(self, frame, max_length=256):
        self.rows = [tokenizer.encode(text)[:max_length] for text in frame["text"]]
        self.targets = torch.tensor((frame["label"] == "spam").to_numpy()).long()  # 0 is ham, 1 spam

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i], self.targets[i]


def my_collate(items):
    return *my_pad([row for row, _ in items]), torch.stack([target for _, target in items])


mine = MyDataset(parts["train"])
lengths = torch.tensor([len(row) for row in mine.rows])
library = batches.TextDataset(parts["train"]["text"].tolist(), mine.targets, max_length=256)
torch.manual_seed(123)
shuffled = list(torch.utils.data.DataLoader(mine, 16, shuffle=True, drop_last=True, collate_fn=my_collate))
torch.manual_seed(123)
torch.testing.assert_close(shuffled, list(batches.plain_loader(library, 16, shuffle=True)))
print(f"{len(mine):,} rows, {len(shuffled)} batches, the first of shape {tuple(shuffled[0][0].shape)}")

# %% [markdown]
# ## Batches of similar length
#
# A padded position costs as much as a real one, and a batch is as wide as its longest text. Sorting all rows
# would give the same batches in every epoch. Instead shuffle, cut into *windows* of 32 batches, sort inside
# each, cut it into batches, and shuffle these: **length bucketing**. How much padding does each order leave?


# %%
def my_buckets(batch_size, window=32):
    """Row numbers in batches of similar length, drawn anew each time."""
    windows = torch.randperm(len(lengths)).split(window * batch_size)
    rows = torch.cat([rows[lengths[rows].argsort(stable=True)] for rows in windows])
    found = list(rows.split(batch_size))
    return [found[i] for i in torch.randperm(len(found))]


def my_parts(rows):
    """A batch in two parts, the shorter and the longer rows, cut where that saves the most positions."""
    rows = rows[lengths[rows].argsort()]
    saved = torch.arange(1, len(rows)) * (lengths[rows[-1]] - lengths[rows[:-1]])
    return rows.tensor_split([int(saved.argmax()) + 1])


torch.manual_seed(123)
by_class = [torch.tensor(rows) for rows in batches.BucketSampler(library.lengths, 16, mine.targets)]
orders = {
    "all rows to one length": [torch.randperm(len(lengths))],
    "batches of 16, shuffled": torch.randperm(len(lengths)).split(16),
    "batches of 16, by length": my_buckets(16),
    "by class and length": by_class,
    "by class and length, two parts": [part for rows in by_class for part in my_parts(rows)],
}
shares = {}
for name, groups in orders.items():
    assert torch.equal(torch.cat(list(groups)).sort().values, torch.arange(len(lengths)))  # every row once
    positions = sum(len(rows) * int(lengths[rows].max()) for rows in groups)
    shares[name] = 100 * (1 - int(lengths.sum()) / positions)
    alone = sum(len(mine.targets[rows].unique()) == 1 for rows in groups) / len(groups)
    one_class = "" if "two parts" in name else f"{alone:4.0%} of the batches hold one class"
    print(f"{name:31} {shares[name]:3.0f} % padding  {one_class}".rstrip())
assert shares["by class and length, two parts"] < shares["by class and length"]

# %% [markdown]
# Where spam is longer than ham, more batches by length hold one class, which a step may then pull towards. So
# the library's `BucketSampler` sorts each class on its own: short ham meets short spam. That brings padding
# back; but gradients add up, so one step may run its batch in two parts (in gptcls: `fast/parts.py`).
# Here are the table's first row and its last as a map, a line per message: what is white is not computed.


# %%
def drawing(groups):
    """0 not computed, 1 padding, 2 token: (N, longest)."""
    places, lines = torch.arange(int(lengths.max())), []
    for rows in sorted(groups, key=lambda rows: int(lengths[rows].max())):
        lines += [(places < lengths[rows].max()).int() + (places < lengths[row]) for row in rows]
    return torch.stack(lines)


figure, grid = plt.subplots(1, 2, figsize=(8.5, 4.2), sharey=True)
colours = plt.matplotlib.colors.ListedColormap(["white", style.ORANGE, style.BLUE])
for axes, name in zip(grid, ("all rows to one length", "by class and length, two parts"), strict=True):
    axes.imshow(drawing(orders[name]), cmap=colours, vmin=0, vmax=2, aspect="auto", interpolation="nearest")
    axes.set(title=f"{name}: {shares[name]:.0f} % padding", xlabel="position (blue: token, orange: padding)")
grid[0].set_ylabel("message")
plt.show()

# %% [markdown]
# ## Exercises
#
# **1.** ★ Count the texts of a test part that stand in train too, whatever their case, marks and spaces.
#
# <details><summary>中文</summary>数一数测试集里有多少条文本也出现在训练集里，忽略大小写、标点和空格。</details>


# %% tags=["your-turn"]
def count_leaks(train, test): ...  # two lists of texts -> a number


# check
got = count_leaks(["Call me NOW!", "你好，世界"], ["call me now", "你好世界！", "see me", "CallMe, now?"])
print("your turn" if got is None else "right" if got == 3 else f"not yet: {got}; three are known")


# %% tags=["wrong"]
def count_leaks(train, test):  # to the letter
    return sum(text in train for text in test)


# %% tags=["solution"]
def count_leaks(train, test):
    train, test = ([[c for c in text.casefold() if c.isalnum()] for text in part] for part in (train, test))
    return sum(text in train for text in test)


print(count_leaks(["FREE entry"], ["Free Entry!!", "no entry"]), "of 2 texts is known")

# %% [markdown]
# **2.** ★★ `max_length` cuts long texts. Which share of the texts is cut, which share of all tokens lost?
#
# <details><summary>中文</summary>`max_length` 会截断长文本。有多大比例的文本被截断？丢掉的词元占多大比例？</details>


# %% tags=["your-turn"]
def cut_shares(lengths, limit): ...  # numbers of tokens -> two shares


# check
got = cut_shares([10, 25, 25, 40], 25)
print("your turn" if got is None else "right" if got == (0.25, 0.15) else f"not yet: {got}; 15 of 100 lost")


# %% tags=["wrong"]
def cut_shares(lengths, limit):  # counts all tokens of the texts that are cut
    cut = [n for n in lengths if n > limit]
    return len(cut) / len(lengths), sum(cut) / sum(lengths)


# %% tags=["solution"]
def cut_shares(lengths, limit):
    lost = [max(0, n - limit) for n in lengths]
    return sum(n > 0 for n in lost) / len(lengths), sum(lost) / sum(lengths)


print("a limit of 25:", cut_shares([10, 25, 25, 40], 25))

# %% [markdown]
# **3.** ★★★ Rows of one sender must not stand in two parts. Draw whole groups for test until it has n rows.
#
# <details><summary>中文</summary>同一发件人的短信不能分到两个部分。请整组地抽取，直到测试集至少有 n 行为止。</details>


# %% tags=["your-turn"]
def draw_groups(groups, n, seed): ...  # each row's group -> the row numbers of test


# check
import random

groups = [i // 3 for i in range(60)]
got = [draw_groups(groups, 11, seed) for seed in range(5)]
good = got[0] is not None and all(len(rows) == 12 and len({groups[i] for i in rows}) == 4 for rows in got)
good = good and len({tuple(sorted(rows)) for rows in got}) > 1  # another seed, another draw
print("your turn" if got[0] is None else "right" if good else "not yet: four whole groups of three by chance")


# %% tags=["wrong"]
def draw_groups(groups, n, seed):  # rows, not groups
    return random.Random(seed).sample(range(len(groups)), n)


# %% tags=["solution"]
import random


def draw_groups(groups, n, seed):
    names, drawn = sorted(set(groups)), []
    for name in random.Random(seed).sample(names, len(names)):
        if len(drawn) < n:
            drawn += [i for i, group in enumerate(groups) if group == name]
    return drawn


print(sorted(draw_groups(["Ann", "Ben", "Ann", "Cem", "Ben"], n=2, seed=0)), "are the rows for test")

# %% [markdown]
# ## Quiz
#
# <details><summary><b>Five questions</b></summary>
#
# 1. How do you notice swallowed rows? <details><summary>Answer</summary>Compare the numbers of rows and lines.</details>
# 2. Why drop repeats first? <details><summary>Answer</summary>A test text that was trained on flatters the score.</details>
# 3. What is stratified? <details><summary>Answer</summary>Each part has each class in its share.</details>
# 4. Does padding change vectors? <details><summary>Answer</summary>Not under the causal mask.</details>
# 5. Why not sort all rows by length? <details><summary>Answer</summary>Every epoch would have the same batches.</details>
# </details>
#
# Next: [8. A new head](08_head.ipynb)
