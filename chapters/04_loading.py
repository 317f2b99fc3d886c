# %% [markdown]
# # 4. Loading GPT-2, and letting it write
#
# The network of chapter 3 is an empty house. What makes it worth anything are the numbers that somebody
# paid to train, and these lie in a file, under other names than ours, some of them lying on their side.
# This chapter opens the file with bare hands, carries the numbers over, proves that none was lost, and then
# lets the model write.
#
# **What you will learn**
#
# - what a `.safetensors` file is, by reading one without a library;
# - the name map, and why four matrices of each block must be transposed;
# - how much a silent mistake in loading costs, in a picture;
# - how text is generated: greedily, with a temperature, among the k likeliest tokens.

# %%
import copy
import importlib.util
import json
import math
import struct
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from gptcls.core.gpt2 import GPT2
from gptcls.core.tokenizer import decode, encode
from gptcls.data.sources import load_data
from gptcls.evaluation.style import BLUE, GREY, ORANGE, VERMILION, use_style
from gptcls.models.gpt2_files import convert, save_pretrained
from gptcls.models.pretrained import load_pretrained
from gptcls.models.sampling import generate

use_style()
torch.manual_seed(123)
MODEL = "gpt2-nano"  # "gpt2-small" downloads 548 MB

# %% [markdown]
# ## A file in Hugging Face's format
#
# OpenAI published GPT-2 as a TensorFlow checkpoint; today nearly everybody takes the file that Hugging Face
# made of it. So that we have one to open, whatever `MODEL` is, we let the library write one.

# %%
model = load_pretrained(MODEL)
folder = Path(tempfile.mkdtemp()) / MODEL
save_pretrained(model, folder)
for path in sorted(folder.iterdir()):
    print(f"{path.name:18} {path.stat().st_size:12,} bytes")

# %% [markdown]
# `config.json` says how the network is built. Most sizes could be read off the tensors, but the number of
# heads could not: a (C, C) matrix looks the same with 4 heads and with 8.

# %%
config = json.loads((folder / "config.json").read_text())
print({key: config[key] for key in ("n_layer", "n_embd", "n_head", "n_positions", "vocab_size")})

# %% [markdown]
# ## Opening it by hand
#
# The format is simple on purpose: eight bytes with the length of a header, a header in JSON that says for
# each tensor where it begins and ends, and then the bare numbers. There is no code in it that could run, as
# in Python's pickle files.

# %%
raw = (folder / "model.safetensors").read_bytes()
(header_length,) = struct.unpack("<Q", raw[:8])  # an unsigned integer, lowest byte first
header = json.loads(raw[8 : 8 + header_length])
header.pop("__metadata__")
numbers = raw[8 + header_length :]

print(len(header), "tensors; those of the first block, and those of none:")
for name in (name for name in sorted(header) if ".h.0." in name or ".h." not in name):
    print(f"{name:40} {header[name]['dtype']} {header[name]['shape']}")


# %%
def my_read(name):
    """One tensor of the file."""
    start, end = header[name]["data_offsets"]
    return torch.frombuffer(bytearray(numbers[start:end]), dtype=torch.float32).view(header[name]["shape"])


state = {name: my_read(name) for name in header}
torch.testing.assert_close(state, load_file(folder / "model.safetensors"))
print("equal to what the safetensors library reads")

# %% [markdown]
# ## Lying on its side: Conv1D
#
# Look at the shapes above. `c_attn.weight` maps C numbers to 3 C numbers. PyTorch's `nn.Linear` would store
# it as (3 C, C), outputs first. GPT-2's authors wrote their linear layers as convolutions of width one,
# which store (C, 3 C), inputs first, and compute `x @ W + b`. Hugging Face kept that and calls the layer
# Conv1D.

# %%
weight, bias = state["transformer.h.0.attn.c_attn.weight"], state["transformer.h.0.attn.c_attn.bias"]
print("in the file:", list(weight.shape))

x = torch.randn(5, config["n_embd"])
linear = nn.Linear(config["n_embd"], 3 * config["n_embd"])
linear.weight.data, linear.bias.data = weight.T, bias
torch.testing.assert_close(linear(x), x @ weight + bias)

# %% [markdown]
# ## The name map
#
# Everything else is a question of names: what the file calls `h.0.mlp.c_fc` is `blocks.0.mlp.fc` here. Some
# files have the prefix `transformer.`, some have not; some hold buffers with the causal mask, which are no
# weights.

# %%
NAMES = {
    "wte": "wte",
    "wpe": "wpe",
    "h.{}.ln_1": "blocks.{}.norm1",
    "h.{}.attn.c_attn": "blocks.{}.attn.qkv",
    "h.{}.attn.c_proj": "blocks.{}.attn.proj",
    "h.{}.ln_2": "blocks.{}.norm2",
    "h.{}.mlp.c_fc": "blocks.{}.mlp.fc",
    "h.{}.mlp.c_proj": "blocks.{}.mlp.proj",
    "ln_f": "norm",
}
ON_THEIR_SIDE = ("attn.qkv.weight", "attn.proj.weight", "mlp.fc.weight", "mlp.proj.weight")


def my_convert(state):
    """Hugging Face's names and shapes -> ours. A name that is not in the table is an error, never dropped."""
    result = {}
    for name, tensor in state.items():
        *module, kind = name.removeprefix("transformer.").split(".")
        block = ""
        if module[0] == "h":
            block, module[1] = module[1], "{}"
        if module[-1] == "attn":  # h.0.attn.bias: the causal mask of older files
            continue
        ours = NAMES[".".join(module)].format(block) + "." + kind
        result[ours] = tensor.T if ours.endswith(ON_THEIR_SIDE) else tensor
    return result


mine = my_convert(state)
torch.testing.assert_close(mine, convert(state))
torch.testing.assert_close(mine, dict(load_pretrained(folder).state_dict()))
print(f"{len(mine)} tensors carried over, none lost, none changed")

# %% [markdown]
# The last comparison is the important one: the library's strict loader, started on the folder, arrives at the
# same network. It also refuses a file in which a tensor is missing, too many, of another shape, or not a
# finite number.
#
# Do we use the names that the rest of the world uses? Where `transformers` is installed we ask its own
# GPT-2 to load the folder, and compare the logits.

# %%
ids = torch.tensor([encode("Every effort moves you")])
if importlib.util.find_spec("transformers"):
    from transformers import GPT2LMHeadModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    with torch.no_grad():
        theirs = GPT2LMHeadModel.from_pretrained(folder).eval()(ids).logits
        torch.testing.assert_close(model.lm_logits(model(ids)), theirs, rtol=1e-4, atol=1e-4)
    print("transformers loads the folder and computes the same logits")
else:
    print("transformers is not installed here: pip install transformers, to see it load the folder")

# %% [markdown]
# ## What a silent mistake costs
#
# PyTorch complains about a wrong shape. But `attn.proj` is square, and a square matrix that was not
# transposed fits. So do two norms that were swapped, and a position table that stayed random. Nothing
# complains; the model is just worse. By how much? We measure the loss a token on ham, for the
# right network, for three that loaded without an error, and for one that never loaded anything.


# %%
def loss_a_token(model, texts):
    """Mean cross entropy of predicting each next token, in nats."""
    total, count = 0.0, 0
    with torch.inference_mode():
        for text in texts:
            ids = torch.tensor([encode(text)])
            logits = model.lm_logits(model(ids))[0]
            total += F.cross_entropy(logits[:-1], ids[0, 1:], reduction="sum").item()
            count += ids.shape[1] - 1
    return total / count


def broken(change):
    """A copy of the model, spoilt by ``change``."""
    spoilt = copy.deepcopy(model)
    with torch.no_grad():
        change(spoilt)
    return spoilt


def not_transposed(model):
    for block in model.blocks:
        block.attn.proj.weight.copy_(block.attn.proj.weight.T.clone())


def norms_swapped(model):
    for block in model.blocks:
        block.norm1, block.norm2 = block.norm2, block.norm1


def random_positions(model):
    nn.init.normal_(model.wpe.weight, std=0.02)


data = load_data("sms-sample")
messages = [text for text, label in data.itertuples(index=False) if label == "ham" and len(text) > 40][:30]
losses = {
    "as it should be": loss_a_token(model, messages),
    "norms of each block swapped": loss_a_token(broken(norms_swapped), messages),
    "position table left random": loss_a_token(broken(random_positions), messages),
    "attn.proj not transposed": loss_a_token(broken(not_transposed), messages),
    "no weights loaded at all": loss_a_token(GPT2(model.config).eval(), messages),
}
figure, axes = plt.subplots(figsize=(7.2, 2.6))
bars = axes.barh(list(losses), list(losses.values()), color=[BLUE, *[VERMILION] * 3, GREY])
axes.bar_label(bars, fmt="%.2f", padding=4)
axes.axvline(math.log(model.config.vocab_size), color=GREY, ls=":")
axes.invert_yaxis()
axes.set(xlabel="loss a token (nats); dotted: guessing, ln V", xlim=(0, 1.15 * max(losses.values())))
plt.show()

# %% [markdown]
# None of the three mistakes would be noticed by a program that only asks whether the file could be loaded.
# This is why loading is tested against somebody else's network, tensor by tensor and logit by logit.
#
# ## Letting it write
#
# A GPT does one thing: after a text, it gives a score to every token that might come next. To write, take
# the likeliest, put it behind the text, and ask again. This is called **greedy** decoding.


# %%
def my_greedy(model, ids, n):  # (1, T) -> (1, T + n)
    """The likeliest token, n times."""
    for _ in range(n):
        with torch.no_grad():
            last = model(ids)[:, -1]  # (1, C): only the last position predicts anything new
            logits = model.lm_logits(last)  # (1, V)
        ids = torch.cat([ids, logits.argmax(dim=-1, keepdim=True)], dim=1)
    return ids


written = my_greedy(model, ids, 15)
torch.testing.assert_close(written, generate(model, ids, 15))
print(repr(decode(written[0].tolist())))

# %% [markdown]
# With `MODEL = "gpt2-small"` the book prints `Every effort moves you forward.`, a blank line, and `The
# first step is to understand the importance of your work`; you can check this where there is a network. The
# bundled nano is far smaller and has read far less: some books, talk, mail and messages. It has an ear for
# their sound, and not much sense.
#
# ### Temperature
#
# Greedy text soon goes round in circles, for the likeliest word is rarely the interesting one. Instead draw
# the next token at random, with the probabilities that the model gives. The **temperature** divides the
# logits first: below 1 the likely tokens become likelier, above 1 all become more alike.

# %%
PROMPT = "I will see you"
prompt = torch.tensor([encode(PROMPT)])
with torch.no_grad():
    logits = model.lm_logits(model(prompt)[:, -1])[0]  # (V,)
top = logits.topk(10).indices
names = [repr(decode([i])).strip("'\"").replace("<|endoftext|>", "(end)") for i in top.tolist()]

figure, axes = plt.subplots(figsize=(8.2, 3.4))
places = torch.arange(len(names))
for number, (temperature, colour) in enumerate(((0.5, BLUE), (1.0, ORANGE), (2.0, GREY))):
    probabilities = (logits / temperature).softmax(dim=-1)
    label = f"temperature {temperature:g}: {probabilities[top].sum():.0%} on these ten"
    axes.bar(places + 0.27 * (number - 1), 100 * probabilities[top], 0.27, color=colour, label=label)
axes.set_xticks(places, names, family="monospace")
axes.set(title=f"what follows “{PROMPT}”?", ylabel="probability (%)")
axes.legend()
plt.show()

# %% [markdown]
# ### Top-k
#
# There are fifty thousand tokens, nearly all of them nonsense here, and together their tiny probabilities
# add up. **Top-k** sampling keeps the k likeliest and draws among these.


# %%
def my_sample(model, ids, n, temperature, top_k, generator):
    """n tokens, each drawn among the ``top_k`` likeliest."""
    for _ in range(n):
        with torch.no_grad():
            logits = model.lm_logits(model(ids)[:, -1])  # (1, V)
        smallest = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -math.inf)
        probabilities = (logits / temperature).softmax(dim=-1)
        ids = torch.cat([ids, torch.multinomial(probabilities, 1, generator=generator)], dim=1)
    return ids


mine = my_sample(model, prompt, 20, 0.8, 40, torch.Generator().manual_seed(7))
theirs = generate(model, prompt, 20, temperature=0.8, top_k=40, generator=torch.Generator().manual_seed(7))
torch.testing.assert_close(mine, theirs)

for temperature, top_k in ((0.0, None), (0.7, 40), (1.0, 40), (1.0, None), (2.0, None)):
    generator = torch.Generator().manual_seed(1)
    text = decode(generate(model, prompt, 20, temperature, top_k, generator)[0].tolist())
    print(f"temperature {temperature}, top-k {top_k or 'off':>3}: {text!r}")

# %% [markdown]
# From the first line, where temperature 0 stands for greedy, to the last, the text goes from dull to noise.
# `<|endoftext|>` is where the model ends a message and begins another; `generate` stops there if it is told
# so by `eos_id`. A taste for 0.7 to 1.0 with some top-k is common. On the command line:
# `python -m gptcls.generate --model gpt2-small "Every effort moves you"`.
#
# A classifier needs none of this. But a model that can say what comes next has had to learn what a text is
# about, and that is the knowledge the next chapters put to use.
#
# ## Exercises
#
# **1.** From the header alone, without reading a single number: how many bytes of the file are the token
# table, and how many are blocks?

# %% tags=["solution"]
size = {name: entry["data_offsets"][1] - entry["data_offsets"][0] for name, entry in header.items()}
table = size["transformer.wte.weight"]
blocks = sum(n for name, n in size.items() if ".h." in name)

assert sum(size.values()) == len(numbers)
assert table == 4 * config["vocab_size"] * config["n_embd"]
print(f"token table {table / len(numbers):.0%}, blocks {blocks / len(numbers):.0%} of {len(numbers):,} bytes")

# %% [markdown]
# **2.** Top-k always keeps k tokens, whether the model is sure or not. Write *top-p*: keep the likeliest
# tokens whose probabilities together just reach p. How many are that for p = 0.9 after "Thank you very",
# and after "I"?


# %% tags=["solution"]
def top_p(probabilities, p):
    """The fewest tokens whose probabilities reach p, likeliest first."""
    ordered, order = probabilities.sort(descending=True)
    before = ordered.cumsum(dim=-1) - ordered  # what the likelier ones reach together
    return order[before < p]


for text in ("Thank you very", "I"):
    with torch.no_grad():
        probabilities = model.lm_logits(model(torch.tensor([encode(text)]))[:, -1])[0].softmax(dim=-1)
    kept = top_p(probabilities, 0.9)
    assert probabilities[kept].sum() >= 0.9 > probabilities[kept[:-1]].sum()
    print(f"{text!r}: {len(kept):,} tokens, the likeliest {decode([int(kept[0])])!r}")

# %% [markdown]
# **3.** The book's own files keep query, key and value in three layers, as `nn.Linear` stores them:
# `trf_blocks.0.att.W_query`, `W_key` and `W_value`, each with `.weight` and `.bias`. Write those of block 0
# in the book's names, and let the library's `convert` read them back.

# %% tags=["solution"]
ours = model.state_dict()
book = {}
for kind in ("weight", "bias"):
    parts = ours[f"blocks.0.attn.qkv.{kind}"].chunk(3)  # (3 C, C) or (3 C,), cut into three
    for name, part in zip(("W_query", "W_key", "W_value"), parts, strict=True):
        book[f"trf_blocks.0.att.{name}.{kind}"] = part

back = convert(book)
for name, tensor in back.items():
    torch.testing.assert_close(tensor, ours[name])
assert "blocks.0.attn.qkv.weight" in back
print(sorted(back))

# %% [markdown]
# ## What changed from the book
#
# | | the book | here |
# | --- | --- | --- |
# | which file | OpenAI's TensorFlow checkpoint, read with TensorFlow | `.safetensors`; OpenAI's, the book's and `.pth` files as well |
# | carried over by | assignments, one a tensor | a table of names; an unknown name is an error |
# | checked | shapes | shapes, completeness, finite numbers, the download's sha256, logits against `transformers` |
# | generation | stops at the end-of-text token by a comparison of one value | a whole batch, each row with its own end |
#
# Next: [5. Asking instead of training](05_asking.ipynb), where we simply ask it whether a message is spam.
