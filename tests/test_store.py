"""A classifier on disk: complete, exact, and whole whatever happens while it is written."""

import json
import subprocess
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import CPU, TINY, tiny_classifier, tiny_saved

from gptcls.errors import InputError
from gptcls.inference import rows_logits
from gptcls.models.convert import to_huggingface
from gptcls.models.gpt2 import GPT2
from gptcls.models.pretrained import weights_sha256
from gptcls.store import find_classifier, read_classifier, save_classifier

ROWS = [[1, 2, 3], [7], [50000, 4]]


def same_answers(one, two):
    return torch.equal(rows_logits(one.model, ROWS, CPU), rows_logits(two.model, ROWS, CPU))


@pytest.fixture
def base(tmp_path):
    """A folder with base weights in Hugging Face's format, as a hub download would be."""
    folder = tmp_path / "base"
    folder.mkdir()
    torch.manual_seed(4)
    state = to_huggingface(GPT2(TINY).state_dict())
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "model.safetensors")
    config = {
        "model_type": "gpt2",
        "n_layer": 3,
        "n_head": 2,
        "n_embd": 16,
        "n_positions": 64,
        "vocab_size": 50257,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def over_base(base):
    from gptcls.classifier import Classifier
    from gptcls.models.pretrained import load_pretrained

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
    with pytest.raises(InputError, match=r"trained on base weights .* sha256 .*--save full"):
        read_classifier(tmp_path / "x")
    weights.unlink()
    with pytest.raises(InputError, match="needs the base weights"):
        read_classifier(tmp_path / "x")


def test_random_start_cannot_be_stored_in_part(tmp_path):
    with pytest.raises(ValueError, match="pretrained"):
        save_classifier(tmp_path / "x", tiny_saved(), full=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("head.bias"), "head.bias is missing"),
        (lambda t: t.update(extra=torch.zeros(1)), "extra is unexpected"),
        (
            lambda t: t.update({"head.weight": torch.zeros(3, 16)}),
            r"head.weight .* shape \(3, 16\), not \(2, 16\)",
        ),
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


def damage_newer(folder):
    spec = json.loads((folder / "classifier.json").read_text())
    (folder / "classifier.json").write_text(json.dumps(spec | {"format_version": 99}))


def damage_no_tensors(folder):
    (folder / "model.safetensors").unlink()


def damage_key(folder):
    spec = json.loads((folder / "classifier.json").read_text())
    del spec["task"]
    (folder / "classifier.json").write_text(json.dumps(spec))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_truncate, "damaged"),
        (damage_json, "damaged"),
        (damage_key, "damaged"),
        (damage_no_tensors, "damaged"),
        (damage_newer, "version 99.*update gptcls"),
    ],
)
def test_damage_is_one_line(tmp_path, damage, message):
    save_classifier(tmp_path, tiny_saved())
    damage(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        read_classifier(tmp_path)
    assert "\n" not in str(error.value)


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
        "gptcls.store.save_file", lambda *a, **k: (_ for _ in ()).throw(OSError(28, "No space left"))
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
