"""A classifier on disk: complete, exact, and whole whatever happens while it is written."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from helpers.tiny import tiny_classifier, tiny_lora, tiny_saved
from safetensors.torch import load_file, save_file
from torch import nn

from gptcls.classify.predict import load_classifier
from gptcls.classify.run import ClassifyConfig
from gptcls.classify.store import find_classifier, read_classifier, save_classifier
from gptcls.common.files import atomic_file, atomic_folder
from gptcls.core.batches import pad
from gptcls.core.classifier import Classifier
from gptcls.core.errors import InputError
from gptcls.core.tokenizer import GPT2, encode
from gptcls.models.families import FAMILIES, Family
from gptcls.models.pretrained import load_pretrained, weights_sha256

ROWS = [[1, 2, 3], [7], [50000, 4]]


def same_answers(one, two):
    with torch.no_grad():
        return torch.equal(one.model(*pad(ROWS)), two.model(*pad(ROWS)))


def over_base(base):
    torch.manual_seed(5)
    model = Classifier(load_pretrained(base), 2)
    model.freeze("last_block")
    with torch.no_grad():
        for parameter in model.trained_parameters().values():
            parameter.add_(0.1)
    return replace(tiny_saved(), model=model.eval(), base={"name": str(base), "sha256": weights_sha256(base)})


def test_full_round_trip(tmp_path):
    saved = replace(tiny_saved(), scores={"test": {"accuracy": 0.9}}, max_length=33)
    save_classifier(tmp_path / "x", saved)
    back = read_classifier(tmp_path / "x")
    assert same_answers(saved, back)
    assert (back.task, back.max_length, back.scores, back.training) == (
        saved.task, 33, {"test": {"accuracy": 0.9}}, {"lr": 0.1},
    )  # fmt: skip
    assert not any(module.training for module in back.model.modules())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x"], "no temporary file stays"


def test_description_is_readable(tmp_path):
    save_classifier(tmp_path, tiny_saved())
    spec = json.loads((tmp_path / "classifier.json").read_text())
    assert spec["task"]["labels"] == ["ham", "spam"]
    assert spec["architecture"] | {"family": "gpt2"} == spec["architecture"]
    assert spec["versions"]["torch"] == torch.__version__


def test_trained_tensors_only(tmp_path, base):
    saved = over_base(base)
    save_classifier(tmp_path / "small", saved, full=False)
    save_classifier(tmp_path / "large", saved, full=True)
    small = load_file(tmp_path / "small" / "model.safetensors")
    assert small.keys() == saved.model.trained_parameters().keys()
    assert len(load_file(tmp_path / "large" / "model.safetensors")) > len(small)
    back = read_classifier(tmp_path / "small")
    assert same_answers(saved, back)
    assert same_answers(saved, read_classifier(tmp_path / "large"))
    assert back.model.trained_parameters().keys() == small.keys()


def test_base_absent_or_changed(tmp_path, base):
    save_classifier(tmp_path / "x", over_base(base), full=False)
    weights = base / "model.safetensors"
    tensors = load_file(weights)
    save_file({k: v + 1 for k, v in tensors.items()}, weights)
    with pytest.raises(InputError, match=rf"{base}: .*sha256 .*--base .*base=.*--save full"):
        read_classifier(tmp_path / "x")
    weights.unlink()
    with pytest.raises(InputError, match=rf"{base}.* holds no weights"):
        read_classifier(tmp_path / "x")
    shutil.rmtree(base)
    with pytest.raises(InputError, match=rf"{base}.*--base .*base=.*--save full"):
        read_classifier(tmp_path / "x")


@pytest.mark.parametrize("lora", [False, True])
def test_the_base_weights_may_move(tmp_path, base, lora):
    saved = over_base(base)
    if lora:
        saved = replace(saved, model=tiny_lora(backbone=load_pretrained(base)))
    save_classifier(tmp_path / "run" / "classifier", saved, full=False)
    (tmp_path / "elsewhere").mkdir()
    base.rename(tmp_path / "elsewhere" / "weights")
    with pytest.raises(InputError, match=rf"{base}.*--base .*base="):
        load_classifier(tmp_path / "run", "cpu")
    found = tmp_path / "elsewhere" / "weights"
    back = read_classifier(tmp_path / "run", base=found)
    assert same_answers(saved, back)
    assert back.base == saved.base | {"name": str(found)}, "saved again, it is found there"
    text = "win a prize"
    expected = load_classifier(tmp_path / "run", "cpu", "fp32", base=str(found)).predict_proba(text)
    options = {"model": str(tmp_path / "run"), "base": str(found), "device": "cpu", "precision": "fp32"}
    assert ClassifyConfig(**options).load().predict_proba(text).tolist() == expected.tolist()
    weights = found / "model.safetensors"
    save_file({k: v + 1 for k, v in load_file(weights).items()}, weights)
    with pytest.raises(InputError, match=rf"{found}.*sha256 .*--base"):
        read_classifier(tmp_path / "run", base=found)
    with pytest.raises(InputError, match=r"nowhere.*--base"):
        read_classifier(tmp_path / "run", base=tmp_path / "nowhere")


@pytest.mark.parametrize("place", ["run/base", "base"])
def test_a_base_that_moves_with_its_classifier_is_found(tmp_path, base, place):
    saved = over_base(base)
    save_classifier(tmp_path / "old" / "run" / "classifier", saved, full=False)
    base.rename(tmp_path / "old" / place)
    (tmp_path / "old").rename(tmp_path / "new")
    assert same_answers(saved, read_classifier(tmp_path / "new" / "run"))


def test_a_base_that_is_not_needed(tmp_path, base):
    save_classifier(tmp_path / "x", over_base(base))
    with pytest.raises(InputError, match=rf"{tmp_path / 'x'} .*--base"):
        read_classifier(tmp_path / "x", base=base)


class OwnBlock(nn.Module):
    """A gated mean of what came before."""

    def __init__(self, width):
        super().__init__()
        self.gate = nn.Linear(width, width)

    def forward(self, x, lengths=None):
        n = torch.arange(1, x.shape[1] + 1)[:, None]
        return x + self.gate(x).sigmoid() * x.cumsum(1) / n


@dataclass(frozen=True)
class OwnConfig:
    n_embd: int = 8
    n_positions: int = 32
    activation: str = "sigmoid"


class OwnNetwork(nn.Module):
    """The least that a backbone is, with a table that is in no file."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(50257, config.n_embd)
        self.blocks = nn.ModuleList(OwnBlock(config.n_embd) for _ in range(2))
        self.norm = nn.LayerNorm(config.n_embd)
        self.register_buffer("table", torch.linspace(0, 1, config.n_positions)[:, None], persistent=False)

    def embed(self, ids):
        return self.wte(ids) + self.table[: ids.shape[1]]

    def forward(self, ids, lengths=None):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, lengths)
        return self.norm(x)


def test_a_backbone_of_ones_own(tmp_path, monkeypatch):
    torch.manual_seed(3)
    model = Classifier(OwnNetwork(OwnConfig()), 2)
    model.freeze("last_block")
    saved = replace(tiny_saved(), model=model.eval(), max_length=32)
    with pytest.raises(InputError, match=r"OwnNetwork.*FAMILIES") as error:
        save_classifier(tmp_path / "x", saved)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "x").exists()
    monkeypatch.setitem(FAMILIES, "mine", Family(config=OwnConfig, network=OwnNetwork, decoder=True))
    save_classifier(tmp_path / "x", saved)
    assert same_answers(saved, read_classifier(tmp_path / "x"))
    classifier = load_classifier(tmp_path / "x", "cpu", "fp32")
    with torch.no_grad():
        expected = model(*pad([encode("win a prize")])).softmax(-1)[0]
    torch.testing.assert_close(torch.from_numpy(classifier.predict_proba("win a prize")), expected)
    monkeypatch.delitem(FAMILIES, "mine")
    with pytest.raises(InputError, match=r"'mine'.*FAMILIES"):
        read_classifier(tmp_path / "x")


def test_base_whose_config_says_another_network(tmp_path, base):
    save_classifier(tmp_path / "x", over_base(base), full=False)
    edit(tmp_path / "x", "architecture", "n_head", value=4)
    with pytest.raises(InputError, match=r"n_head 4.* have 2"):
        read_classifier(tmp_path / "x")


def test_base_with_a_head_of_its_own(tmp_path, base):
    """The classifier has no language-model head, whichever way it is loaded."""
    weights = base / "model.safetensors"
    save_file(load_file(weights) | {"lm_head.weight": torch.ones(50257, 16)}, weights)
    saved = over_base(base)
    save_classifier(tmp_path / "x", saved, full=False)
    back = read_classifier(tmp_path / "x")
    assert back.model.state_dict().keys() == saved.model.state_dict().keys()
    assert same_answers(saved, back)
    save_classifier(tmp_path / "copy", back)
    assert same_answers(saved, read_classifier(tmp_path / "copy"))


def test_random_start_cannot_be_stored_in_part(tmp_path):
    with pytest.raises(ValueError, match="pretrained"):
        save_classifier(tmp_path / "x", tiny_saved(), full=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("head.bias"), "head.bias .* is missing"),
        (lambda t: t.update(extra=torch.zeros(1)), "extra is unexpected"),
        (lambda t: t.update({"head.weight": torch.zeros(3, 16)}), r"head.weight .* \[3, 16\] .* \[2, 16\]"),
        (lambda t: t["backbone.norm.bias"].fill_(float("nan")), "backbone.norm.bias .* not finite"),
        (lambda t: t["head.weight"][1, 3:4].fill_(-float("inf")), "head.weight .* not finite"),
        (lambda t: t.update({"head.bias": torch.ones(2, dtype=torch.int64)}), r"head.bias .* torch.int64"),
    ],
)
def test_wrong_tensors_are_named(tmp_path, change, message):
    save_classifier(tmp_path, tiny_saved())
    tensors = load_file(tmp_path / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=message):
        read_classifier(tmp_path)


def damage_truncate(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def damage_json(folder):
    (folder / "classifier.json").write_text('{"format_version": 1,')


def edit(folder, *keys, value):
    """Set one value of classifier.json; without a value the key goes."""
    file = folder / "classifier.json"
    spec = json.loads(file.read_text())
    inner = spec
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    if value is None:
        del inner[keys[-1]]
    file.write_text(json.dumps(spec))


def damage_not_utf8(folder):
    (folder / "classifier.json").write_bytes(b'{"format_version": 1, "base": "\xff"}')


def damage_newer(folder):
    edit(folder, "format_version", value=99)


def damage_no_tensors(folder):
    (folder / "model.safetensors").unlink()


def damage_key(folder):
    edit(folder, "task", value=None)


def damage_unread_key(folder):
    edit(folder, "scores", value=None)


def damage_no_tokenizer(folder):
    edit(folder, "tokenizer", value=None)


def damage_no_way_to_read(folder):
    edit(folder, "long", value=None)


def damage_list(folder):
    (folder / "classifier.json").write_text("[1]")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_truncate, "damaged"),
        (damage_json, "damaged"),
        (damage_key, "damaged"),
        (damage_no_tensors, "damaged"),
        (damage_not_utf8, "damaged .*utf-8"),
        (damage_unread_key, "damaged .*scores"),
        (damage_no_tokenizer, "damaged .*tokenizer"),
        (damage_no_way_to_read, "damaged .*long"),
        (damage_list, "damaged"),
        (damage_newer, "version 99.*update gptcls"),
    ],
)
def test_damage_is_one_line(tmp_path, damage, message):
    save_classifier(tmp_path, tiny_saved())
    damage(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        read_classifier(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("architecture", "n_head"), 5, "n_head 5 .*n_embd 16"),
        (("architecture", "n_head"), 0, "n_head 0"),
        (("architecture", "n_head"), True, "n_head True"),
        (("architecture", "n_layer"), -1, "n_layer -1"),
        (("architecture", "n_embd"), "16", "n_embd '16'"),
        (("architecture", "n_embd"), 2**62, f"n_embd {2**62}"),
        (("architecture", "norm_eps"), float("nan"), "norm_eps nan"),
        (("architecture", "dropout"), "none", "dropout 'none'"),
        (("architecture", "family"), "mamba", "'mamba'.*gpt2, llama, bert, roberta"),
        (("task", "kind"), "ranking", "'ranking'.*update gptcls"),
        (("task", "labels"), ["a", "a"], r"labels \['a', 'a'\].* different"),
        (("task", "labels"), "ab", "labels 'ab'"),
        (("task", "class_weights"), [1.0], r"class_weights \[1.0\]"),
        (("pooling",), "foo", "pooling 'foo'.* one of last, first, mean, max, position-1"),
        (("pooling",), ["last"], "pooling"),
        (("max_length",), "x", "max_length 'x'"),
        (("max_length",), 5000, "max_length 5000.* n_positions 64"),
        (("max_length",), 0, "max_length 0"),
        (("pad_to",), 65, "pad_to 65"),
        (("trained",), "last_9", "trained 'last_9'"),
        (("trained",), "some", "trained 'some'.* last_block"),
        (("trained",), 1, "trained 1"),
        (("tensors",), "some", "tensors 'some', which is not one of all, "),
        (("tensors",), "trained", "base None"),
        (("format_version",), "x", "format_version 'x'.* 1 to 2"),
        (("format_version",), 0, "format_version 0"),
        (("format_version",), True, "format_version True"),
        (("long",), "middle", "long 'middle'.* head, tail, head-tail, windows"),
        (("cleaning",), "all", "cleaning 'all'.* none, basic"),
    ],
)
def test_a_wrong_value_is_named(tmp_path, keys, value, message):
    save_classifier(tmp_path, tiny_saved())
    edit(tmp_path, *keys, value=value)
    with pytest.raises(InputError, match=message) as error:
        read_classifier(tmp_path)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value) or "kind" in str(error.value)


def test_a_file_of_version_1(tmp_path):
    """As gptcls wrote it when every text was read by GPT-2's tokenizer from its start."""
    saved = tiny_saved()
    save_classifier(tmp_path, saved)
    spec = json.loads((tmp_path / "classifier.json").read_text())
    assert spec["format_version"] == 2
    architecture = ("family", "n_layer", "n_embd", "n_head", "n_positions", "vocab_size", "dropout")
    old = {
        "format": "gptcls classifier",
        "format_version": 1,
        "base": None,
        "tensors": "all",
        "architecture": {key: spec["architecture"][key] for key in architecture}
        | {"norm_eps": 1e-05, "tied": True},
        "task": {"kind": "single_label", "labels": ["ham", "spam"], "class_weights": None},
        "pooling": "last",
        "max_length": 64,
        "pad_to": None,
        "trained": "all",
        "training": {"lr": 0.1},
        "versions": {"python": "3.10.0"},
        "scores": {},
    }
    (tmp_path / "classifier.json").write_text(json.dumps(old))
    back = read_classifier(tmp_path)
    assert same_answers(saved, back)
    assert back.task == saved.task
    assert (back.long, back.cleaning, back.tokenizer) == ("head", "none", GPT2)
    save_classifier(tmp_path, back)
    assert json.loads((tmp_path / "classifier.json").read_text())["format_version"] == 2


def test_half_precision_is_read_as_float32(tmp_path):
    save_classifier(tmp_path, tiny_saved())
    file = tmp_path / "model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file)
    model = read_classifier(tmp_path).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_folder_without_a_classifier(tmp_path):
    with pytest.raises(InputError, match="holds no classifier"):
        find_classifier(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        find_classifier(tmp_path / "no")
    save_classifier(tmp_path / "run" / "classifier", tiny_saved())
    assert find_classifier(tmp_path / "run") == tmp_path / "run" / "classifier"


def test_failure_while_writing_leaves_the_old_one_whole(tmp_path, monkeypatch):
    old = tiny_saved(seed=0)
    save_classifier(tmp_path / "x", old)
    monkeypatch.setattr(
        "gptcls.classify.store.save_file", lambda *a, **k: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with pytest.raises(InputError, match=r"No space left.*another --out"):
        save_classifier(tmp_path / "x", tiny_saved(seed=1))
    assert same_answers(old, read_classifier(tmp_path / "x"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x"]


def test_full_disk_leaves_the_old_one_whole(tmp_path):
    """A real one: a file system of 6 MB, where the first classifier fits and the second does not."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        old = tiny_saved(seed=0)
        save_classifier(disk / "x", old)
        assert (disk / "x" / "model.safetensors").stat().st_size > 3_000_000
        with pytest.raises(InputError, match="cannot save"):
            save_classifier(disk / "x", tiny_saved(seed=1))
        assert same_answers(old, read_classifier(disk / "x"))
        assert sorted(p.name for p in disk.iterdir()) == ["x"]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_replacing_an_older_classifier(tmp_path):
    save_classifier(tmp_path / "x", tiny_saved(seed=0))
    new = replace(tiny_saved(), model=tiny_classifier(seed=1).eval())
    save_classifier(tmp_path / "x", new)
    assert same_answers(new, read_classifier(tmp_path / "x"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x"]


def test_other_peoples_files_are_not_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=f"{tmp_path} holds other files"):
        save_classifier(tmp_path, tiny_saved())
    with pytest.raises(InputError, match=r"thesis\.tex"):
        save_classifier(tmp_path / "thesis.tex", tiny_saved())
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_older_one_comes_back_when_the_last_step_fails(tmp_path, monkeypatch):
    old = tiny_saved(seed=0)
    save_classifier(tmp_path / "x", old)
    rename = Path.rename

    def fails(self, target):
        if self.parent.name == "new":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    monkeypatch.setattr("gptcls.common.files.exchange", lambda *_: False)  # as on a system without it
    with pytest.raises(InputError, match="Input/output error"):
        save_classifier(tmp_path / "x", tiny_saved(seed=1))
    assert same_answers(old, read_classifier(tmp_path / "x"))
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002])
def test_files_have_the_mode_that_the_umask_asks_for(tmp_path, umask):
    before = os.umask(umask)
    try:
        save_classifier(tmp_path / "x", tiny_saved())
        with atomic_file(tmp_path / "y.safetensors") as temporary:
            save_file({"a": torch.ones(1)}, temporary)
        with atomic_folder(tmp_path / "z") as temporary:
            (temporary / "a").touch(mode=0o600)
    finally:
        os.umask(before)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) == 4
    assert {file.stat().st_mode & 0o777 for file in files} == {0o666 & ~umask}


@pytest.mark.slow
def test_loading_imports_no_compiler_and_maps_the_file(tmp_path):
    """What makes it fast: no random numbers for what is replaced at once, and no copy of the tensors."""
    save_classifier(tmp_path, tiny_saved())
    code = f"""
import sys
from pathlib import Path
from gptcls.classify.store import read_classifier
model = read_classifier({str(tmp_path)!r}).model
assert "torch._dynamo" not in sys.modules
maps = Path("/proc/self/maps")
if maps.exists():
    lines = [line for line in maps.read_text().splitlines() if "model.safetensors" in line]
    ranges = [[int(end, 16) for end in line.split()[0].split("-")] for line in lines]
    for name, parameter in model.named_parameters():
        assert any(first <= parameter.data_ptr() < last for first, last in ranges), name
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
