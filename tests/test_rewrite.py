"""Back-translation and paraphrases: by transformers' own models, tiny and random, made here."""

import json
import logging
import os
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers.tiny import HAM, ROWS, SPAM
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from gptcls.core.errors import InputError
from gptcls.data.sources import labelled_frame
from gptcls.data.split import Split
from gptcls.evaluation.baselines import tfidf_baseline
from gptcls.train import rewrite
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve
from gptcls.train.rewrite import FILE, Writer
from gptcls.train.rows import split_of

transformers = pytest.importorskip("transformers")
CPU = torch.device("cpu")
TEXTS = [text for text, _ in ROWS[:12]]
WORDS = sorted({word for text in HAM + SPAM for word in text.split()} | {str(i) for i in range(5)})


@pytest.fixture(autouse=True)
def log(caplog, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    caplog.set_level(logging.INFO, "gptcls")
    return caplog


def marian(folder, seed):
    """A Marian model with a tokenizer of whole words, as ``transformers`` saves them."""
    vocab = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", "paraphrase:", *WORDS])}
    words = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", vocab["</s>"])]
    )
    marks = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=32, **marks)
    torch.manual_seed(seed)
    config = transformers.MarianConfig(
        vocab_size=len(vocab), d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=32,
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, forced_eos_token_id=1, init_std=1.0,
    )  # fmt: skip
    transformers.MarianMTModel(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return tuple(marian(tmp_path_factory.mktemp(name), seed) for seed, name in ((1, "there"), (3, "back")))


def by_hand(name, texts, **how):
    """One text after the other, with nothing but transformers."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(name).eval()
    found = []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.inference_mode():
            new = model.generate(input_ids=ids, num_beams=4, max_new_tokens=31, max_length=None, **how)
        found.append(tokenizer.decode(new[0], skip_special_tokens=True))
    return found


def test_there_and_back_as_transformers_does_it(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(rewrite, "MORE", 100.0)  # else how long a text may be is the batch's
    texts = TEXTS[:6]
    there = by_hand(pair[0], texts)
    assert len(set(there)) > 1
    assert Writer("--translate-there", pair[:1]).write(texts, tmp_path, CPU) == [[text] for text in there]
    both = Writer("--translate-there", pair).write(texts, tmp_path, CPU)
    assert both == [[text] for text in by_hand(pair[1], there)]


def test_several_are_drawn_and_a_seed_gives_the_same(pair, tmp_path):
    found = Writer("--translate-there", pair, copies=3, seed=1).write(TEXTS, tmp_path / "a", CPU)
    assert all(len(each) <= 3 for each in found)
    assert len({text for each in found for text in each}) > 3
    assert Writer("--translate-there", pair, copies=3, seed=1).write(TEXTS, tmp_path / "b", CPU) == found
    assert Writer("--translate-there", pair, copies=3, seed=2).write(TEXTS, tmp_path / "a", CPU) != found


def test_what_was_written_is_not_written_again(pair, tmp_path, monkeypatch, log):
    writer = Writer("--translate-there", pair, copies=2)
    whole = writer.write(TEXTS, tmp_path / "whole", CPU)
    monkeypatch.setattr(rewrite, "BATCH", 4)
    in_fours = writer.write(TEXTS, tmp_path / "fours", CPU)
    call, calls = rewrite.Model.__call__, []

    def ends(model, *arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return call(model, *arguments)

    monkeypatch.setattr(rewrite.Model, "__call__", ends)
    with pytest.raises(KeyboardInterrupt):
        writer.write(TEXTS, tmp_path / "ended", CPU)
    assert writer.write(TEXTS, tmp_path / "ended", CPU) == in_fours
    assert "4 texts from" in log.text
    assert ", 8 to write" in log.text
    monkeypatch.setattr(rewrite, "_load", None)
    assert writer.write(TEXTS[::-1], tmp_path / "whole", CPU) == whole[::-1]
    (tmp_path / "whole" / FILE).write_bytes(b"no data base, but a longer text" * 99)
    with pytest.raises(InputError, match=r"rewritten.sqlite cannot be used .* delete it"):
        writer.write(TEXTS, tmp_path / "whole", CPU)


def test_a_text_longer_than_the_model_reads_gets_none(pair, tmp_path, log):
    long = " ".join(WORDS)
    found = Writer("--translate-there", pair).write([long, TEXTS[0]], tmp_path, CPU)
    assert list(map(len, found)) == [0, 1]
    assert "1 texts get none: longer than the models read" in log.text


def rows(config, frame):
    none = labelled_frame(["held out"], ["ham"])
    return split_of(Split(frame, none, none), config).train


def test_new_rows_of_a_run(pair, log):
    frame = labelled_frame(*zip(*ROWS, strict=True))
    there, back = pair
    options = {"translate_there": there, "translate_back": back, "device": "cpu", "seed": 3}
    config = resolve(TrainConfig.of(augment=("back-translate", "swap"), **options))
    found = rows(config, frame)
    pd.testing.assert_frame_equal(found[: len(frame)], frame)
    assert found.text.is_unique
    home = Path(os.environ["XDG_CACHE_HOME"]) / "gptcls"
    written = Writer("--translate-there", pair, 1, 3).write(list(frame.text), home, CPU)
    labels = {}
    for each, label in zip(written, frame.label, strict=True):
        for text in each:
            labels.setdefault(text, label)
    new = [text for text in labels if text not in set(frame.text)]
    ours = found[len(frame) :][: len(new)]
    assert set(ours.text) <= set(new)
    assert all(labels[text] == label for text, label in zip(ours.text, ours.label, strict=True))
    assert "by back-translate" in log.text
    again = TrainConfig.of(**json.loads(json.dumps(config.to_json())))
    assert again.data.translate_back == back


def test_a_paraphrase_counts_if_it_keeps_the_label(pair, tmp_path, log):
    frame = labelled_frame(*zip(*ROWS, strict=True))
    options = {"paraphrase_with": pair[0], "augment_copies": 2, "device": "cpu", "cache": tmp_path}
    found = rows(resolve(TrainConfig.of(augment=("paraphrase",), **options)), frame)[len(frame) :]
    how = ("--paraphrase-with", pair[:1], 2, 123, "paraphrase: ", True)
    written = Writer(*how).write(list(frame.text), tmp_path, CPU)
    flat = [(text, label) for each, label in zip(written, frame.label, strict=True) for text in each]
    judge = tfidf_baseline(123).fit(frame.text, frame.label)
    kept = {text for text, label in flat if judge.predict([text])[0] == label}
    assert 0 < len(kept) < len(flat)
    assert set(found.text) <= kept
    assert set(judge.predict(found.text) == found.label) == {True}
    assert f"of {len(flat)} new texts are judged to have their source's label" in log.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"augment": ("back-translate",)}, "needs --translate-there, a model's name or folder"),
        ({"augment": ("back-translate",), "translate_there": "x"}, "needs --translate-back"),
        ({"augment": ("paraphrase",)}, "needs --paraphrase-with"),
        ({"augment": ("swap",), "translate_there": "x"}, "goes with --augment back-translate"),
        ({"paraphrase_prefix": "x"}, "goes with --augment paraphrase"),
        ({"augment_judge": "x"}, "--augment-judge x goes with --augment back-translate or paraphrase"),
        ({"augment": ("paraphrase",), "paraphrase_with": "x", "task": "regression"}, "not numbers"),
        ({"augment": ("paraphrase",), "paraphrase_with": "x", "task": "multi"}, "needs --augment-judge"),
    ],
)
def test_options_that_fit_nothing(options, said):
    with pytest.raises(InputError, match=said):
        resolve(TrainConfig.of(**options))


def test_models_that_are_none(pair, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    for name in (str(tmp_path / "empty"), str(tmp_path / "nowhere")):
        with pytest.raises(InputError, match="is no sequence-to-sequence model") as refused:
            Writer("--translate-there", (name, pair[1])).write(TEXTS, tmp_path, CPU)
        assert "\n" not in str(refused.value)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"needs transformers: pip install 'gptcls\[translate\]'"):
        Writer("--translate-there", pair).write(TEXTS, tmp_path, CPU)


def test_marians_own_tokenizer(pair, tmp_path, monkeypatch):
    """As the Opus models have it: two pieces models and a vocabulary."""
    monkeypatch.setattr(rewrite, "MORE", 100.0)
    sentencepiece = pytest.importorskip("sentencepiece", reason="Marian's tokenizer needs sentencepiece")
    folder = tmp_path / "opus"
    transformers.MarianMTModel.from_pretrained(pair[0]).save_pretrained(folder)
    (tmp_path / "texts.txt").write_text("\n".join(HAM + SPAM) + "\n")
    how = {"vocab_size": 45, "character_coverage": 1.0, "hard_vocab_limit": False, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "texts.txt"), model_prefix=str(folder / "source"), **how
    )
    (folder / "source.model").rename(folder / "source.spm")
    (folder / "target.spm").write_bytes((folder / "source.spm").read_bytes())
    pieces = [line.split("\t")[0] for line in (folder / "source.vocab").read_text().splitlines()]
    size = transformers.AutoConfig.from_pretrained(folder).vocab_size
    names = ["<pad>", "</s>", *[x for x in pieces if x not in ("<pad>", "</s>")]][:size]
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    marks = {"tokenizer_class": "MarianTokenizer", "source_lang": "en", "target_lang": "fr"}
    (folder / "tokenizer_config.json").write_text(json.dumps(marks))
    found = Writer("--translate-there", (str(folder),)).write(TEXTS[:1], tmp_path, CPU)
    assert [text for each in found for text in each] == by_hand(str(folder), TEXTS[:1])
