"""A BERT or RoBERTa from a folder to a classifier: train, classify, evaluate, and faults."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from helpers.random_bert import oracle_of, roberta_bpe, wordpiece
from helpers.random_llama import save
from helpers.tiny import ROWS, TINY, write_csv
from safetensors.torch import load_file

from gptcls.classify.predict import load_classifier
from gptcls.classify.run import ClassifyConfig, classify
from gptcls.classify.store import read_classifier, save_classifier
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2
from gptcls.evaluate import EvaluateConfig, evaluate
from gptcls.generate import GenerateConfig, generate_text
from gptcls.models.pretrained import load_pretrained, load_tokenizer
from gptcls.pretrain.config import PretrainConfig
from gptcls.pretrain.run import pretrain
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve
from gptcls.train.run import Run, train
from gptcls.train.setup import choose_pooling

TEXTS = [text for text, _ in ROWS]
TOKENIZERS: dict[str, Callable[[list[str], Path], Any]] = {"bert": wordpiece, "roberta": roberta_bpe}
OTHERS = dict.fromkeys(("distilbert", "electra", "ernie", "modernbert", "deberta"), wordpiece)


def model_folder(folder: Path, kind: str = "bert", head: str = "ForMaskedLM", **options) -> Path:
    """A checkpoint and its tokenizer."""
    save(oracle_of(kind, head, **{"vocab_size": 300} | options), folder)
    (TOKENIZERS | OTHERS)[kind](TEXTS, folder)
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A BERT."""
    return model_folder(tmp_path / "bert")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "rows.csv")


def run(data: Path, base: Path, out: str, **options) -> Run:
    defaults = {"epochs": 1, "device": "cpu", "lr": 1e-3, "precision": "fp32"}
    return train(TrainConfig.of(data=str(data), model=str(base), out=base.parent / out, **defaults | options))


@pytest.mark.parametrize("kind", TOKENIZERS | OTHERS)
def test_from_a_folder_to_a_classifier(kind: str, data: Path, tmp_path: Path, capsys) -> None:
    base = model_folder(tmp_path / "base", kind)
    done = run(data, base, "x", train="all", epochs=12, calibrate="none")
    assert done.scores["train"]["accuracy"] > 0.9  # of 42 rows; the 12 of the test are too few to ask of them
    shutil.rmtree(base)  # what was saved is complete
    spec = json.loads((tmp_path / "x" / "classifier" / "classifier.json").read_text())
    assert (spec["architecture"]["family"], spec["pooling"]) == (kind, "first")
    classifier = load_classifier(tmp_path / "x", "cpu", "fp32")
    test = pd.read_csv(tmp_path / "x" / "split" / "test.csv")
    accuracy = (pd.Series(classifier.predict(test.text.tolist())) == test.label).mean()
    assert accuracy == done.scores["test"]["accuracy"]

    model, row = done.classifier.model.eval(), classifier.saved.tokenizer.encode("win a prize")
    with torch.inference_mode():
        expected = model(torch.tensor([row]), torch.tensor([len(row)])).softmax(dim=-1)[0]
    together = classifier.predict_proba(["", "win a prize", "see you at home " * 40])
    assert together[1] == pytest.approx(
        expected.numpy(), abs=1e-5
    )  # neither its neighbours nor padding matter
    scores = evaluate(EvaluateConfig(model=tmp_path / "x", device="cpu", precision="fp32"))
    assert scores["accuracy"] == accuracy
    here = {"model": tmp_path / "x", "device": "cpu", "precision": "bf16"}
    classify(ClassifyConfig(texts=("win a prize", "see you"), **here))
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == classifier.predict(
        ["win a prize", "see you"]
    )


@pytest.mark.parametrize(("pooling", "pooler"), [("first", True), ("mean", False)])
def test_the_pooler_speaks_for_the_first_token_alone(pooling, pooler, data: Path, tmp_path: Path) -> None:
    base = model_folder(tmp_path / "base", head="Model")
    done = run(data, base, "x", pooling=pooling, save="trained")  # over a file that has it
    assert done.classifier.model.backbone.config.pooler == pooler
    assert read_classifier(tmp_path / "x" / "classifier").model.backbone.config.pooler == pooler


@pytest.mark.parametrize("policy", ["head", "last_block", "last_2", "all"])
def test_the_fast_path_has_the_plain_loops_losses(policy: str, data: Path, tmp_path: Path) -> None:
    """Also where the plain loop's texts are padded to a fixed length."""
    base = model_folder(tmp_path / "base", head="ForPreTraining")
    losses = {}
    for out, options in (("fast", {}), ("plain", {"no_cache": True, "pad_to": 20})):
        done = run(data, base, out, train=policy, max_length=20, **options)
        losses[out] = pd.DataFrame(done.history).train_loss.dropna().to_numpy()
    assert losses["fast"] == pytest.approx(losses["plain"], abs=1e-5)


@pytest.mark.parametrize(
    ("head", "stored"), [("ForMaskedLM", "full"), ("ForSequenceClassification", "trained")]
)
def test_saved_and_read(head: str, stored: str, data: Path, tmp_path: Path) -> None:
    base = model_folder(tmp_path / "base", "roberta", head, num_labels=5)  # ours has 2
    done = run(data, base, "x", save=stored)
    folder = tmp_path / "x" / "classifier"
    names = set(load_file(folder / "model.safetensors"))
    assert (names == done.classifier.model.trained_parameters().keys()) == (stored == "trained")
    back = read_classifier(folder)
    assert back.model.backbone.config == done.classifier.model.backbone.config
    assert back.model.backbone.config.pooler == (head == "ForSequenceClassification")
    before = done.classifier.model.state_dict()
    for name, value in back.model.state_dict().items():
        assert torch.equal(value, before[name])
    save_classifier(tmp_path / "again", back, full=stored == "full")
    for name in ("tokenizer.json", "model.safetensors", "classifier.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_features_that_were_kept_serve_again(data: Path, base: Path, caplog) -> None:
    first = run(data, base, "x", cache=base.parent / "features")
    with caplog.at_level("INFO", "gptcls"):
        second = run(data, base, "y", cache=base.parent / "features")
    assert " 0 computed" in caplog.text
    assert first.history == second.history


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_ids_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    """Cut ones too: they end with [SEP] or </s>."""
    from transformers import PreTrainedTokenizerFast

    theirs = PreTrainedTokenizerFast(tokenizer_object=TOKENIZERS[kind](TEXTS, tmp_path))
    save(oracle_of(kind, vocab_size=300), tmp_path)
    ours = load_tokenizer(tmp_path)
    assert ours.pad_id == {"bert": 0, "roberta": 1}[kind]
    texts = [*TEXTS[:20], "", "Crème BRÛLÉE, 10%!", "  see  you\n", "你好"]
    for most in (None, 6, 3, 2):
        cut = {} if most is None else {"truncation": True, "max_length": most}
        assert ours.encode_rows(texts, most) == theirs(texts, **cut)["input_ids"]
    assert ours.decode(ours.encode("win a prize now")) == "win a prize now"


@pytest.mark.parametrize("asked", ["auto", "first", "last", "mean", "max"])
def test_what_the_head_reads(asked: str, base: Path) -> None:
    config = resolve(TrainConfig.of(model=str(base), pooling=asked))
    for backbone, usual in ((load_pretrained(base), "first"), (GPT2(TINY), "last")):
        assert choose_pooling(config.model, backbone) == (usual if asked == "auto" else asked)


# Bad input


@pytest.mark.parametrize("options", [{"pooling": "position-1"}, {"recipe": "book"}])
def test_the_books_pooling_would_read_what_is_masked(options: dict, data: Path, base: Path) -> None:
    refusal = r"--pooling position-1 .*which is a bert; use first, last, mean, max$"
    with pytest.raises(InputError, match=refusal):
        run(data, base, "x", **options)
    assert not (base.parent / "x").exists()


def test_generate(base: Path) -> None:
    with pytest.raises(InputError, match="it can classify, not generate") as error:
        generate_text(GenerateConfig("x", str(base), device="cpu"))
    assert "\n" not in str(error.value)


def test_pretrain(base: Path, data: Path) -> None:
    with pytest.raises(InputError, match="bert is not a GPT-2"):
        pretrain(PretrainConfig(data=(str(data),), model=str(base), out=base.parent / "x", device="cpu"))
    assert not (base.parent / "x").exists()


def test_longer_than_the_positions(tmp_path: Path, data: Path) -> None:
    base = model_folder(tmp_path / "base", "roberta")
    with pytest.raises(InputError, match=r"reads 64 tokens; lower --max-length"):
        run(data, base, "x", max_length=65)


def test_without_a_tokenizer(base: Path, data: Path) -> None:
    (base / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"tokenizer\.json is missing"):
        run(data, base, "x")


def test_a_tokenizer_with_more_tokens_than_the_table(tmp_path: Path, data: Path) -> None:
    base = model_folder(tmp_path / "base", vocab_size=40)
    with pytest.raises(InputError, match=r"has a vocabulary of 40 tokens, its tokenizer"):
        run(data, base, "x")


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """The folder of a classifier over a BERT."""
    folder = tmp_path_factory.mktemp("saved")
    return run(write_csv(folder / "rows.csv"), model_folder(folder / "base"), "x").folder / "classifier"


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("n_segments", 0, "n_segments 0, which is not null or a whole number"),
        ("n_head", 5, "n_head 5 does not divide n_embd 48"),
        ("attn_dropout", "much", "attn_dropout 'much', which is not a number"),
        ("pooler", 1, "pooler 1, which is not true or false"),
        ("pooler", True, r"tensor backbone\.norm\.dense\.\w+ .* is missing"),
        ("family", "bart", "'bart' network, this gptcls reads .*bert, roberta"),
    ],
)
def test_a_wrong_value_in_the_description(key, value, named: str, saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "classifier")
    file = folder / "classifier.json"
    spec = json.loads(file.read_text())
    spec["architecture"][key] = value
    file.write_text(json.dumps(spec))
    with pytest.raises(InputError, match=named):
        read_classifier(folder)
