"""A Qwen2, Llama or Mistral from a folder to a classifier that labels and is scored; generation; faults."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.random_llama import byte_level, oracle_of, save
from helpers.tiny import CPU, ROWS, write_csv
from safetensors.torch import load_file

from gptcls.classify.predict import load_classifier
from gptcls.classify.run import ClassifyConfig, classify
from gptcls.classify.store import read_classifier, save_classifier
from gptcls.core.answer import dataset_logits
from gptcls.core.batches import TextDataset
from gptcls.core.classifier import Classifier
from gptcls.core.errors import InputError
from gptcls.evaluate import EvaluateConfig, evaluate
from gptcls.generate import GenerateConfig, generate_text
from gptcls.models.tokenizer_file import FileTokenizer
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve
from gptcls.train.rows import read_split
from gptcls.train.run import Run, fit, train

KINDS = ["qwen2", "llama3", "mistral", "qwen3", "smollm3", "phi3"]
TEXTS = [text for text, _ in ROWS]


def model_folder(folder: Path, kind: str = "qwen2", dtype: torch.dtype = torch.float32, **options) -> Path:
    """A checkpoint and its tokenizer, whose texts begin and end with tokens of their own."""
    sizes = {"vocab_size": 320, "max_position_embeddings": 64, "eos_token_id": 0, "pad_token_id": None}
    save(oracle_of(kind, **sizes | options).to(dtype), folder)
    byte_level(TEXTS, 320, ends=("<s>", "</s>")).save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A Qwen2 in fp32."""
    return model_folder(tmp_path / "qwen2")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Ham and spam."""
    return write_csv(tmp_path_factory.mktemp("data") / "rows.csv")


def run(data: Path, base: Path, out: str, **options) -> Run:
    defaults = {"epochs": 1, "batch_size": 8, "device": "cpu", "lr": 1e-3, "precision": "fp32"}
    return train(TrainConfig.of(data=str(data), model=str(base), out=base.parent / out, **defaults | options))


@pytest.mark.parametrize("kind", KINDS)
def test_from_a_folder_to_a_classifier(kind: str, data: Path, tmp_path: Path, capsys) -> None:
    base = model_folder(tmp_path / "base", kind)
    done = run(data, base, "x", train="all", epochs=12, lr=3e-3, calibrate="none")
    assert done.scores["train"]["accuracy"] > 0.9  # of 42 rows; the 12 of the test are too few to ask of them
    shutil.rmtree(base)  # what was saved is complete
    classifier = load_classifier(tmp_path / "x", "cpu", "fp32")
    test = pd.read_csv(tmp_path / "x" / "split" / "test.csv")
    accuracy = (pd.Series(classifier.predict(test.text.tolist())) == test.label).mean()
    assert accuracy == done.scores["test"]["accuracy"]
    model = done.classifier.model.eval()
    tokenizer = FileTokenizer(tmp_path / "x" / "classifier" / "tokenizer.json")
    row = tokenizer.encode("win a prize")
    assert tokenizer.decode(row) == "win a prize"
    with torch.inference_mode():
        expected = model(torch.tensor([row]), torch.tensor([len(row)])).softmax(dim=-1)[0]
    assert classifier.predict_proba("win a prize") == pytest.approx(expected.numpy(), abs=1e-5)

    scores = evaluate(EvaluateConfig(model=tmp_path / "x", device="cpu", precision="fp32"))
    assert scores["accuracy"] == accuracy
    classify(ClassifyConfig(texts=("win a prize", "see you"), model=tmp_path / "x", device="cpu"))
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == classifier.predict(
        ["win a prize", "see you"]
    )


def losses_of(data: Path, base: Path, **options) -> tuple[np.ndarray, Classifier]:
    """The losses of a run in memory, and the classifier."""
    defaults = {"epochs": 1, "batch_size": 8, "device": "cpu", "lr": 1e-3, "precision": "fp32"}
    config = resolve(TrainConfig.of(data=str(data), model=str(base), **defaults | options))
    run = fit(read_split(config), settings=config)
    return pd.DataFrame(run.history).train_loss.dropna().to_numpy(), run.classifier.model


@pytest.mark.parametrize("policy", ["head", "last_block", "last_2", "all"])
@pytest.mark.parametrize("kind", ["qwen2 window", "mistral"])
def test_the_fast_path_has_the_plain_loops_losses(kind: str, policy: str, data: Path, tmp_path: Path) -> None:
    base = model_folder(tmp_path / "base", kind, sliding_window=4)
    losses = {}
    for name, options in {"fast": {}, "plain": {"no_cache": True}, "narrow": {"precision": "bf16"}}.items():
        losses[name], model = losses_of(data, base, train=policy, eval_freq=2, **options)
        frozen = {p.dtype for p in model.parameters() if not p.requires_grad}
        trained = {p.dtype for p in model.trained_parameters().values()}
        narrow = torch.bfloat16 if name == "narrow" else torch.float32
        assert (frozen, trained) == ({narrow} if policy != "all" else set(), {torch.float32})
    assert len(losses["fast"]) > 2
    assert losses["fast"] == pytest.approx(losses["plain"], abs=1e-5)
    assert losses["narrow"] == pytest.approx(losses["plain"], abs=2e-2)
    assert (policy == "all") == np.array_equal(losses["narrow"], losses["fast"])


@pytest.fixture(scope="module")
def narrow(data: Path, tmp_path_factory) -> Run:
    """A run over a checkpoint in bf16, saved whole."""
    base = model_folder(tmp_path_factory.mktemp("narrow") / "base", dtype=torch.bfloat16)
    return run(data, base, "x", precision="bf16")


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_narrow_classifier_saved_and_read(full: bool, dtype: torch.dtype, narrow: Run, tmp_path) -> None:
    """In bf16 the answers are the same bits; in fp32 the frozen blocks are those of the bf16 file."""
    model = narrow.classifier.model
    save_classifier(tmp_path / "x", narrow.classifier, full)
    names = load_file(tmp_path / "x" / "model.safetensors").keys()
    assert names == (model.state_dict() if full else model.trained_parameters()).keys()
    back = read_classifier(tmp_path / "x", dtype)
    trained = back.model.trained_parameters()
    for name, value in back.model.state_dict().items():
        assert value.dtype == (torch.float32 if name in trained else dtype)
        assert torch.equal(value.float(), model.state_dict()[name].float())
    if dtype == torch.bfloat16:
        rows = TextDataset(TEXTS, torch.zeros(len(TEXTS)), 64, tokenizer=back.tokenizer)
        assert torch.equal(dataset_logits(back.model, rows, CPU), dataset_logits(model, rows, CPU))


def test_a_narrow_classifier_is_not_copied_on_loading(narrow: Run) -> None:
    if not (maps := Path("/proc/self/maps")).exists():
        pytest.skip("where a file is mapped is seen through Linux's /proc")
    file = str(narrow.folder / "classifier" / "model.safetensors")
    model = load_classifier(narrow.folder, "cpu", "bf16").model
    ranges = [line.split()[0].split("-") for line in maps.read_text().splitlines() if file in line]
    for name, parameter in model.frozen.classifier.named_parameters():
        address = parameter.data_ptr()
        assert any(int(first, 16) <= address < int(last, 16) for first, last in ranges), name
    blocks = model.frozen.classifier.backbone.blocks
    own = [*model.above.between.blocks][: len(blocks) - 1]  # the last one was trained in fp32
    assert all(mine is theirs for mine, theirs in zip(own, blocks[:-1], strict=True))


def test_a_padding_id_past_gpt2s_vocabulary_is_never_used(data: Path, base: Path) -> None:
    """GPT-2 pads with 50256, which this model does not know."""
    folder = run(data, base, "x", cache=base.parent / "features").folder
    classifier = load_classifier(folder, "cpu", "fp32")
    assert classifier.saved.tokenizer.pad_id == 0
    probabilities = classifier.predict_proba(["win", "see you at home " * 40])
    assert np.isfinite(probabilities).all()


def test_texts_are_cut_and_counted_by_the_models_own_tokens(base: Path, data: Path, tmp_path, caplog) -> None:
    tokenizer = FileTokenizer(base / "tokenizer.json")
    longer = sum(len(tokenizer.encode(text)) > 9 for text in TEXTS)
    assert 0 < longer < len(TEXTS)
    with caplog.at_level("INFO", "gptcls"):
        folder = run(data, base, "x", max_length=9).folder
        counts = [int(line.split()[1]) for line in caplog.messages if "longer than 9 tokens" in line]
        assert sum(counts) == longer
        out = tmp_path / "labelled.csv"
        classify(ClassifyConfig(model=folder, data=data, out=out, device="cpu"))
    assert f"{longer} texts are longer than 9 tokens" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_generate(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = model_folder(tmp_path / "base", kind)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    prompt = tokenizer("win a prize", return_tensors="pt")
    ids = prompt["input_ids"]
    tokens = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False)
    config = GenerateConfig("win a prize", str(folder), max_new_tokens=10, device="cpu", precision="fp32")
    assert generate_text(config) == tokenizer.decode(tokens[0], skip_special_tokens=True)
    assert generate_text(replace(config, precision="bf16")).startswith("win a prize")


# Bad input


def test_unsupported_architecture(base: Path, data: Path) -> None:
    file = base / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "gemma2"}))
    for use in (
        lambda: run(data, base, "x"),
        lambda: generate_text(GenerateConfig("x", str(base))),
    ):
        with pytest.raises(InputError, match="'gemma2'; supported are bert, "):
            use()
    assert not (base.parent / "x").exists()


def test_a_tokenizer_of_another_model(base: Path, data: Path) -> None:
    byte_level(TEXTS, 330, ends=tuple(f"<{i}>" for i in range(60))).save(str(base / "tokenizer.json"))
    for use in (
        lambda: run(data, base, "x"),
        lambda: generate_text(GenerateConfig("x", str(base))),
    ):
        with pytest.raises(InputError, match=r"has a vocabulary of 320 tokens, its tokenizer 3\d\d"):
            use()
    (base / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"tokenizer\.json is missing"):
        run(data, base, "x")


def test_longer_than_the_positions(base: Path, data: Path) -> None:
    with pytest.raises(InputError, match=r"reads 64 tokens; lower --max-length"):
        run(data, base, "x", max_length=65)


def test_a_missing_shard(base: Path, data: Path) -> None:
    (base / "model.safetensors").unlink()
    sizes = {"vocab_size": 320, "max_position_embeddings": 64}
    save(oracle_of("qwen2", **sizes), base, max_shard_size="60KB")
    saved = run(data, base, "x", save="trained").folder
    shard = sorted(base.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(InputError, match=rf"{shard.name} is missing: model\.safetensors\.index\.json names"):
        run(data, base, "y")
    with pytest.raises(InputError, match=f"needs the base weights .*{shard.name} is missing"):
        read_classifier(saved)


@pytest.fixture
def saved(narrow: Run, tmp_path: Path) -> Path:
    """The folder of a classifier, to be damaged."""
    return Path(shutil.copytree(narrow.folder / "classifier", tmp_path / "saved"))


def test_a_classifier_without_its_tokenizer(saved: Path) -> None:
    (saved / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"tokenizer\.json is missing"):
        read_classifier(saved)


@pytest.mark.parametrize(
    ("keys", "value", "named"),
    [
        (("architecture", "n_kv_head"), 4, "n_kv_head 4 does not divide n_head 6"),
        (("architecture", "window"), "wide", "window 'wide', which is not null or a whole number"),
        (("architecture", "qkv_bias"), 1, "qkv_bias 1, which is not true or false"),
        (("architecture", "rope_theta"), "large", "rope_theta 'large', which is not a number"),
        (("architecture", "head_dim"), 0, "head_dim 0, which is not a whole number"),
        (("architecture", "vocab_size"), 300, "vocabulary of 300 tokens, its tokenizer 3"),
        (("tokenizer",), {"pad_id": 0}, "damaged .*eos_ids"),
        (("tokenizer",), None, "damaged .*tokenizer is null beside a tokenizer.json"),
    ],
)
def test_a_wrong_value_in_the_description(saved: Path, keys: tuple, value: object, named: str) -> None:
    file = saved / "classifier.json"
    spec = json.loads(file.read_text())
    inner = spec
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    file.write_text(json.dumps(spec))
    with pytest.raises(InputError, match=named) as error:
        read_classifier(saved)
    assert "\n" not in str(error.value)


def test_saved_again_it_is_the_same(saved: Path, tmp_path: Path) -> None:
    save_classifier(tmp_path / "again", read_classifier(saved, torch.bfloat16))
    for name in ("tokenizer.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()
    specs = [json.loads((folder / "classifier.json").read_text()) for folder in (saved, tmp_path / "again")]
    assert specs[0] == specs[1]
