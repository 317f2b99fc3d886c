# %% [markdown]
# # 11. What did it really learn?
#
# A classifier that scores well may answer for the wrong reason. This chapter colours each word by what it
# adds to the answer, finds a shortcut, measures it over hundreds of messages, and then mends it.
#
# **What you will learn**
#
# - how to find the words that an answer depends on, by leaving each out in turn;
# - how to measure a shortcut with altered copies of messages, beside a control;
# - how altered copies in the training rows mend it, and how to see what the mending costs.
#
# <details><summary>中文提要</summary>
#
# 一个训练好的分类器究竟学到了什么？本章先手工完成一次预测(分词、骨干网络、池化 pooling、输出头、softmax)，
# 再用“留一词法”(leave-one-word-out)给每个词上色：去掉它，对数几率(log-odds)变化多少。
# 由此发现一条捷径(shortcut)：一串长号码能把普通短信变成“垃圾短信”，没有号码的广告却可能被放行。
# 我们在数百条短信上测量它，并以不含数字的文字作对照(control)。
# 最后做数据增强(augmentation)：给正常短信的副本加上号码，给垃圾短信的副本去掉号码，重新训练，再用同样的短信成对比较得失。
# </details>

# %%
import os
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import torch

import gptcls
from gptcls.data.sources import load_data
from gptcls.data.split import drop_duplicates
from gptcls.evaluation import intervals, style
from gptcls.fast.features import FeatureCache
from gptcls.models.pretrained import load_pretrained

DATA = os.environ.get("COURSE_SMS", "sms-sample")  # "sms-spam" downloads UCI's 5,574 messages, 0.2 MB
style.use_style()
torch.set_num_threads(1)

# %% [markdown]
# The outputs you see come from UCI's SMS Spam Collection; run without it, the notebook uses the 520 messages
# that come with the package, and prints other numbers.
#
# ## Asking a trained classifier
#
# gptcls ships a small spam filter, trained on part of that collection. `classify_review` is the book's name
# for asking it. By hand it is five steps: tokens, backbone, pooling (here the maximum of each channel over
# the tokens), head, softmax.

# %%
ADVERT = "You have been chosen for a free holiday! Call 0808 157 0199 now to claim"
CHAT = "Running ten minutes late, could you order me a coffee please?"
CHINESE = "恭喜您中奖了，请致电领取"  # you have won a prize, please call
print(gptcls.classify_review([ADVERT, CHAT, CHINESE]))
bundled = gptcls.load_classifier(precision="fp32")
encode = bundled.saved.tokenizer.encode  # text -> token ids


@torch.inference_mode()
def my_classify(text):
    """Probability of each class (K,)."""
    model = bundled.saved.model
    hidden = model.backbone(torch.tensor([encode(text)]))  # (1, T, C)
    return model.head(hidden.amax(dim=1)).softmax(dim=-1)[0]  # (1, C) -> (K,)


mine = torch.stack([my_classify(text) for text in (ADVERT, CHAT, CHINESE)])
library = torch.tensor(bundled.predict_proba([ADVERT, CHAT, CHINESE]))
torch.testing.assert_close(mine, library, rtol=1e-3, atol=1e-4)
print(bundled.labels, mine.numpy().round(3).tolist())

# %% [markdown]
# The third is a prize message, too ("you have won a prize, please call"). All training rows were English: the
# probability of a text unlike them can be far from the truth, and gives no warning.
# %% [markdown]
# ## A message while it is typed
#
# Ask at every word. Two of these four messages are advertisements, two come from a friend; one of each pair
# holds a telephone number.

# %% tags=["front"]
MESSAGES = {
    "advertisement with a number": "You have won a free cruise call 09098790123 to claim your prize",
    "advertisement without": "You have won a free cruise just reply to claim your prize",
    "friend with a number": "See you at six my new number is 09098790123 love to all",
    "friend without": "See you at six my new flat is next door to yours",
}
figure, grid = plt.subplots(4, 1, figsize=(9.4, 6.6), sharey=True)
for axes, (name, message) in zip(grid, MESSAGES.items(), strict=True):
    words = message.split()
    p = bundled.predict_proba([" ".join(words[: n + 1]) for n in range(len(words))])[:, 1]
    axes.bar(range(len(words)), 100 * p, 0.8, color=np.where(p > 0.5, style.VERMILION, style.BLUE))
    for place, share in enumerate(p):
        axes.text(place, 100 * share + 4, f"{share:.0%}", ha="center", size=9, color=style.GREY)
    axes.axhline(50, color=style.GREY, lw=1, ls="--")
    axes.set_xticks(range(len(words)), words, size=9.5)
    axes.set(xlim=(-0.6, 11.6), ylim=(0, 120), yticks=[0, 50, 100])
    axes.set_title(f"{name}: {p[-1]:.0%} spam at the end", size=11, weight="bold")
figure.supylabel("probability of spam (%) up to this word", size=10)
plt.show()

# %% [markdown]
# Compare the first panel with the second, and the third with the fourth: what does the number do, and what do
# "free", "cruise" and "prize" do without it? Check all four final answers: which would you want changed?
#
# ## Words coloured by what they add
#
# Which words does a finished message's answer depend on? Leave each out in turn and see what is lost: an **attribution**.
# Probabilities near 0 and 1 hardly move, so we measure **log-odds**, $\log\frac{p}{1-p}$, which have no ends;
# with two classes they are the difference of the two logits.


# %%
def my_contributions(message):
    """The words, and what each adds: the log-odds of the message minus those without the word."""
    words = message.split()
    without = [" ".join(words[:n] + words[n + 1 :]) for n in range(len(words))]
    logs = np.log(bundled.predict_proba([message, *without]).astype(float))
    return words, logs[0, 1] - logs[0, 0] - (logs[1:, 1] - logs[1:, 0])


gains = torch.tensor(my_contributions(MESSAGES["friend with a number"])[1])
library = torch.tensor(bundled.explain(MESSAGES["friend with a number"]).attributions[:, 1])
# The library leaves out tokens; without the first, a space is left at the beginning: that word differs.
torch.testing.assert_close(library[1:], gains[1:], rtol=0, atol=0.1)

figure = plt.figure(figsize=(9.4, 3.7), layout="none")
axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 940), ylim=(370, 0))  # a unit is a pixel
axes.axis("off")
axes.text(10, 25, "what each word adds to the log-odds of spam (orange: towards spam, blue: ham)", size=12)
for line, (name, message) in enumerate(MESSAGES.items()):
    place, y = 15, 85 + 80 * line
    axes.text(10, y - 22, name, size=9, color=style.GREY)
    for word, gain in zip(*my_contributions(message), strict=True):
        box = {"fc": style.VERMILION if gain > 0 else style.BLUE, "alpha": min(abs(gain) / 6, 0.75), "lw": 0}
        drawn = axes.text(place, y, word, size=12, va="center", bbox={"boxstyle": "round,pad=0.2"} | box)
        width = drawn.get_window_extent(figure.canvas.get_renderer()).width * 100 / figure.dpi
        axes.text(place + width / 2, y + 26, f"{gain:+.1f}", size=8, ha="center", color=style.GREY)
        place += width + 16
plt.show()

# %% [markdown]
# A hint, not a proof: of two words that say the same thing each can stand in for the other, and a message
# without one of its words is one that nobody wrote.
#
# ## The shortcut, over many messages
#
# Four messages prove little. So we alter many: a message stays as it is, or gets one of three changes that
# do not change its class. Adding ordinary words is the **control** for adding a number. The shipped classifier
# was not trained on the package's own sample, so we can ask it about those longer ham messages there that it
# gets right. Both lines are of the same messages: is their difference far larger than both intervals?

# %%
random = np.random.RandomState(0)
VERSIONS = {
    ("ham", "as it is"): str,
    ("spam", "as it is"): str,
    ("ham", "and a number"): lambda text: f"{text} 0{random.randint(10**9, 10**10, dtype=np.int64)}",
    ("spam", "without its numbers"): lambda text: " ".join(
        word for word in text.split() if sum(map(str.isdigit, word)) < 4
    ),
    ("ham", "and a number, new form"): lambda text: f"{text} +44 20 7946 {random.randint(1000, 9999)}",
    ("spam", "with O, l, S for 0, 1, 5"): lambda text: text.translate(str.maketrans("015", "OlS")),
    ("ham", "and ordinary words"): lambda text: f"{text} see you at six then",
    ("spam", "and a chat message"): lambda text: f"{text} {CHAT}",
}
sample = [text for text in load_data("sms-sample").query("label == 'ham'")["text"] if len(text) > 20]
sample = [text for text, answer in zip(sample, bundled.predict(sample), strict=True) if answer == "ham"]
for name in ("and a number", "and ordinary words"):
    k, n = bundled.predict([VERSIONS["ham", name](text) for text in sample]).count("spam"), len(sample)
    low, high = intervals.wilson_interval(k, n)
    print(f"ham {name:18} turns {k:3} of {n} into spam: {k / n:.1%}, interval [{low:.1%}, {high:.1%}]")

# %% [markdown]
# ## A classifier of our own
#
# To see why, and to mend it, we must train. Ours is a linear head on frozen features of pretrained GPT-2 nano,
# computed once: the mean of the last hidden states over the tokens.

# %%
data = drop_duplicates(load_data(DATA)).sample(frac=1, random_state=0)
groups = data.groupby("label")["text"]
texts = {"ham": groups.get_group("ham").tolist()[:600], "spam": groups.get_group("spam").tolist()[:300]}
print(f"{len(data):,} messages, each text once")
for label, part in texts.items():
    share = np.mean([VERSIONS["spam", "without its numbers"](text) != text for text in part])
    print(f"{len(part)} {label} used; {share:.0%} have a number of four or more digits")
backbone = load_pretrained("gpt2-nano").eval()


@torch.no_grad()
def my_features(texts):  # N texts -> (N, C)
    """The mean of the hidden states over each text's tokens, in batches of similar length."""
    ids, rows = [torch.tensor(encode(text)[:256]) for text in texts], torch.zeros(len(texts), 256)
    order = np.argsort([len(row) for row in ids], kind="stable")
    for part in np.array_split(order, max(1, len(ids) // 32)):
        batch = torch.nn.utils.rnn.pad_sequence([ids[i] for i in part], batch_first=True)
        for i, hidden in zip(part, backbone(batch), strict=True):
            rows[i] = hidden[: len(ids[i])].mean(dim=0)
    return rows


def my_fit(inputs, targets, seed=0, steps=200):  # (N, C), (N,)
    """A linear head: steps of AdamW over all rows at once."""
    torch.manual_seed(seed)
    head = torch.nn.Linear(inputs.shape[1], 2)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2, weight_decay=0.1)  # fixed, not tuned here
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(inputs), targets).backward()
        optimizer.step()
    return head.requires_grad_(False)


mine, tokenizer = my_features(list(MESSAGES.values())), bundled.saved.tokenizer
theirs = FeatureCache().mean_vectors(backbone, list(MESSAGES.values()), 256, tokenizer, torch.device("cpu"))
torch.testing.assert_close(mine, torch.from_numpy(theirs), rtol=0, atol=0.1)  # theirs perhaps in bf16

# %% [markdown]
# A number that is so much more common in spam is an easy sign of it: a **shortcut** (Geirhos et al. 2020).
# Test messages from the same source reward it, so no score on them reveals it.
#
# ## How to break it, and how to mend it
#
# Half of the messages train; the other half is tested in all versions. The **mended** head also trains on
# copies that show what the data lacks: ham *with* a number, spam *without* its numbers (**augmentation**).
# The same messages judge both heads, over six random halvings, so the differences are **paired**.

# %%
x = {key: my_features([change(text) for text in texts[key[0]]]) for key, change in VERSIONS.items()}
y = {"ham": 0, "spam": 1}
percent = {key: [] for key in x}  # per halving: wrong answers of the plain head, of the mended one
for seed in range(6):
    torch.manual_seed(seed)
    halves = {label: torch.randperm(len(part)).chunk(2) for label, part in texts.items()}
    training = [(x[key][halves[key[0]][0]], y[key[0]]) for key in list(x)[:4]]
    heads = []
    for parts in (training[:2], training):  # plain, mended
        targets = torch.cat([torch.full((len(part),), target) for part, target in parts])
        heads.append(my_fit(torch.cat([part for part, _ in parts]), targets, seed))
    for key in x:
        answers = [head(x[key][halves[key[0]][1]]).argmax(dim=1) for head in heads]
        percent[key].append([100 * (answer != y[key[0]]).float().mean().item() for answer in answers])
percent = {key: np.array(percent[key]) for key in sorted(x)}  # (6, 2)

print("wrong answers in %                    plain  mended  difference, with its interval")
for (label, name), pairs in percent.items():
    mean, low, high = intervals.mean_interval(pairs[:, 1] - pairs[:, 0], overlap=1.0)
    both = "{:7.1f} {:7.1f}".format(*pairs.mean(axis=0))
    print(f"{label:4} {name:30} {both}     {mean:+5.1f} [{low:+.1f}, {high:+.1f}]")

# %% [markdown]
# The column "plain" lists the attacks: which change of a ham makes it spam, which change of a spam lets it
# through? Then the differences; their intervals allow for halvings that share messages (Nadeau and Bengio 2003).

# %%
figure, axes = plt.subplots(figsize=(8.6, 4.4))
for line, pairs in enumerate(percent.values()):
    axes.plot(pairs.mean(axis=0), [line, line], color=style.GREY, lw=1.5, zorder=1)
    for values, colour, marker in zip(pairs.T, (style.ORANGE, style.BLUE), "oD", strict=True):
        axes.plot(values, [line] * len(values), marker, color=colour, ms=5, alpha=0.3, mec="none")
        axes.plot(values.mean(), line, marker, color=colour, ms=10)
axes.set_yticks(range(len(percent)), [f"{label} {name}" for label, name in percent])
axes.set(xlabel="answered wrongly (%); large: the mean of six halvings", ylim=(7.6, -0.6))
axes.grid(axis="x")
names = ["plain", "mended: trained with altered copies, too"]
figure.legend(axes.lines[2:5:2], names, loc="outside upper center", ncols=2)
plt.show()
assert np.subtract(*percent["ham", "and a number"].mean(axis=0)) > 5

# %% [markdown]
# Look for three things: what the copies were made for, what they help beyond that (a form of number that no
# copy had), and what they cost, in the lines "as it is". There an interval above 0 shows a cost, and one that
# holds 0 does not prove that they cost nothing: how many points does it allow? Augmentation can mend what it
# shows; other ways to slip through need copies of their own, or more real data.
#
# To keep a head, save its weights, and say on which base it stands. The mended one, saved and loaded, beside
# the plain one on the messages of the first picture (where a number stands in the middle; in the copies it
# always stood at the end):

# %%
with tempfile.TemporaryDirectory() as folder:
    torch.save({"head": heads[1].state_dict(), "base": "gpt2-nano"}, f"{folder}/mine.pt")
    heads[1].load_state_dict(torch.load(f"{folder}/mine.pt")["head"])
for name, head in zip(("plain", "mended"), heads, strict=True):
    p = head(my_features(list(MESSAGES.values()))).softmax(dim=1)[:, 1].tolist()
    print(f"{name:7}", " | ".join(f"{title}: {share:.0%}" for title, share in zip(MESSAGES, p, strict=True)))

# %% [markdown]
# Is each of the four on the right side of 50 % now, and how surely? Which copies would you add for the others?
#
# ## Exercises
#
# **1.** ★ A message has log-odds 2; `without` has those of the message without each word. What does each word
# add? Look at "win" and "free", which count only together.
# <details><summary>中文</summary>整条短信的对数几率是 2，without 是去掉各词后的值。每个词贡献多少？注意只有同现才起作用的 win 和 free。</details>

# %% tags=["your-turn"]
whole, without = 2.0, {"win": -1.0, "a": 2.0, "free": -1.0, "trip": 1.0}
adds = None  # your turn: word -> number

# check
right = adds == {"win": 3, "a": 0, "free": 3, "trip": 1}
print("your turn" if adds is None else "right" if right else f"not yet: {adds}")

# %% tags=["wrong"]
whole, without = 2.0, {"win": -1.0, "a": 2.0, "free": -1.0, "trip": 1.0}
adds = {word: value - whole for word, value in without.items()}

# %% tags=["solution"]
whole, without = 2.0, {"win": -1.0, "a": 2.0, "free": -1.0, "trip": 1.0}
adds = {word: whole - value for word, value in without.items()}
print(f"{adds} add up to {sum(adds.values())}, more than the {whole} there are: both claim the same credit")

# %% [markdown]
# **2.** ★★ Five probabilities of spam, before a change of the messages and after it. Of those that were ham
# before, which share did the change turn?
# <details><summary>中文</summary>五条短信修改前后的垃圾概率：原来判为正常的短信中，多大比例被改判？原来就判为垃圾的不算。</details>

# %% tags=["your-turn"]
before, after, share = [0.1, 0.9, 0.4, 0.2, 0.3], [0.8, 0.9, 0.3, 0.6, 0.1], None  # your turn

# check
print("your turn" if share is None else "right" if share == 0.5 else f"not yet: {share}: of how many?")

# %% tags=["wrong"]
before, after = [0.1, 0.9, 0.4, 0.2, 0.3], [0.8, 0.9, 0.3, 0.6, 0.1]
share = sum(p > 0.5 for p in after) / len(after)

# %% tags=["solution"]
before, after = [0.1, 0.9, 0.4, 0.2, 0.3], [0.8, 0.9, 0.3, 0.6, 0.1]
later = [q for p, q in zip(before, after, strict=True) if p <= 0.5]
share = sum(q > 0.5 for q in later) / len(later)
print(f"{len(later)} were ham, {share:.0%} of them turned")

# %% [markdown]
# **3.** ★★ Be the spammer: with which of these words behind `SPAM` does the shipped classifier give the
# lowest probability of spam? Does any of them help, and do all of them together?
# <details><summary>中文</summary>扮演垃圾短信发送者：下列哪个词接在 SPAM 后面，使随包分类器给出的垃圾概率最低？比不加词更低吗？全部接上又如何？</details>

# %% tags=["your-turn"]
from gptcls import load_classifier

SPAM, WORDS = "You won a free cruise, call 09090812345", ["ok", "lol", "sorry", "home", "Urgent"]
best = None  # your turn

# check
p = load_classifier().predict_proba([f"{SPAM} {word}" for word in WORDS])[:, 1]
print("your turn" if best is None else "right" if best == WORDS[p.argmin()] else f"not yet: {best}")

# %% tags=["wrong"]
from gptcls import load_classifier

SPAM, WORDS = "You won a free cruise, call 09090812345", ["ok", "lol", "sorry", "home", "Urgent"]
best = max(WORDS, key=lambda word: load_classifier().predict_proba(f"{SPAM} {word}")[1])

# %% tags=["solution"]
from gptcls import load_classifier

SPAM, WORDS = "You won a free cruise, call 09090812345", ["ok", "lol", "sorry", "home", "Urgent"]
p = load_classifier().predict_proba([f"{SPAM} {word}" for word in [*WORDS, "", " ".join(WORDS)]])[:, 1]
best = WORDS[p[:-2].argmin()]
print(f"{p[-2]:.3%} spam; with {best!r} {p[:-2].min():.3%}, with all of them {p[-1]:.3%}")

# %% [markdown]
# ## Quiz
#
# <details><summary><b>Five questions</b></summary>
#
# 1. Why log-odds and not probabilities? <details><summary>Answer</summary>Near 0 and 1 a probability hardly moves.</details>
# 2. Two words say the same. What does leaving out one show? <details><summary>Answer</summary>Little: the other one stands in for it.</details>
# 3. Why add ordinary words, too? <details><summary>Answer</summary>As a control: any added text might turn answers.</details>
# 4. Why did no test score show the shortcut? <details><summary>Answer</summary>It works as well on test messages from the same source.</details>
# 5. Why test a form of number that no copy had? <details><summary>Answer</summary>To see whether the head learnt more than the copies.</details>
# </details>
#
# Next: [12. Does it really work?](12_judging.ipynb)
