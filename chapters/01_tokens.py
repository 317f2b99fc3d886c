# %% [markdown]
# # 1. Text to tokens
#
# A neural network multiplies numbers; it has never seen a letter. Before a message can be classified it has
# to become a list of integers. How that is done decides what the network finds easy and what it finds hard.
#
# **What you will learn**
#
# - how byte-pair encoding (BPE) learns a vocabulary, from a sentence of English and one of Chinese;
# - how GPT-2's 50,257 tokens come from the same algorithm, and how to write its encoder in fifteen lines;
# - which texts are cut into surprising pieces, and what Chinese costs a vocabulary learnt from English.

# %% [markdown]
# <details><summary>中文提要</summary>
#
# 神经网络只会算数，所以文本要先变成一串整数，每个整数代表一个词元（token）。本章亲手实现字节对编码（byte-pair
# encoding，BPE）：从 256 个字节出发，反复把最常相邻的两个词元合并成一个新词元。先在一句英文绕口令上运行，再在
# “四是四，十是十”上运行，可以看到它先拼出汉字，再把相邻的字连起来。然后读入 GPT-2 自己的合并表，写出一个与库完全一致的
# 分词器（tokenizer），并逐条核对。GPT-2 的词表学自英文，一个汉字往往占两三个词元，中文短信因此长得多（见第 17 章）。
#
# </details>

# %%
import os
from collections import Counter
from itertools import pairwise

import matplotlib.pyplot as plt
import regex  # comes with tiktoken; unlike re, it knows \p{L}, "any letter of any alphabet"
import torch

from gptcls.core.tokenizer import decode, encode, gpt2_encoding
from gptcls.data.sources import load_data
from gptcls.data.split import drop_duplicates
from gptcls.evaluation import style

style.use_style()

# %% [markdown]
# ## What should one integer stand for?
#
# A character? Then a message is a long list, and the network must learn that `c`, `a`, `s`, `h` belong
# together. A word? Then the **vocabulary** never ends: `caash`, `c4sh` and `Cash!!` would all be unknown, and
# Chinese does not even write spaces between words. BPE learns something in between from text: frequent
# strings get an integer of their own, rare ones are spelt from smaller pieces, and nothing is unknown.
#
# ## BPE by hand
#
# Start from bytes: every text is bytes in UTF-8, and there are only 256 of them. Then repeat: find the pair of
# neighbours that occurs most often, and make it a new token. That is all. The text is cut into words first,
# each with the space before it, since merges must not cross words. (For now commas and the like are dropped.)

# %%
print(*(f"{text} {list(text.encode())}" for text in ("hi", "你好")), sep="\n")  # a letter 1 byte, 你 3

SENTENCE = "she sells sea shells by the sea shore and the shells she sells are sea shells"


def merge(word, pair):
    """The word with every occurrence of the pair made one token."""
    merged, i = [], 0
    while i < len(word):
        step = 2 if word[i : i + 2] == pair else 1
        merged.append(b"".join(word[i : i + step]))
        i += step
    return tuple(merged)


def my_learn(text, n_merges):
    """The ranks {token: its number}: 256 bytes, then one token a merge."""
    ranks = {bytes([b]): b for b in range(256)}
    pieces = [piece.encode() for piece in regex.findall(r" ?\p{L}+", text)]
    words = Counter(tuple(bytes([b]) for b in piece) for piece in pieces)
    for _ in range(n_merges):
        counts = Counter()  # of neighbours
        for word, n in words.items():
            for pair in pairwise(word):
                counts[pair] += n
        pair, count = counts.most_common(1)[0]
        ranks[b"".join(pair)] = len(ranks)
        words = Counter({merge(word, pair): n for word, n in words.items()})
        left, right = (token.decode(errors="backslashreplace") for token in pair)
        print(f"token {len(ranks) - 1} = '{left}' + '{right}', seen {count} times")
    return ranks


toy_ranks = my_learn(SENTENCE, 12)

# %% [markdown]
# Bits of words come first; by the end some whole words are tokens. The same function on a Chinese tongue
# twister ("four is four, ten is ten, fourteen is fourteen, forty is forty"):

# %%
chinese_ranks = my_learn("四是四，十是十，十四是十四，四十是四十", 8)

# %% [markdown]
# It knows nothing of characters, so it first has to glue their three bytes together; only then can it join
# one character to the next. A letter of English is one byte and needs no merge; these characters need two.
#
# ## Encoding with ranks
#
# The order in which tokens were learnt is all that an encoder needs; it is called their **rank**. To encode
# a new piece of text, cut it into bytes, then keep merging the two neighbours whose union has the *lowest*
# rank, until no union of neighbours is in the table.


# %%
def my_bpe(piece: bytes, ranks: dict[bytes, int]) -> list[int]:
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


for text in (" shells", " seashells", " cash"):
    print(repr(text), my_bpe(text.encode(), toy_ranks))
toy_tokens, pieces = list(toy_ranks), regex.findall(r" ?\p{L}+", SENTENCE)
print(b"|".join(toy_tokens[i] for piece in pieces for i in my_bpe(piece.encode(), toy_ranks)).decode())

# %% [markdown]
# Numbers below 256 are plain bytes. ` seashells` was never seen, and yet it takes few tokens, because its
# parts were. ` cash` falls back to letters: every text is bytes, and every byte has a number. The last line is
# the whole sentence, with a bar between tokens.
#
# ## GPT-2's ranks
#
# GPT-2 did the same on 40 GB of web text and stopped at 50,000 merges. Its table ships with gptcls. 256 bytes
# and 50,000 merges make 50,256 tokens; one more, number 50,256, marks the border between documents.

# %%
encoding = gpt2_encoding()
gpt2_ranks = {encoding.decode_single_token_bytes(rank): rank for rank in range(50256)}

print(f"{len(gpt2_ranks):,} tokens and the special one, {decode([50256])!r}")
for name, start in (("first merges:   ", 256), ("around 10,000:  ", 10_000), ("the last merges:", 50_246)):
    print(name, [decode([rank]) for rank in range(start, start + 9)])

# %% [markdown]
# The first merges are the commonest pairs of English, later ones are whole words. Capitals and the space in
# front are part of a token.
#
# One more part is needed: the rule that cuts a text into pieces which merges never cross. GPT-2's is a regular
# expression. It takes a contraction, or letters, or digits, or other signs, each with the space before it.

# %%
PIECES = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def my_encode(text: str) -> list[int]:
    """GPT-2's tokenizer: cut into pieces, then merge inside each."""
    return [rank for piece in regex.findall(PIECES, text) for rank in my_bpe(piece.encode(), gpt2_ranks)]


print(regex.findall(PIECES, "You've WON £1000!! 恭喜 0900-555"))

# %% [markdown]
# Is it the same tokenizer as the library's, which runs tiktoken's compiled code? We compare them on strings
# made to be difficult and on the course's data: short messages, each with the label *spam* (unwanted
# advertising or fraud) or *ham* (everything else).
# The outputs you see come from UCI's SMS Spam Collection; run without it, the notebook uses the 520
# messages that come with the package, and prints other numbers.

# %%
DATA = os.environ.get("COURSE_SMS", "sms-sample")  # "sms-spam" downloads UCI's 5,574 messages, 0.2 MB
data = drop_duplicates(load_data(DATA))
difficult = ["", "  \n\t two  spaces ", "naïve café", "你好，世界", "👍🏽👍", "'S 'll don't", "\u200b"]
for text in [*data["text"], *difficult]:
    torch.testing.assert_close(torch.tensor(my_encode(text)), torch.tensor(encode(text)))
print(f"equal on {len(data):,} messages and {len(difficult)} difficult strings")

# %% [markdown]
# ## Surprising tokens
#
# To the network, two texts look alike only if their tokens do. Look at one word in several spellings, at
# numbers, links, emoji and Chinese:

# %%
words = ["hello", " hello", "Hello", "HELLO", "heIIo"]  # the last one with two capital I's
others = ["2024", "20245", "08712345678", "https://claim-now.example", "👍", "你好", "<|endoftext|>"]
for text in words + others:
    tokens = [encoding.decode_single_token_bytes(i) for i in my_encode(text)]
    shown = [token.decode(errors="backslashreplace") for token in tokens]
    print(f"{text!r:28} {len(tokens)} tokens: {' | '.join(shown)}")

# %% [markdown]
# - The model has to learn from examples that `hello` and ` hello` mean the same. And what looks the same to
#   a person, as in the old trick with capital I's, is a different list of numbers.
# - A number is cut wherever some digits happened to be frequent in GPT-2's text: a year may be two tokens, a
#   phone number five of different length.
# - An emoji or a Chinese character, one sign to us, may take two or three tokens. A token can be half a sign.
# - `<|endoftext|>` in a message is ordinary text here. A user must not be able to type a control token.
#
# Seen in colour, one box a token: plain words are one token each, while codes, links, capitals and the
# spelling of text messages are cut into many short ones.


# %%
messages = [
    "Running ten minutes late, could you order me a coffee please?",
    "see u 2moro nite, gr8 2 c u m8",
    "WINNER!! U have been selected 4 a £1000 prize, claim code XJ4471",
    "Txt STOP to 80455 or visit http://prize-4u.example/claim",
]
figure, axes = plt.subplots(figsize=(9, 2.3))
for row, text in enumerate(messages):
    column = 0
    for number, token in enumerate(my_encode(text)):
        string, colour = decode([token]), (style.SKY, style.ORANGE)[number % 2]
        axes.barh(row, len(string), 0.72, left=column, color=colour, alpha=0.55, ec="white")
        for letter in string:
            axes.text(column + 0.5, row, letter, family="monospace", ha="center", va="center", size=10)
            column += 1
    axes.text(column + 1, row, f"{number + 1} tokens", va="center", size=10, color=style.BLUE)
axes.set(xlim=(0, 78), ylim=(len(messages) - 0.4, -0.6))
axes.axis("off")
plt.show()

# %% [markdown]
# ## What Chinese costs
#
# Here is one Chinese message ("shall we have dinner tonight?") character by character, with the number of
# tokens of each, and how many of GPT-2's tokens are whole characters:

# %%
message = "今天晚上一起吃饭吗？"
print(*(f"{character} {len(my_encode(character))}" for character in message), sep=" | ")
han = [token for token in map(decode, ([i] for i in range(50256))) if regex.fullmatch(r" ?\p{Han}+", token)]
print(f"of GPT-2's 50,256 tokens {len(han)} are whole Chinese or Japanese characters:", *han[:12])

# %% [markdown]
# Most characters were too rare to become tokens. The same messages in both languages, side by side:

# %%
pairs = {
    "Are you free tonight?": "今晚有空吗？",
    "Please call me back when you can": "方便的时候请给我回个电话",
    "You won a prize, click to claim it": "恭喜您中奖，请点击链接领取奖品",
}
english, chinese = ([len(my_encode(text)) for text in texts] for texts in (pairs, pairs.values()))
assert all(c > e for c, e in zip(chinese, english, strict=True))
figure, axes = plt.subplots(figsize=(8, 3.6))
rows = torch.arange(len(pairs))
axes.bar_label(axes.barh(rows - 0.2, english, 0.38, color=style.BLUE, label="in English"), padding=3)
axes.bar_label(axes.barh(rows + 0.2, chinese, 0.38, color=style.ORANGE, label="in Chinese"), padding=3)
axes.set_yticks(rows, list(pairs))
axes.invert_yaxis()
axes.set(xlabel="tokens", title="The same message takes more of GPT-2's tokens in Chinese")
axes.legend(loc="center right")
plt.show()
print(f"all three: {sum(english)} tokens in English, {sum(chinese)} in Chinese")

# %% [markdown]
# More tokens mean more computation and a shorter text in the same window. Worse, most of them are pieces of
# characters, which a network pretrained on English has hardly ever met.
# [Chapter 17](17_chinese.ipynb) measures this on Chinese reviews, beside a tokenizer learnt from Chinese.
#
# ## Exercises
#
# **1.** ★ `decode(encode(text))` gives the text again, but `encode(decode(ids))` need not give the ids. Find
# a list of ids that does not come back.
#
# <details><summary>中文</summary>
# 编码再解码总能还原文本；解码再编码却不一定还原编号。找出一串还原不了的编号。</details>

# %% tags=["your-turn"]
from gptcls.core.tokenizer import decode, encode

mine = None  # a list of token ids

# check
same = encode(decode(mine or [])) == (mine or [])
print("your turn" if mine is None else f"not yet: {decode(mine)!r} comes back" if same else "right")

# %% tags=["wrong"]
from gptcls.core.tokenizer import decode, encode

mine = encode("hello")

# %% tags=["solution"]
from gptcls.core.tokenizer import decode, encode

mine = [*encode("h"), *encode("ello")]
print(mine, "->", repr(decode(mine)), "->", encode(decode(mine)))

# %% [markdown]
# **2.** ★★ Does spam take more tokens than ham for the same number of characters? Guess first. Then write
# `characters_per_token(texts)`, all characters of the texts divided by all of their tokens, and use it.
#
# <details><summary>中文</summary>
# 同样多的字符，垃圾短信占更多词元吗？先猜，再写 <code>characters_per_token(texts)</code>：字符总数除以词元总数。
# </details>


# %% tags=["your-turn"]
def characters_per_token(texts): ...  # your turn


# check
got, wanted = characters_per_token(["Are you free tonight?", "你好"]), 23 / 9
right = got is not None and abs(got - wanted) < 1e-6
print("your turn" if got is None else "right" if right else f"not yet: {got}; all characters / all tokens")


# %% tags=["wrong"]
def characters_per_token(texts):
    return sum(map(len, texts)) / sum(len(text.split()) for text in texts)  # a word is not a token


# %% tags=["solution"]
from gptcls.core.tokenizer import encode
from gptcls.data.sources import load_data


def characters_per_token(texts):
    return sum(map(len, texts)) / sum(len(encode(text)) for text in texts)


for label, rows in load_data("sms-sample").groupby("label"):
    print(f"{label} of the bundled sample: {characters_per_token(rows['text']):.2f} characters a token")

# %% [markdown]
# **3.** ★★★ A text that is too long is cut after `k` tokens, perhaps in the middle of a character. Write
# `whole_characters(text, k)`: the text of the first `k` tokens without a broken character at its end.
#
# <details><summary>中文</summary>
# 文本在第 k 个词元后截断，可能正好切在一个汉字中间。返回前 k 个词元的文本，但去掉末尾残缺的字符。</details>


# %% tags=["your-turn"]
def whole_characters(text, k): ...  # your turn


# check
got = [whole_characters("今晚有空吗？", k) for k in (2, 3, 99)]
right = got == ["今", "今", "今晚有空吗？"]
print("your turn" if got[0] is None else "right" if right else f"not yet: {got}")


# %% tags=["wrong"]
def whole_characters(text, k):
    from gptcls.core.tokenizer import decode, encode

    return decode(encode(text)[:k])


# %% tags=["solution"]
from gptcls.core.tokenizer import encode, gpt2_encoding


def whole_characters(text, k):
    return gpt2_encoding().decode_bytes(encode(text)[:k]).decode(errors="ignore")  # drops what is broken


print([whole_characters("今晚有空吗？", k) for k in range(8)])

# %% [markdown]
# ## Quiz
#
# <details><summary><b>Five questions</b></summary>
#
# 1. Why can a BPE tokenizer that starts from bytes never meet an unknown word? <details><summary>Answer</summary>Every text is bytes, and all 256 bytes are tokens.</details>
# 2. What does an encoder need: the merged pairs with their counts, or only their order? <details><summary>Answer</summary>Only the order, the ranks: the lowest rank is merged first.</details>
# 3. Why is a text cut into pieces before any merges? <details><summary>Answer</summary>Else merges would cross words, as in "of the".</details>
# 4. Is <code>my_bpe</code> bound to find the shortest list of tokens that spells a text? <details><summary>Answer</summary>No. It repeats the merges in their order, whatever comes out.</details>
# 5. Why does Chinese take so many of GPT-2's tokens? <details><summary>Answer</summary>In the English it learnt from, few Chinese characters were frequent.</details>
# </details>
#
# Next: [2. Attention](02_attention.ipynb), where each token's vector begins to depend on those before it.
