"""classify_review and load_classifier: what goes in shapes what comes out."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.random_gpt2 import stir
from helpers.tiny import CPU, tiny_classifier, tiny_lora, tiny_saved

import gptcls
from gptcls import InputError, TextClassifier, classify_review, load_classifier
from gptcls.classify.store import save_classifier
from gptcls.core.batches import pad
from gptcls.core.tokenizer import encode, gpt2_encoding
from gptcls.models.lora import lora_layers

TEXTS = ["win a prize now", "see you", "fine", "a much longer text " * 40, "see you"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    save_classifier(folder / "classifier", tiny_saved())
    return folder


def test_probabilities_are_the_models_in_the_order_given(folder):
    classifier = load_classifier(folder, "cpu", precision="fp32")
    probabilities = classifier.predict_proba(TEXTS)
    assert probabilities.shape == (5, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert np.array_equal(probabilities[1], probabilities[4])
    for text, row in zip(TEXTS, probabilities, strict=True):
        expected = plain(classifier, text)
        np.testing.assert_allclose(row, expected, atol=1e-6)
        np.testing.assert_allclose(classifier.predict_proba(text), expected, atol=1e-6)


def plain(classifier, text, max_length=64):
    """The probabilities (K,) that the reference, :class:`Classifier`, gives for one text."""
    ids = encode(text, max_length=max_length) or [50256]
    with torch.no_grad():
        return classifier.saved.model(*pad([ids])).softmax(-1)[0].numpy()


@pytest.mark.parametrize("lora", [False, True])
def test_what_the_caller_gave_stays_as_it_was(lora):
    """Adapters are merged in a copy, which shares every tensor that has none."""
    model = tiny_lora(targets=("qkv",)) if lora else tiny_classifier("last_block").eval()
    saved = replace(tiny_saved(), model=model)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    trained, policy = list(model.trained_parameters()), model.policy
    with torch.no_grad():
        expected = model(*pad([encode("see you")])).softmax(-1)[0]
    classifier = TextClassifier(saved, CPU, "fp32")
    np.testing.assert_allclose(classifier.predict_proba("see you"), expected, atol=1e-6)
    assert saved.model is model
    assert len(lora_layers(model)) == (3 if lora else 0)
    assert not lora_layers(classifier.saved.model)
    assert (list(model.trained_parameters()), model.policy) == (trained, policy)
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    mine = dict(classifier.saved.model.named_parameters())
    addresses = {parameter.data_ptr() for parameter in model.parameters()}
    shared = {name for name, parameter in mine.items() if parameter.data_ptr() in addresses}
    own = {name for name in mine if lora and name.endswith("qkv.weight")}
    assert shared == mine.keys() - own
    with torch.no_grad():
        again = model(*pad([encode("see you")])).softmax(-1)[0]
    assert torch.equal(again, expected)


def test_merged_weights_keep_their_format():
    model = tiny_lora()
    for layer in lora_layers(model).values():
        layer.base.bfloat16()
    merged = TextClassifier(replace(tiny_saved(), model=model), CPU, "fp32").saved.model
    assert merged.backbone.blocks[0].attn.qkv.weight.dtype == torch.bfloat16


def test_bf16_is_close(folder):
    found = load_classifier(folder, "cpu", precision="bf16").predict_proba(TEXTS)
    expected = load_classifier(folder, "cpu", precision="fp32").predict_proba(TEXTS)
    assert 0 < np.abs(found - expected).max() < 5e-3


def test_a_precision_that_is_none(folder):
    with pytest.raises(InputError, match="'fp8'"):
        load_classifier(folder, precision="fp8")


def test_max_length_cuts_and_never_lengthens(folder):
    classifier = load_classifier(folder, "cpu", precision="fp32")
    for max_length, read in ((3, 3), (64, 64), (5000, 64)):
        for text, row in zip(TEXTS, classifier.predict_proba(TEXTS, max_length), strict=True):
            np.testing.assert_allclose(row, plain(classifier, text, read), atol=1e-6)
    assert classifier.predict(TEXTS, 3) == classifier.predict([" ".join(t.split()[:3]) for t in TEXTS], 3)
    with pytest.raises(InputError, match="max_length 0"):
        classifier.predict("text", 0)


def test_predict_mirrors_its_input(folder):
    classifier = load_classifier(folder)
    labels = classifier.predict(TEXTS)
    assert labels == [classifier.predict(text) for text in TEXTS]
    assert labels == classifier.predict(tuple(TEXTS)) == classifier.predict(pd.Series(TEXTS))
    assert set(labels) <= {"ham", "spam"}
    assert classifier.labels == ("ham", "spam")
    assert classifier.predict([]) == []
    assert classifier.predict_proba([]).shape == (0, 2)


def test_classify_review(folder):
    classifier = load_classifier(folder)
    words = {"spam": "spam", "ham": "not spam"}
    expected = [words[label] for label in classifier.predict(TEXTS)]
    assert classify_review(TEXTS, model=folder) == expected
    assert classify_review(TEXTS, model=str(folder)) == expected
    assert classify_review(TEXTS, classifier) == expected
    assert classify_review(TEXTS[0], model=folder) == expected[0]


def test_classify_review_with_a_folder_honours_what_it_is_given(tmp_path):
    model = tiny_saved().model
    with torch.no_grad():  # the answer depends on the last token alone: "now" is spam, everything else is not
        for block in model.backbone.blocks:
            block.attn.proj.weight.zero_()
            block.mlp.proj.weight.zero_()
        model.backbone.wpe.weight.zero_()
        model.head.weight[1] = model.backbone.wte.weight[encode(" now")[0]] * 100
        model.head.weight[0] = 0
        model.head.bias[:] = torch.tensor([15.0, 0.0])
    saved = tiny_saved()
    saved.model = model
    save_classifier(tmp_path, saved)
    text = "later or now"
    assert classify_review([text, "later or"], tmp_path) == ["spam", "not spam"]
    assert classify_review(text, tmp_path, max_length=2) == "not spam"
    assert classify_review(text, load_classifier(tmp_path), max_length=2) == "not spam"
    assert classify_review(text, tmp_path, max_length=5000) == "spam"
    with pytest.raises(TypeError, match="its own tokenizer"):
        classify_review(text, tmp_path, gpt2_encoding())
    with pytest.raises(TypeError, match="its own"):
        classify_review(text, tmp_path, pad_token_id=0)
    assert classify_review(text, tmp_path, pad_token_id=50256) == "spam"


def test_a_retrained_folder_is_read_again(tmp_path):
    texts = [f"{word} {i}" for i in range(20) for word in ("win", "home")]
    answers = []
    for bias in (9.0, -9.0):
        saved = tiny_saved()
        with torch.no_grad():
            saved.model.head.bias.copy_(torch.tensor([-bias, bias]))
        save_classifier(tmp_path / "x", saved)
        answers.append(set(classify_review(texts, model=tmp_path / "x")))
    assert answers == [{"spam"}, {"not spam"}]


@pytest.mark.parametrize("max_length", [None, 20, 64])
def test_the_books_positional_call_with_our_classifier(max_length):
    model = tiny_classifier().eval()
    for text in TEXTS:
        row = encode(text)[: max_length or 64] or [50256]
        with torch.no_grad():
            label = model(*pad([row])).argmax().item()
        answer = classify_review(text, model, gpt2_encoding(), CPU, max_length=max_length, pad_token_id=50256)
        assert answer == ("spam" if label else "not spam")


class Ids(torch.nn.Module):
    """The book's model as far as classify_review looks at it; keeps the ids that it was given."""

    def __init__(self):
        super().__init__()
        self.pos_emb = torch.nn.Embedding(64, 1)

    def forward(self, ids):
        self.ids = ids
        return torch.zeros(*ids.shape, 2)


def test_the_book_call_survives_any_text():
    model = Ids()
    call = (model, gpt2_encoding(), CPU)
    assert classify_review("win <|endoftext|> now", *call) == "not spam"
    assert model.ids[0].tolist() == encode("win <|endoftext|> now")
    classify_review("a b", *call, max_length=5000)
    assert model.ids[0].tolist() == encode("a b") + [50256] * 62
    classify_review("a b", *call, max_length=5)
    assert model.ids.shape == (1, 5)
    classify_review("a " * 1_500_000, *call)
    assert model.ids.shape == (1, 64)
    with pytest.raises(TypeError, match=r"row 1: expected text, got int: 3"):
        classify_review(["fine", 3], *call)
    with pytest.raises(InputError, match="max_length -1"):
        classify_review("text", *call, max_length=-1)


def test_the_book_call_with_another_tokenizer():
    class Letters:
        def encode(self, text):
            return [ord(letter) for letter in text]

    model = Ids()
    classify_review("ab", model, Letters(), CPU)
    assert model.ids.tolist() == [[97, 98]]


@pytest.mark.parametrize("max_length", [20, 60])
def test_the_books_positional_call_with_the_books_model(max_length):
    ch04 = pytest.importorskip(
        "llms_from_scratch.ch04", reason="needs pip install --no-deps llms-from-scratch"
    )
    ch06 = pytest.importorskip(
        "llms_from_scratch.ch06", reason="needs pip install --no-deps llms-from-scratch"
    )
    config = {
        "vocab_size": 50257, "context_length": 64, "emb_dim": 16, "n_heads": 2, "n_layers": 2,
        "drop_rate": 0.0, "qkv_bias": True,
    }  # fmt: skip
    torch.manual_seed(2)
    model = stir(ch04.GPTModel(config))
    model.out_head = torch.nn.Linear(16, 2)
    texts = [f"{text} {i}" for text in TEXTS for i in range(5)]
    arguments = (model, gpt2_encoding(), CPU)
    expected = [ch06.classify_review(text, *arguments, max_length=max_length) for text in texts]
    assert [classify_review(text, *arguments, max_length=max_length) for text in texts] == expected
    assert len(set(expected)) == 2
    assert classify_review("its own default, which fails in the book", *arguments) in ("spam", "not spam")


@pytest.mark.parametrize("value", [None, 3, b"bytes", ["fine", 3]])
def test_what_is_not_text_is_a_type_error(folder, value):
    with pytest.raises(TypeError, match="expected"):
        classify_review(value, model=folder)


def test_mistakes_say_the_way_out(folder, tmp_path):
    with pytest.raises(InputError, match="holds no classifier"):
        classify_review("text", model=tmp_path)
    with pytest.raises(InputError, match="--device 'tpu'"):
        load_classifier(folder, device="tpu")
    with pytest.raises(TypeError, match="tokenizer"):
        classify_review("text", tiny_classifier())


def test_public_names():
    assert {"InputError", "TextClassifier", "classify_review", "load_classifier"} <= set(gptcls.__all__)
    assert all(getattr(gptcls, name) for name in gptcls.__all__)
