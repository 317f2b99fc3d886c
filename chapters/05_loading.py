# %% [markdown]
# # 5. Loading GPT-2
#
# The network of chapter 3 starts with random weights. Its value is in the trained weights: they come in a
# file, with different names, some matrices transposed. We carry them over by hand, prove that every number
# arrived, and see what it costs when one of these steps goes wrong silently.
#
# **What you will learn**
#
# - what a checkpoint is: names and tensors, and nothing else;
# - the map from Hugging Face's names to ours, and why four matrices of each block must be transposed;
# - how to tell that a network is loaded *correctly*, not only without an error;
# - how the loaded network writes text.
#
# <details><summary>中文提要</summary>
#
# 预训练模型的价值在于训练好的权重，它们保存在检查点（checkpoint）文件里，内容只有两样：名字和张量。
# Hugging Face 的名字和我们的不同，每个块里还有四个矩阵按 Conv1D 的方式存放，需要转置（transpose）。
# 本章手写名字映射，把权重装进网络，再用 assert_close 与库函数逐个张量核对。
# 输出头与词元嵌入表共用同一个矩阵（tied weights），所以文件里没有单独的输出头。
# 程序不报错不等于加载正确：方阵忘了转置，形状照样吻合；要看模型在未见过的短信上的损失（loss）。
# 最后让模型生成文本。下载真正的 GPT-2 时，国内可设置镜像 HF_ENDPOINT，用 HF_HOME 指定存放目录。
#
# </details>

# %%
import os

import matplotlib.pyplot as plt
import torch
from safetensors.torch import load_file

from gptcls.core import tokenizer
from gptcls.core.gpt2 import GPT2, GPT2Config
from gptcls.data.sources import load_data
from gptcls.evaluation import style
from gptcls.models.pretrained import load_pretrained, weights_file
from gptcls.models.sampling import generate

style.use_style()
MODEL = "gpt2-nano"  # ships with gptcls; "gpt2-small" is OpenAI's, a download of 548 MB, see below
DATA = os.environ.get("COURSE_SMS", "sms-sample")  # "sms-spam" downloads UCI's 5,574 messages, 0.2 MB

# %% [markdown]
# The outputs you see come from UCI's SMS Spam Collection; run without it, the notebook uses the 520 messages
# that come with the package, and prints other numbers.
#
# ## What a checkpoint is
#
# A checkpoint is a dictionary in a file: names, and for each name a tensor. The format `safetensors` can hold
# nothing else, in particular no code, which a pickle file can. Here are the tensors of the first block, and
# those that belong to no block, under the names that Hugging Face gave them.

# %%
path = weights_file(MODEL)
state = load_file(path)
n_numbers, table = sum(tensor.numel() for tensor in state.values()), state["transformer.wte.weight"]
print(f"{len(state)} tensors, {n_numbers:,} numbers in {table.dtype}, {path.stat().st_size:,} bytes")
for name in sorted(name for name in state if ".h.0." in name or ".h." not in name):
    print(f"    {name:38} {tuple(state[name].shape)}")

# %% [markdown]
# Compare them with the network of chapter 3. The names differ, but one to one: `h.0.mlp.c_fc` is our
# `blocks.0.mlp.fc`. No output head is listed, for it is **tied**: the token table, transposed, is the head.
# And `c_attn.weight` is (C, 3 C), where our `nn.Linear(C, 3 * C)` has (3 C, C).
#
# ## Transposed: Conv1D
#
# `nn.Linear` stores (outputs, inputs) and computes $x W^\top + b$. GPT-2's authors wrote their linear layers
# as convolutions of width one, which store (inputs, outputs) and compute $x W + b$; Hugging Face kept that
# and calls the layer `Conv1D`. It is the same layer with its matrix written the other way round:

# %%
weight, bias = (state[f"transformer.h.0.attn.c_attn.{kind}"].float() for kind in ("weight", "bias"))
C = len(weight)
linear = torch.nn.Linear(C, 3 * C)
linear.weight.data, linear.bias.data = weight.T, bias
x = torch.randn(5, C, generator=torch.Generator().manual_seed(0))
torch.testing.assert_close(linear(x), x @ weight + bias)
print("in the file", tuple(weight.shape), "in nn.Linear", tuple(linear.weight.shape))

# %% [markdown]
# ## The name map
#
# One table says everything; `{}` stands for the number of the block. A name that is not in the table must
# be an error: a tensor that is silently dropped is a network that is silently worse.

# %%
MY_NAMES = {
    "wte": "wte", "wpe": "wpe", "ln_f": "norm",
    "h.{}.ln_1": "blocks.{}.norm1", "h.{}.ln_2": "blocks.{}.norm2",
    "h.{}.attn.c_attn": "blocks.{}.attn.qkv", "h.{}.attn.c_proj": "blocks.{}.attn.proj",
    "h.{}.mlp.c_fc": "blocks.{}.mlp.fc", "h.{}.mlp.c_proj": "blocks.{}.mlp.proj",
}  # fmt: skip
MY_TRANSPOSED = ("attn.qkv.weight", "attn.proj.weight", "mlp.fc.weight", "mlp.proj.weight")


def my_convert(state):
    """Hugging Face's names and shapes -> ours, in fp32."""
    result = {}
    for name, tensor in state.items():
        *module, kind = name.removeprefix("transformer.").split(".")  # kind: weight or bias
        block = ""
        if module[0] == "h":
            block, module[1] = module[1], "{}"
        if module[-1] == "attn":  # OpenAI's file also holds the causal mask, h.0.attn.bias: not a weight
            continue
        mine = MY_NAMES[".".join(module)].format(block) + "." + kind  # KeyError for an unknown name
        result[mine] = (tensor.T if mine.endswith(MY_TRANSPOSED) else tensor).float()
    return result


# %% [markdown]
# Every size of the network can be read off the tensors but the number of heads: a (C, C) matrix looks the same
# with 4 heads and with 8. Files therefore come with a `config.json`; here every head is 64 wide.


# %%
def my_load(weights):
    """A GPT-2 with these weights; strict: a name too many, one missing or a wrong shape is an error."""
    (V, C), n_positions = weights["wte.weight"].shape, len(weights["wpe.weight"])
    n_layer = sum(name.endswith(".attn.qkv.weight") for name in weights)
    network = GPT2(GPT2Config(n_layer, C, C // 64, n_positions, V))
    network.load_state_dict(weights, strict=True)
    return network.eval()


weights = my_convert(state)
mine, theirs = my_load(weights), load_pretrained(MODEL)
assert mine.config == theirs.config
torch.testing.assert_close(dict(mine.state_dict()), dict(theirs.state_dict()), rtol=0, atol=0)

ids = torch.tensor([tokenizer.encode("加油！ Every effort moves you")])
with torch.no_grad():
    torch.testing.assert_close(mine.lm_logits(mine(ids)), theirs.lm_logits(theirs(ids)))
print(f"{len(weights)} tensors, all equal to the library's; so are the logits of {ids.shape[1]} tokens")

# %% [markdown]
# ## Loaded is not the same as loaded correctly
#
# A strict loader notices a wrong name and a wrong shape. It cannot notice a square matrix that was not
# transposed, two exchanged norms of one size, or a table that stayed random. What does notice is the task:
# predicting the next token of text that it was not trained on. The SMS Spam Collection's texts were
# removed from nano's training text, and the package's own messages are newer: both are **held out**.


# %%
def summed_losses(network, texts):
    """The cross entropy of each text's next tokens, summed, in nats: (N,)."""
    sums = []
    for text in texts:
        ids = torch.tensor(tokenizer.encode(text))
        with torch.no_grad():
            logits = network.lm_logits(network(ids[None]))[0]  # (T, V)
        sums.append(torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="sum"))
    return torch.stack(sums)


torch.manual_seed(123)
untrained = GPT2(mine.config).eval()
square = {name: weight.T for name, weight in weights.items() if name.endswith("attn.proj.weight")}
other = {name: name.replace("norm1", "-").replace("norm2", "norm1").replace("-", "norm2") for name in weights}
networks = {
    "as it should be": mine,
    "norms of each block exchanged": my_load({name: weights[other[name]] for name in weights}),
    "position table left random": my_load(weights | {"wpe.weight": untrained.wpe.weight.data}),
    "attn.proj not transposed": my_load(weights | square),
    "no weights loaded at all": untrained,
}
data = load_data(DATA)
texts = [text for text in data["text"][data["label"] == "ham"] if len(text) > 40][:20]
n_tokens = sum(len(tokenizer.encode(text)) - 1 for text in texts)
print(f"{len(data):,} messages; used here: {len(texts)} ham of more than 40 characters, {n_tokens} tokens")
sums = {name: summed_losses(network, texts) for name, network in networks.items()}
losses = {name: each.sum().item() / n_tokens for name, each in sums.items()}
for name, each in sums.items():
    worse = int((each > sums["as it should be"]).sum())  # the same texts, one by one
    print(f"{name:30} loss {losses[name]:5.2f}, above the first line's on {worse:2} of {len(texts)} messages")
    assert name == "as it should be" or worse > len(texts) / 2
assert min(losses, key=losses.get) == "as it should be"

# %%
guessing = torch.tensor(float(mine.config.vocab_size)).log().item()  # every token equally likely: ln V
figure, axes = plt.subplots(figsize=(8, 3.6))
colours = [style.BLUE, *[style.VERMILION] * 3, style.GREY]
axes.bar_label(axes.barh(list(losses), list(losses.values()), color=colours), fmt="%.2f", padding=4)
axes.axvline(guessing, color=style.GREY, ls=":")
axes.text(guessing - 0.1, 0, "guessing:\nln V", color=style.GREY, ha="right", va="center")
axes.invert_yaxis()
axes.set(xlabel="loss per token (nats), lower is better", xlim=(0, 1.15 * max(*losses.values(), guessing)))
axes.set_title("Three wrong networks that loaded without an error")
plt.show()

# %% [markdown]
# The three networks in orange loaded without a complaint, and predict worse than the right one on most
# messages. So a loader needs two tests: tensors equal to a trusted loader's, and a sensible loss on new text.
#
# ## OpenAI's GPT-2
#
# `MODEL = "gpt2-small"` runs this chapter with OpenAI's weights: `weights_file` downloads 548 MB once and
# checks the file's sha256. Two environment variables, set before Python starts, say where from and where to:
#
# ```bash
# export HF_ENDPOINT=https://your-mirror   # a mirror of the hub, where huggingface.co cannot be reached
# export HF_HOME=$HOME/models              # the folder for downloads
# ```
#
# ## Letting it write
#
# A GPT gives a score to every token that might come next. To write, choose one, append it, and ask again.
# Taking the likeliest each time is **greedy** decoding. Or draw: the **temperature** divides the logits
# first (below 1 the likely tokens gain), and **top-k** leaves only the k likeliest in the draw.


# %%
def my_generate(network, ids, n, temperature=0.0, top_k=40, seed=1):  # (1, T) -> (1, T + n)
    """n more tokens; temperature 0 is greedy."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n):
        with torch.no_grad():
            logits = network.lm_logits(network(ids)[:, -1])  # (1, V): the last position predicts what is new
        token = logits.argmax(dim=-1, keepdim=True)
        if temperature:
            likeliest = logits.topk(top_k)  # (1, k)
            p = (likeliest.values / temperature).softmax(dim=-1)
            token = likeliest.indices.gather(1, torch.multinomial(p, 1, generator=generator))
        ids = torch.cat([ids, token], dim=1)
    return ids


torch.testing.assert_close(my_generate(mine, ids, 15), generate(mine, ids, 15))
prompt = torch.tensor([tokenizer.encode("I will see you")])
for name in ("as it should be", "attn.proj not transposed"):
    for temperature in (0.0, 0.7, 1.5):
        written = my_generate(networks[name], prompt, 14, temperature)[0].tolist()
        print(f"{name}, temperature {temperature}: {tokenizer.decode(written)!r}")

# %% [markdown]
# Nano sounds like a chat and makes little sense; loaded wrongly, it makes still less. But seen alone, those lines
# might be put down to the network's size; the losses above are the better test. A classifier never writes. But to
# predict the next word takes some record of what a text is about, and the next chapters read it out.
#
# ## Exercises
#
# **1.** ★ How many parameters does a GPT-2 have? Write the count as a formula of its four sizes. Mind the
# biases, the two numbers per channel of each norm, and that the head is tied. (The solution prints the
# published sizes: most of the smallest is its token table, most of the largest its blocks.)
#
# <details><summary>中文</summary>用四个尺寸写出 GPT-2 的参数量。别忘了偏置（bias）、LayerNorm 的两组参数，以及输出头与嵌入表共用。</details>


# %% tags=["your-turn"]
def count_parameters(n_layer, n_embd, n_positions, vocab_size):
    """Your turn."""


# check
got = count_parameters(12, 768, 1024, 50257), count_parameters(1, 2, 3, 5)
hint = "one block has 12 C² + 13 C parameters; then come two tables and the last norm"
print("your turn" if got[0] is None else "right" if got == (124439808, 94) else f"not yet: {got}; {hint}")


# %% tags=["wrong"]
def count_parameters(n_layer, n_embd, n_positions, vocab_size):  # the head counted a second time
    return n_layer * (12 * n_embd**2 + 13 * n_embd) + (2 * vocab_size + n_positions + 2) * n_embd


# %% tags=["solution"]
def count_parameters(n_layer, n_embd, n_positions, vocab_size):
    matrices, vectors = (3 + 1 + 4 + 4) * n_embd**2, (3 + 1 + 4 + 1 + 2 * 2) * n_embd
    return n_layer * (matrices + vectors) + (vocab_size + n_positions + 2) * n_embd


for sizes in ((3, 256, 256, 50257), (12, 768, 1024, 50257), (48, 1600, 1024, 50257)):  # nano, small, XL
    total, table = count_parameters(*sizes), sizes[1] * sizes[3]
    print(f"{total:13,} parameters, {4 * total / 1e6:5,.0f} MB in fp32, token table {table / total:3.0%}")

# %% [markdown]
# **2.** ★★ The book's own files store query, key and value of a block as three `nn.Linear` matrices of
# (C, C). Our `attn.qkv.weight` is one matrix of (3 C, C). Join them.
#
# <details><summary>中文</summary>书中的文件把 query、key、value 存成三个 (C, C) 矩阵，我们的 `qkv` 是一个 (3C, C) 矩阵。请把它们拼起来。</details>


# %% tags=["your-turn"]
def join_qkv(query, key, value):  # three (C, C), as nn.Linear stores them -> (3 C, C)
    """Your turn."""


# check
import torch

x, q, k, v = torch.arange(36.0).view(4, 3, 3)
got, wanted = join_qkv(q, k, v), torch.cat([x @ q.T, x @ k.T, x @ v.T], dim=1)
good = got is not None and got.shape == (9, 3) and torch.equal(x @ got.T, wanted)
print("your turn" if got is None else "right" if good else "not yet: outputs are the rows of the matrix")


# %% tags=["wrong"]
def join_qkv(query, key, value):  # side by side, then forced into shape
    return torch.cat([query, key, value], dim=1).view(-1, query.shape[1])


# %% tags=["solution"]
import torch


def join_qkv(query, key, value):
    return torch.cat([query, key, value])


print(tuple(join_qkv(*torch.zeros(3, 256, 256)).shape))

# %% [markdown]
# **3.** ★★★ In one block of a network `attn.proj` was not transposed. Find out which, with nothing but the
# network and some text: transpose one matrix after the other and watch the loss. Leave the network as it was.
#
# <details><summary>中文</summary>某个块的 `attn.proj` 忘了转置。只用网络和一段文本找出是哪一块：逐个转置，看损失怎样变化，最后恢复原状。</details>


# %% tags=["your-turn"]
def find_fault(network, ids): ...  # -> the number of the block


# check
import torch

from gptcls.core.tokenizer import encode
from gptcls.models.pretrained import load_pretrained

nano, got = load_pretrained("gpt2-nano"), []
kept = [block.attn.proj.weight.clone() for block in nano.blocks]
ids = torch.tensor([encode("Are we still on for dinner tonight? Let me know when you get there")])
for proj in [block.attn.proj for block in nano.blocks]:
    proj.weight.data = proj.weight.data.T
    got.append(find_fault(nano, ids))
    proj.weight.data = proj.weight.data.T
same = all(torch.equal(old, block.attn.proj.weight) for old, block in zip(kept, nano.blocks, strict=True))
print("your turn" if got[0] is None else "right" if same and got == [0, 1, 2] else f"not yet: {got}, {same=}")


# %% tags=["wrong"]
def find_fault(network, ids):  # a matrix and its transpose have the same norm
    return max(range(3), key=lambda k: network.blocks[k].attn.proj.weight.norm().item())


# %% tags=["solution"]
import torch


def find_fault(network, ids):
    losses = []
    for block in network.blocks:
        matrix = block.attn.proj.weight
        matrix.data = matrix.data.T
        logits = network.lm_logits(network(ids))[0]
        losses.append(torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:]).item())
        matrix.data = matrix.data.T
    return losses.index(min(losses))


# %% [markdown]
# ## Quiz
#
# <details><summary><b>Five questions</b></summary>
#
# 1. Why does the file hold no matrix for the output head? <details><summary>Answer</summary>It is tied: the logits are the hidden vectors times the transposed token table, which is in the file already.</details>
# 2. A loader raised no error. Why may it be wrong? <details><summary>Answer</summary>It checked names and shapes. A square matrix that was not transposed, or two exchanged norms, have the right shape.</details>
# 3. What of a block is transposed? <details><summary>Answer</summary>The matrices of its four linear layers. Biases and norms are vectors, and the two tables are stored as `nn.Embedding` has them.</details>
# 4. Why must an unknown name be an error? <details><summary>Answer</summary>Else the tensor that it was meant for keeps its random start, and nobody notices.</details>
# 5. What does temperature 0.5 do, what 2? <details><summary>Answer</summary>The logits are divided by it: 0.5 doubles their differences, so likely tokens gain; 2 halves them, so all become more alike.</details>
# </details>
#
# Next: [6. Asking and probing](06_probing.ipynb)
