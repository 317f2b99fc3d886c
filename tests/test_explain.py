"""Explanations against plain loops: a forward pass per piece left out, an integral of a thousand steps."""

import io
import math
import re
import sys
from copy import deepcopy
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.random_bert import wordpiece
from helpers.random_gpt2 import stir
from helpers.random_llama import byte_level, sentencepiece_like
from helpers.tiny import CPU, ROWS, set_pooling, tiny_lora, tiny_saved
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit, logsumexp
from sklearn.linear_model import LogisticRegression

from gptcls import InputError, TextClassifier, load_classifier
from gptcls.classify.attribution import Pieces, encoded_spans, scores_of
from gptcls.classify.explanation import spelled, strongest
from gptcls.classify.mixture import Mixture
from gptcls.classify.store import save_classifier
from gptcls.common import cli
from gptcls.core.batches import TextDataset, pad
from gptcls.core.classifier import Classifier
from gptcls.core.task import SingleLabel
from gptcls.core.tasks import MultiLabel, Regression
from gptcls.core.tokenizer import GPT2
from gptcls.data.clean import basic
from gptcls.data.long_texts import CUTS
from gptcls.data.sources import load_data
from gptcls.evaluation.calibration import Calibration
from gptcls.evaluation.decision import PLAIN, Decision
from gptcls.evaluation.intervals import mean_interval
from gptcls.evaluation.marked import printable, takes_colours
from gptcls.evaluation.ngrams import NgramModel, Tfidf
from gptcls.explain import ExplainConfig, explain
from gptcls.models.bert import Bert, BertConfig
from gptcls.models.llama import Llama, LlamaConfig
from gptcls.models.tokenizer_file import FileTokenizer

TEXT = "win a prize now and claim the cash"
ODD = [
    "  two  spaces\n\nlines\t x ",
    "👍 你好\uff0c我晚点到 ok",
    "e\u0301t\u00e9 \ud83d x",
    "a",
    "I'll've 12345!",
]
SIZES = {"n_layer": 3, "n_embd": 16, "n_head": 2, "n_positions": 64}


@pytest.fixture(scope="module")
def saved():
    found = tiny_saved()
    stir(found.model)
    with torch.no_grad():
        found.model.head.weight.mul_(10)
    return found


@pytest.fixture(scope="module")
def bundled():
    return load_classifier(precision="fp32")


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    texts = [*ODD[:2], TEXT] * 5
    byte_level(texts, ends=("<s>", "</s>")).save(str(folder / "llama.json"))
    sentencepiece_like([*texts], 90).save(str(folder / "sentencepiece.json"))
    wordpiece(texts, folder).save(str(folder / "bert.json"))
    return {path.stem: FileTokenizer(path) for path in folder.glob("*.json") if path.stem in NAMES} | {
        "gpt2": GPT2
    }


NAMES = ("llama", "sentencepiece", "bert")


def log_odds(logits: torch.Tensor) -> np.ndarray:
    """Of each class (K,), by the formula, from the logits (K,)."""
    z = logits.double().numpy()
    return np.array([z[k] - logsumexp(np.delete(z, k)) for k in range(len(z))])


def plain(model: Classifier, ids: list[int], pad_to: int | None = None) -> torch.Tensor:
    """The reference's logits (K,) of one row."""
    with torch.no_grad():
        return model(*pad([ids], pad_to))[0]


# --- occlusion ---


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "position-1"])
def test_tokens_by_a_plain_loop(saved, pooling):
    model = set_pooling(deepcopy(saved.model), pooling)
    pad_to = 20 if pooling == "position-1" else None
    classifier = TextClassifier(replace(saved, model=model, pad_to=pad_to), CPU, "fp32")
    ids = GPT2.encode(TEXT)
    found = classifier.explain(TEXT, by="token")
    assert found.pieces == tuple(GPT2.decode([i]) for i in ids)
    whole = log_odds(plain(model, ids, pad_to))
    np.testing.assert_allclose(found.scores, whole, atol=1e-4)
    for n, added in enumerate(found.attributions):
        left = log_odds(plain(model, ids[:n] + ids[n + 1 :], pad_to))
        np.testing.assert_allclose(added, whole - left, atol=2e-4)
        assert found.without[n] == ("ham", "spam")[int(left[1] > 0)]


def test_words_are_the_text_without_them(saved):
    classifier = TextClassifier(saved, CPU, "fp32")
    found, words = classifier.explain(TEXT), TEXT.split()
    assert [piece.strip() for piece in found.pieces] == words
    whole = logit(classifier.predict_proba(TEXT).astype(float))
    for n, added in enumerate(found.attributions):
        left = " " * (n == 0) + " ".join(words[:n] + words[n + 1 :])
        np.testing.assert_allclose(
            added, whole - logit(classifier.predict_proba(left).astype(float)), atol=2e-4
        )
    assert found.answer == classifier.predict(TEXT)
    np.testing.assert_allclose(found.outputs, classifier.predict_proba(TEXT), atol=1e-6)


def test_windows_and_cuts_as_predict_reads_them(saved):
    text = " ".join(f"{text}, {n}" for n, (text, _) in enumerate(ROWS[:9]))
    ids = GPT2.encode(text)
    for long in CUTS:
        classifier = TextClassifier(replace(saved, long=long, max_length=12), CPU, "fp32")
        found = classifier.explain(text, by="token")
        np.testing.assert_allclose(found.outputs, classifier.predict_proba(text), atol=1e-6)
        rows = CUTS[long](list(range(len(ids))), 12)
        assert len(ids) > 48
        assert len(rows) == (1 if long != "windows" else len(rows)) <= 8
        for n, added in enumerate(found.attributions):
            if not any(n in row for row in rows):
                assert np.isnan(added).all()
                assert found.without[n] is None
                continue
            left = [plain(saved.model, [ids[i] for i in row if i != n]) for row in rows]
            np.testing.assert_allclose(
                found.scores - added, log_odds(torch.stack(left).mean(dim=0)), atol=2e-4
            )


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_other_families_keep_what_stands_around_a_text(family, tokenizers):
    tokenizer = tokenizers[family]
    torch.manual_seed(0)
    if family == "bert":
        backbone = Bert(BertConfig(**SIZES, n_inner=24, n_segments=2, vocab_size=tokenizer.vocab_size))
    else:
        more = {"n_kv_head": 1, "head_dim": 8, "n_inner": 24}
        backbone = Llama(LlamaConfig(**SIZES, **more, vocab_size=tokenizer.vocab_size))
    model = Classifier(stir(backbone), 2, "first" if family == "bert" else "last").eval()
    classifier = TextClassifier(replace(tiny_saved(), model=model, tokenizer=tokenizer), CPU, "fp32")
    ids = tokenizer.encode(TEXT)
    before, behind = len(tokenizer.prefix), len(ids) - len(tokenizer.suffix)
    assert 0 < before < behind < len(ids)
    found = classifier.explain(TEXT, by="token", gradients=True)
    assert len(found.pieces) == behind - before
    whole = log_odds(plain(model, ids))
    for n, added in enumerate(found.attributions, before):
        np.testing.assert_allclose(added, whole - log_odds(plain(model, ids[:n] + ids[n + 1 :])), atol=2e-4)
    k = found.shown[0]
    empty = [*ids[:before], *[tokenizer.pad_id] * (behind - before), *ids[behind:]]
    np.testing.assert_allclose(found.gradients.baseline[k], log_odds(plain(model, empty))[k], atol=1e-4)
    assert abs(found.gradients.gap[k]) < 1e-3


def test_lora_is_explained_merged():
    model = tiny_lora()
    classifier = TextClassifier(replace(tiny_saved(), model=model), CPU, "fp32")
    ids, found = GPT2.encode(TEXT), classifier.explain(TEXT, by="token", gradients=True)
    left = np.stack([log_odds(plain(model, ids[:n] + ids[n + 1 :])) for n in range(len(ids))])
    np.testing.assert_allclose(found.attributions, log_odds(plain(model, ids)) - left, atol=5e-4)
    assert abs(found.gradients.gap[found.shown[0]]) < 1e-2


def test_a_mixture_is_explained_whole(saved):
    texts, labels = zip(*ROWS, strict=True)
    tfidf = Tfidf()
    linear = LogisticRegression().fit(tfidf.fit_transform(texts), labels)
    decide = lambda x: np.stack([-linear.decision_function(x) / 2, linear.decision_function(x) / 2], axis=1)  # noqa: E731
    ngrams = NgramModel.of(tfidf, decide, "softmax")
    classifier = TextClassifier(replace(saved, mixture=Mixture(0.7, 2.0, ngrams)), CPU, "fp32")
    found = classifier.explain(TEXT, gradients=True)
    ids = [GPT2.encode(piece) for piece in found.pieces]

    def by_hand(left_out: int | None) -> np.ndarray:
        kept = [n for n in range(len(ids)) if n != left_out]
        row = [i for n in kept for i in ids[n]]
        network = torch.softmax(plain(saved.model, row).double() / 2.0, dim=0)
        alone = linear.predict_proba(tfidf.transform(["".join(found.pieces[n] for n in kept)]))[0]
        return logit(0.3 * network.numpy() + 0.7 * alone)

    whole = by_hand(None)
    for n, added in enumerate(found.attributions):
        np.testing.assert_allclose(added, whole - by_hand(n), atol=1e-4)
    assert "n-grams" in found.covers
    network = log_odds(plain(saved.model, GPT2.encode(TEXT)) / 2.0)
    np.testing.assert_allclose(found.gradients.scores[found.shown[0]], network[found.shown[0]], atol=1e-4)
    # What the network does not read, the n-grams do.
    short = TextClassifier(replace(classifier.saved, max_length=2), CPU, "fp32").explain(TEXT)
    assert np.isfinite(short.attributions).all()


@pytest.mark.parametrize(
    "task",
    [
        SingleLabel(("a", "b", "c")),
        MultiLabel(("a", "b", "c"), thresholds=(0.2, 0.5, 0.9)),
        Regression(("a", "b", "c"), (1.0, 2.0, 3.0), (2.0, 0.5, 9.0)),
    ],
    ids=lambda task: task.name,
)
def test_every_kind_of_answer(task):
    torch.manual_seed(0)
    model = Classifier(stir(tiny_saved().model.backbone), 3).eval()
    classifier = TextClassifier(replace(tiny_saved(), model=model, task=task), CPU, "fp32")
    found, all_of_them = classifier.explain(TEXT, by="token"), classifier.explain(TEXT, ["c", "a"])
    ids = GPT2.encode(TEXT)

    def scores(row):
        z = plain(model, row)
        if isinstance(task, Regression):
            return z.numpy() * task.scales + task.means
        return z.numpy() if isinstance(task, MultiLabel) else log_odds(z)

    for n, added in enumerate(found.attributions):
        np.testing.assert_allclose(added, scores(ids) - scores(ids[:n] + ids[n + 1 :]), atol=1e-3)
    assert all_of_them.shown == (2, 0)
    answer = classifier.predict(TEXT)
    expected = {
        "single": lambda: (task.labels.index(answer),),
        "multi": lambda: tuple(map(task.labels.index, answer)) or (int(classifier.outputs(TEXT).argmax()),),
        "regression": lambda: (0, 1, 2),
    }
    assert found.shown == expected[task.name]()
    assert "\n".join(found.lines()).count(TEXT) == len(found.shown)
    with pytest.raises(InputError, match="'d' is unknown; the classifier has a, b, c"):
        classifier.explain(TEXT, "d")


def test_log_odds_where_a_probability_is_nearly_one():
    """1 - p is lost in double precision from a logit of 37 on."""
    logits = torch.tensor([[0.0, 33.0], [-20.0, 10.0]], dtype=torch.float64)
    found = scores_of(SingleLabel(("a", "b")), logits.softmax(dim=-1))
    np.testing.assert_allclose(found[:, 1], [33, 30], rtol=1e-9)
    np.testing.assert_allclose(scores_of(MultiLabel(("a", "b")), logits.sigmoid())[:, 0], [0, -20], rtol=1e-6)
    assert torch.isfinite(scores_of(SingleLabel(("a", "b")), torch.tensor([[0.0, 1.0]]))).all()


# --- pieces ---


@settings(deadline=None, max_examples=60)
@given(st.text(st.sampled_from("ab1 \n\té你好\uff0c👍!\x00\u0301"), max_size=30), st.integers(3, 9))
def test_pieces_join_to_the_text_and_rows_are_the_datasets(tokenizers, text, max_length):
    for tokenizer in tokenizers.values():
        for long, cut in CUTS.items():
            dataset = TextDataset([text], torch.zeros(1), max_length, None, tokenizer, cut)
            for by in ("word", "token"):
                pieces = Pieces.of(text, tokenizer, max_length, long, by)
                assert "".join(pieces.pieces) == text
                assert [list(row) or [tokenizer.pad_id] for row in pieces.whole] == dataset.rows
                assert all(pieces.pieces) or not text
                inside = len(tokenizer.prefix), len(pieces.ids) - len(tokenizer.suffix)
                assert all(
                    (n is None) == (not inside[0] <= i < inside[1]) for i, n in enumerate(pieces.owners)
                )
                owners = [n for n in pieces.owners if n is not None]
                assert owners == sorted(owners)


def test_words(tokenizers):
    for name, tokenizer in tokenizers.items():
        words = lambda text: list(Pieces.of(text, tokenizer, 64, "head", "word").pieces)  # noqa: B023, E731
        found = words("see you at six")
        assert [word.strip() for word in found] == ["see", "you", "at", "six"], name
        if name != "sentencepiece":  # of which a token may end with a space
            assert found == ["see", " you", " at", " six"], name
            assert [word.strip() for word in words(ODD[0])] == ODD[0].split(), name
    gpt2 = [Pieces.of(text, GPT2, 64, "head", "word").pieces for text in ODD]
    assert gpt2[1] == ("👍", " 你", "好", "\uff0c", "我", "晚", "点", "到", " ok")
    assert encoded_spans("é you", GPT2)[1] == [(0, 1), (1, 5)]
    # A character of three tokens is one piece, also by token.
    assert Pieces.of("a你b", GPT2, 64, "head", "token").pieces == ("a", "你", "b")


def test_spans_are_those_of_the_library(tokenizers):
    for name in NAMES:
        for text in (TEXT, *ODD):
            ids, spans = encoded_spans(text.replace("\ud83d", "?"), tokenizers[name])
            assert ids == tokenizers[name].encode(text.replace("\ud83d", "?"))
            assert len(spans) == len(ids)


def test_blank_and_odd_texts(saved):
    classifier = TextClassifier(replace(saved, cleaning="basic"), CPU, "fp32")
    assert classifier.explain("  \n") is None
    found = classifier.explain([*ODD, None, ""])
    assert found[-2:] == [None, None]
    for text, each in zip(ODD, found, strict=False):
        assert "".join(each.pieces) == each.text == basic(text.replace("\ud83d", "\ufffd"))
        assert np.isfinite(each.attributions).all()
    assert classifier.explain([]) == []
    (alone,) = classifier.explain("a").attributions  # what is left is the empty text
    np.testing.assert_allclose(
        alone,
        log_odds(plain(saved.model, GPT2.encode("a"))) - log_odds(plain(saved.model, [GPT2.pad_id])),
        atol=1e-4,
    )


# --- integrated gradients ---


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_gradients_by_a_riemann_sum_of_a_thousand_steps(saved, pooling):
    model = set_pooling(deepcopy(saved.model), pooling)
    classifier = TextClassifier(replace(saved, model=model), CPU, "fp32")
    found = classifier.explain(TEXT, ["ham", "spam"], by="token", gradients=True)
    ids, wide = GPT2.encode(TEXT), deepcopy(model).double()
    lengths = torch.tensor([len(ids)]).expand(100)
    end, start = (
        wide.backbone.embed(torch.tensor([row])).detach() for row in (ids, [GPT2.pad_id] * len(ids))
    )
    total = torch.zeros(len(ids), dtype=torch.float64)
    for steps in torch.arange(1_000).view(10, 100, 1, 1):
        x = (start + (steps + 0.5) / 1_000 * (end - start)).requires_grad_()
        hidden = x
        for block in wide.backbone.blocks:
            hidden = block(hidden, lengths)
        ham, spam = wide.head(wide.pool(wide.backbone.norm(hidden), lengths)).unbind(dim=-1)
        (slope,) = torch.autograd.grad((spam - ham).sum(), x)
        total += (slope * (end - start)).sum(dim=(0, 2)) / 1_000
    np.testing.assert_allclose(found.gradients.attributions[:, 1], total.numpy(), atol=1e-3)
    np.testing.assert_allclose(found.gradients.attributions[:, 0], -total.numpy(), atol=1e-3)
    np.testing.assert_allclose(found.gradients.gap, 0, atol=1e-3)
    assert abs(total).max() > 0.1


def test_gradients_of_windows_add_up_too(saved):
    classifier = TextClassifier(replace(saved, long="windows", max_length=12), CPU, "fp32")
    found = classifier.explain(f"{TEXT}, {TEXT}: {TEXT}", gradients=True)
    assert len(found.pieces) == 24
    (k,) = found.shown
    np.testing.assert_allclose(found.gradients.scores[k], found.scores[k], atol=1e-4)
    assert abs(found.gradients.gap[k]) < 1e-2
    assert np.isnan(found.gradients.gap[1 - k])


# --- what it finds ---


def test_the_bundled_classifiers_shortcut_is_a_long_number(bundled):
    """A long number alone makes spam of what would be none, and a free cruise without one for a message."""
    texts = ["my number is 09090812345", "Running late, order me a coffee 08081570199",
             "You won a free cruise! Text CLAIM to 80455"]  # fmt: skip
    for found in bundled.explain(texts, gradients=True):
        number = next(n for n, piece in enumerate(found.pieces) if piece.strip().isdigit())
        added = found.attributions[:, 1]
        assert found.answer == "spam"
        assert found.turns(number)
        assert found.without[number] == "ham"
        assert added[number] > 2 * np.delete(added, number).max()
        assert found.gradients.attributions[:, 1].argmax() == number
    assert bundled.predict("You won a free cruise") == "ham"


def test_numbers_stand_first_over_messages_that_have_one(bundled):
    """All of one length are one piece, whichever digits they have."""
    rows = load_data("sms-sample").query("label == 'ham'")["text"]
    ham = rows[(rows.str.len() < 40) & ~rows.str.contains(r"\d")].tolist()[:20]
    assert set(bundled.predict(ham)) == {"ham"}
    found = bundled.explain([f"{text} 0{7_700_900_000 + 7_919 * n}" for n, text in enumerate(ham)])
    first = strongest(found, 1).iloc[0]
    assert (first["piece"], first["texts"]) == ("00000000000", 20)
    assert first["low"] > 5
    assert first["turned"] == sum(each.answer == "spam" for each in found) >= 10


@pytest.mark.slow
def test_numbers_stand_first_over_every_sixth_message(bundled):
    found = bundled.explain(load_data("sms-sample")["text"][::6])
    first = strongest(found, 1).iloc[0]
    assert first["piece"] == "00000"
    assert first["turned"] > 0


def test_a_data_set_that_is_read_by_name_gives_its_test_part(tmp_path, bundled):
    (tmp_path / "train_5500.label").write_text("DESC:def What is a train ?\n" * 3)
    (tmp_path / "TREC_10.label").write_text("HUM:ind Who was Galileo ?\nHUM:ind Who was Newton ?\n")
    found = explain(ExplainConfig(data=f"trec6:{tmp_path}", least=2))
    assert set(found["piece"]) == {"who", "was", "?"}
    with pytest.raises(InputError, match="knows its own columns"):
        explain(ExplainConfig(data=f"trec6:{tmp_path}", text_column=("text",)))


def test_strongest_by_pandas(saved):
    texts = ["Win a prize!", "a PRIZE 123, a prize 456", "win a day", "see you", "  "]
    found = TextClassifier(saved, CPU, "fp32").explain(texts)
    rows = [
        (n, spelled(piece), float(added))
        for n, each in enumerate(found[:4])
        for piece, added in zip(each.pieces, each.attributions[:, 1], strict=True)
    ]
    sums = pd.DataFrame(rows, columns=["text", "piece", "added"]).groupby(["piece", "text"])["added"].sum()
    table = strongest(found, 1, least=2).set_index("piece")
    assert set(table.index) == {"win", "a", "prize"}
    for piece, row in table.iterrows():
        assert row["texts"] == len(sums[piece])
        np.testing.assert_allclose(row[["mean", "low", "high"]].astype(float), mean_interval(sums[piece]))
    nearest = [max(low, -high) for low, high in zip(table["low"], table["high"], strict=True)]
    assert nearest == sorted(nearest, reverse=True)
    assert set(strongest(found, 1, least=3).piece) == {"a"}


# --- what is shown ---


class Words(HTMLParser):
    """What a page shows as text, but for the numbers above words; its tags and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.inside, self.shown, self.tags, self.attributes = [], "", set(), []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes
        if tag not in ("meta", "br"):
            self.inside.append((tag, dict(attributes).get("class")))

    def handle_endtag(self, tag):
        self.inside.pop()

    def handle_data(self, data):
        if ("div", "text") in self.inside and ("rt", None) not in self.inside:
            self.shown += data


EVIL = '<script>alert("x")</script> & <img src=http://x> \x1b[2J \u202e end'


def test_a_page_needs_nothing_and_believes_no_text(tmp_path, saved):
    save_classifier(tmp_path / "c", saved)
    out = tmp_path / "new" / "why.html"
    explain(ExplainConfig(texts=(EVIL, TEXT), model=str(tmp_path / "c"), out=out, gradients=True))
    page = out.read_text(encoding="utf-8")
    words = Words(page)
    assert words.shown == EVIL.replace("\x1b", "\ufffd").replace("\u202e", "\ufffd") + TEXT
    assert not words.tags & {"script", "img", "link", "a", "iframe", "object"}
    assert not [name for name, _ in words.attributes if name.startswith(("on", "src", "href"))]
    assert "url(" not in page
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    assert "add up to" in page
    assert re.search(r"<rt>[+-]\d", page), "to be read without colours"
    assert words.inside == []


@pytest.mark.draws
def test_the_other_files(tmp_path, saved, capsys):
    save_classifier(tmp_path / "c", saved)
    model = str(tmp_path / "c")
    (found, _) = explain(
        ExplainConfig(texts=(TEXT, " "), model=model, out=tmp_path / "why.csv", gradients=True)
    )
    assert "' ' has no answer" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "why.csv", keep_default_na=False)
    (label,) = (found.task.labels[k] for k in found.shown)
    assert list(table) == ["text", "piece", f"attribution_{label}", f"gradients_{label}", "answer_without"]
    assert "".join(table["piece"]) == TEXT
    np.testing.assert_allclose(
        table.iloc[:, 2].astype(float), found.attributions[:, found.shown[0]], atol=1e-6
    )
    explain(ExplainConfig(texts=(TEXT, ODD[1]), model=model, out=tmp_path / "why.png"))
    assert (tmp_path / "why.png").read_bytes().startswith(b"\x89PNG")
    pd.DataFrame({"text": [text for text, _ in ROWS]}).to_csv(tmp_path / "rows.csv", index=False)
    for suffix in ("csv", "html", "png"):
        config = ExplainConfig(
            data=str(tmp_path / "rows.csv"), model=model, rows=20, out=tmp_path / f"all.{suffix}"
        )
        table = explain(config)
    assert set(table["label"]) == {"spam"}
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "all.csv"), table.round(6), atol=1e-6)
    assert "20 texts" in (tmp_path / "all.html").read_text(encoding="utf-8")
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".*"))


def test_a_notebook_shows_it(saved):
    html = TextClassifier(saved, CPU, "fp32").explain(EVIL)._repr_html_()
    assert "<script" not in html
    assert "<rt>" in html


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_colours_are_for_terminals_that_want_them(monkeypatch, saved):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("WT_SESSION", "x")
    assert takes_colours(Terminal())
    assert not takes_colours(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not takes_colours(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not takes_colours(Terminal())
    found = TextClassifier(saved, CPU, "fp32").explain(EVIL + TEXT)
    codes = "\n".join(found.lines(colours=True))
    bare = re.sub(r"\x1b\[38;5;16;48;5;\d+m(.*?)\x1b\[0m", r"\1", codes, flags=re.DOTALL)
    assert bare == "\n".join(found.lines())
    assert codes != bare
    assert "\x1b" not in bare
    assert printable(EVIL) in bare


def test_an_ascii_console_and_the_verb(monkeypatch, capfdbinary, tmp_path):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    monkeypatch.setattr(sys, "argv", ["gptcls", "explain", "call caf\xe9 \xa3100", "--by", "token"])
    cli.main()
    sys.stdout.flush()
    assert rb"call caf\xe9 \xa3100" in raw.getvalue()
    assert b"without it: ham" in raw.getvalue()


def test_a_terminal_gets_colours_and_nothing_else_of_a_strangers_classifier(monkeypatch, tmp_path, saved):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("WT_SESSION", "x")
    monkeypatch.setattr(sys, "stdout", Terminal())
    save_classifier(tmp_path / "c", replace(saved, task=replace(saved.task, labels=("ham", "sp\x1b[2Jam"))))
    pd.DataFrame({"text": [text for text, _ in ROWS]}).to_csv(tmp_path / "rows.csv", index=False)
    explain(ExplainConfig(texts=(TEXT,), model=str(tmp_path / "c")))
    explain(ExplainConfig(data=str(tmp_path / "rows.csv"), model=str(tmp_path / "c"), rows=20))
    said = sys.stdout.getvalue()
    assert "\x1b[38;5;16;48;5;" in said
    assert r"sp\x1b[2Jam" in said
    assert "\x1b" not in re.sub(r"\x1b\[(38;5;16;48;5;\d+|0)m", "", said)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "give texts, or --data with a file of them"),
        ({"label": ("spam", "x")}, "texts stand before --label"),
        ({"texts": ("x",), "data": "sms-sample"}, "not both"),
        ({"data": "sms-sample", "gradients": True}, "--gradients goes with texts"),
        ({"texts": ("x",), "encoding": "cp1252"}, "go with --data"),
        ({"texts": ("x",), "label": ("eggs",)}, "'eggs' is unknown; the classifier has ham, spam"),
        ({"texts": ("x",), "out": "why.pdf"}, "unknown format '.pdf'"),
        ({"texts": ("x",), "out": "why.html.gz"}, "unknown format '.gz'"),
        ({"texts": (" ",), "out": "why.html"}, "nothing to write"),
        ({"texts": ("x",), "gradients": True, "steps": 0}, "--steps 0"),
        ({"data": "sms-sample", "rows": 0}, "--rows 0"),
        ({"data": "sms-sample", "seed": -1}, "--seed -1"),
        ({"data": "gone.csv"}, "gone.csv: no such file"),
        ({"texts": ("x",) * 7, "out": "why.png"}, "7 panels"),
        ({"data": "few.csv"}, "no word stands in 3 texts"),
        ({"texts": ("few.csv",)}, "give --data few.csv to explain its texts"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_file(options, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few.csv").write_text("text\nsee you\n")
    with pytest.raises(InputError, match=re.escape(said)):
        explain(ExplainConfig(**options | ({"out": tmp_path / options["out"]} if "out" in options else {})))
    assert [path.name for path in tmp_path.iterdir()] == ["few.csv"]


def test_the_cost_is_a_text_more_than_pieces(saved, monkeypatch):
    """And the same row runs once: here leaving out either of two equal words."""
    from gptcls.classify import attribution

    ran = []
    real = attribution.dataset_logits
    monkeypatch.setattr(
        attribution,
        "dataset_logits",
        lambda model, data, device: ran.append(len(data)) or real(model, data, device),
    )
    classifier = TextClassifier(saved, CPU, "fp32")
    classifier.explain(TEXT)
    classifier.explain("win a a prize")
    assert ran == [len(TEXT.split()) + 1, 4]
    assert math.isclose(*classifier.explain("win a a prize").attributions[1:3, 1])


def test_an_ensemble_calibrated_and_decided_is_explained_as_it_answers(saved):
    members = [stir_head(saved, seed) for seed in (1, 2)]
    for decision in (Decision(threshold=0.9), Decision(abstain=0.99), PLAIN):
        whole = replace(saved, members=tuple(members), calibration=Calibration((2.5,)), decision=decision)
        classifier = TextClassifier(whole, CPU, "fp32")
        found = classifier.explain(TEXT, gradients=True)
        texts = [TEXT, *(TEXT.replace(piece, "", 1) for piece in found.pieces[1:])]
        p = classifier.predict_proba(texts).astype(float)
        logit = np.log(p[:, 1] / p[:, 0])
        np.testing.assert_allclose(found.attributions[1:, 1], logit[0] - logit[1:], atol=1e-4)
        assert [found.answer, *found.without[1:]] == classifier.predict(texts)
        (k,) = found.shown
        np.testing.assert_allclose(found.gradients.scores[k], found.scores[k], atol=1e-4)
        assert abs(found.gradients.gap[k]) < 1e-2


def stir_head(saved, seed):
    generator = torch.Generator().manual_seed(seed)
    trained = saved.model.trained_parameters()
    return {name: p.detach() + 0.3 * torch.randn(p.shape, generator=generator) for name, p in trained.items()}


def test_labels_calibrated_each_on_its_own_have_gradients_in_the_same_units(saved):
    lists = replace(
        saved, task=MultiLabel(("a", "b")), calibration=Calibration((2.0, 1.5), (0.5, -1.0)),
    )  # fmt: skip
    found = TextClassifier(lists, CPU, "fp32").explain(TEXT, ["a", "b"], gradients=True)
    np.testing.assert_allclose(found.gradients.scores, found.scores, atol=1e-4)
    np.testing.assert_allclose(found.gradients.gap, 0, atol=1e-2)
