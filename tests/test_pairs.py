"""Rows of several texts, held to transformers: ids, segments, cuts and answers of each family."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from helpers import random_bert, random_llama
from helpers.random_llama import byte_level, save
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing

from gptcls.classify.attribution import Pieces
from gptcls.classify.predict import TextClassifier, load_classifier
from gptcls.classify.run import ClassifyConfig, classify, classify_file
from gptcls.classify.store import SavedClassifier, read_classifier, save_classifier
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2, GPT2Config
from gptcls.core.tokenizer import GPT2 as GPT2_TOKENIZER
from gptcls.data.augment import Augmentation
from gptcls.data.clean import CLEANERS
from gptcls.data.fields import BOUNDARY, SIGN, fields_of, join_fields
from gptcls.data.in_memory import texts_of
from gptcls.data.long_texts import CUTS, cut_of, fields_read
from gptcls.data.same_text import text_key
from gptcls.data.sources import from_frame
from gptcls.data.split import Split, load_split, save_split
from gptcls.evaluate import evaluate
from gptcls.evaluation.ngrams import Tfidf
from gptcls.explain import ExplainConfig, explain
from gptcls.export.to_onnx import to_onnx
from gptcls.export.to_transformers import to_transformers
from gptcls.models.bert import Bert
from gptcls.models.fields_tokenizer import FieldsTokenizer
from gptcls.models.pretrained import load_tokenizer
from gptcls.pseudo_label import PseudoLabelConfig, pseudo_label
from gptcls.sklearn import GPTClassifier
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve
from gptcls.train.run import fit, train
from gptcls.train.setup import prepare

WORDS = ["a", "man", "sleeps", "he", "is", "awake", "the", "dog", "runs", "in", "park", "."]
LETTERS = [chr(i) for i in range(97, 123)]
WORDPIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *LETTERS[1:], *",?!"]
WORDPIECES += [f"##{letter}" for letter in LETTERS]
WORDPIECE = {token: i for i, token in enumerate(WORDPIECES)}
UNIGRAMS = [(f"▁{word}", -2.0) for word in WORDS] + [(sign, -4.0) for sign in ["▁", *LETTERS, *".,?!"]]
XLM = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), *UNIGRAMS, ("<mask>", 0.0)]
V3 = [("[PAD]", 0.0), ("[CLS]", 0.0), ("[SEP]", 0.0), ("[UNK]", -9.0), *UNIGRAMS, ("[MASK]", 0.0)]
SIGNS = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet()), "<mask>"]
BYTES = {"vocab": {token: i for i, token in enumerate(SIGNS)}, "merges": []}
SPECIAL = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
# The class of transformers that reads it, what it is made of, and what the network is told.
TOKENIZERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "bert": ("Bert", {"vocab": WORDPIECE}, {}),
    "ernie with tasks": ("Bert", {"vocab": WORDPIECE}, {}),
    "electra": ("Electra", {"vocab": WORDPIECE}, {}),
    "distilbert": ("DistilBert", {"vocab": WORDPIECE}, {}),
    "modernbert": ("DistilBert", {"vocab": WORDPIECE}, {}),  # its file says the same of two texts
    "deberta": ("DebertaV2", {"vocab": V3}, {}),
    "roberta": ("Roberta", BYTES, SPECIAL),
    "xlm-roberta": ("XLMRoberta", {"vocab": XLM}, SPECIAL),
    "camembert": ("Camembert", {"vocab": XLM}, SPECIAL),
}
PAIRS = [
    ("A man sleeps.", "He is awake."), ("the dog runs", "The DOG runs in the park!"), ("", "a man"),
    ("a", ""), ("the dog runs in the park " * 4, "he is"), ("he is", "a man sleeps in the park. " * 5),
    ("a man " * 20, "the dog " * 20), ("[SEP] </s> is text?", "  the   park\n"),
]  # fmt: skip
LABELLED = [(a, b, f"LABEL_{int('dog' in a)}") for a, b in (*PAIRS, ("a dog", "is"), ("man", "runs"))]
ROWS = [
    (f"the {x} {y} sleeps", f"{z} runs", y) for x in "abcde" for y in ("man", "dog") for z in ("he", "it")
]
COLUMNS = ["premise", "hypothesis", "label"]
LABELLED_FRAME = pd.DataFrame(LABELLED, columns=COLUMNS)
FRAME = pd.DataFrame(ROWS, columns=COLUMNS)
ROW_PAIRS, LABELS = [row[:2] for row in ROWS], [row[2] for row in ROWS]
QUICK = {"device": "cpu", "precision": "fp32", "epochs": 1, "calibrate": "none"}


def checkpoint(folder: Path, kind: str) -> tuple[Any, torch.nn.Module]:
    """A folder as transformers writes it: its tokenizer, and its classifier."""
    name, made_of, told = TOKENIZERS[kind]
    theirs = getattr(transformers, f"{name}Tokenizer")(**made_of)
    oracle = random_bert.oracle_of(kind, vocab_size=300, **told)
    save(oracle, folder)
    theirs.save_pretrained(folder)
    return theirs, oracle


def encoded(theirs: Any, pairs: list[tuple[str, str]], **options: Any) -> Any:
    """Names of special tokens in a text are text, as everywhere here."""
    return theirs(*map(list, zip(*pairs, strict=True)), split_special_tokens=True, **options)


def classifier_over(folder: Path, **options: Any) -> TextClassifier:
    """A published classifier, or weights under a new head, before it is trained."""
    rows = from_frame(LABELLED_FRAME, COLUMNS[:2], "label")
    config = resolve(TrainConfig.of(model=str(folder), text_column=COLUMNS[:2], **QUICK | options))
    return TextClassifier(prepare(Split(rows, rows, rows), config).saved, torch.device("cpu"), "fp32")


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_ids_cuts_and_answers_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    theirs, oracle = checkpoint(tmp_path, kind)
    ours, rows = FieldsTokenizer(load_tokenizer(tmp_path)), list(map(BOUNDARY.join, PAIRS))
    assert ours.encode_rows(rows) == encoded(theirs, PAIRS)["input_ids"]
    cuttable = PAIRS[:-1]  # a unigram model takes the name of a token for the token
    for most in range(7, 30):
        cut = encoded(theirs, cuttable, truncation=True, max_length=most)["input_ids"]
        assert ours.encode_rows(rows[:-1], most) == cut
    classifier = classifier_over(tmp_path, max_length=25)
    batch = encoded(theirs, PAIRS, truncation=True, max_length=25, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = oracle(**batch).logits.softmax(dim=-1)
    np.testing.assert_allclose(classifier.predict_proba(PAIRS), expected, atol=1e-5)
    if "token_type_ids" in batch and isinstance(classifier.saved.model.backbone, Bert):
        batch["token_type_ids"].zero_()
        with torch.inference_mode():
            other = oracle(**batch).logits.softmax(dim=-1)
        assert (other - expected).abs().max() > 1e-3  # what the segments do


@pytest.mark.parametrize(("kind", "ends"), [("llama", ("<|begin|>",)), ("qwen2", ()), ("qwen3", ())])
def test_a_decoder_reads_what_its_file_says_or_its_end_of_text(kind, ends, tmp_path: Path) -> None:
    tokenizer = byte_level([" ".join(pair) for pair in PAIRS], ends=ends)
    if ends:
        begin = tokenizer.token_to_id(ends[0])
        one, two = f"{ends[0]} $A", f"{ends[0]} $A {ends[0]} $B"
        special = [(ends[0], begin)]
        tokenizer.post_processor = TemplateProcessing(single=one, pair=two, special_tokens=special)
    size, end = tokenizer.get_vocab_size(), tokenizer.token_to_id("<|end|>")
    oracle = random_llama.oracle_of(kind, vocab_size=size, eos_token_id=end)
    save(oracle, tmp_path)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    classifier, (a, b) = classifier_over(tmp_path, train="head", pooling="last"), PAIRS[0]
    expected = tokenizer.encode(a, b).ids
    if not ends:
        expected = [*tokenizer.encode(a).ids, end, *tokenizer.encode(b).ids]
    assert classifier.saved.tokenizer.encode(join_fields([a, b])) == expected
    with torch.inference_mode():
        hidden = oracle.model(torch.tensor([expected])).last_hidden_state[0, -1]
        probabilities = classifier.saved.model.head(hidden).softmax(-1)
    np.testing.assert_allclose(classifier.predict_proba([(a, b)])[0], probabilities, atol=1e-5)


def test_gpt2_reads_its_end_of_text_between_two_texts() -> None:
    found = FieldsTokenizer(GPT2_TOKENIZER)
    assert found.encode(join_fields(["a b", "c", "d"])) == [64, 275, 50256, 66, 50256, 67]
    assert found.encode("a b") == GPT2_TOKENIZER.encode("a b")


class Endless(type(GPT2_TOKENIZER)):
    """One that knows no token that ends a text."""

    eos_ids = ()


def test_without_any_token_for_it_fields_stand_in_lines() -> None:
    found = FieldsTokenizer(Endless())
    assert found.encode(join_fields(["a b", "", "d"])) == GPT2_TOKENIZER.encode("a b\nd")
    assert cut_of("tail", found) is CUTS["tail"]


@pytest.mark.parametrize("long", ["head", "tail", "head-tail", "windows"])
def test_each_field_is_cut_as_a_text_alone(long: str) -> None:
    ids = [*range(1, 21), 0, *range(50, 53)]
    rows = [[ids[i] for i in row] for row in fields_read(ids, 12, long, [0])]
    assert rows == [[*part, 0, 50, 51, 52] for part in CUTS[long](list(range(1, 21)), 12 - 1 - 3)]
    both = fields_read([*range(1, 21), 0, *range(50, 90)], 13, long, [0])
    assert all(row.count(20) == 1 and len(row) == 13 for row in both)
    if long == "windows":  # nothing goes unread
        assert {i for row in both for i in row} == set(range(61))


def test_rows_are_the_same_where_each_field_is() -> None:
    one, two = join_fields(["see you", "at home"]), join_fields(["see", "you at home"])
    assert text_key(one) != text_key(two)
    assert text_key(one) == text_key(join_fields(["See  you!", "at home."]))
    assert text_key(join_fields(["a", ""])) != text_key(join_fields(["", "a"]))


def test_what_changes_texts_keeps_their_fields() -> None:
    assert fields_of(CLEANERS["basic"](join_fields([" a  b ", "c!!"]))) == ["a b", "c!"]
    frame = pd.DataFrame({"text": [join_fields(["one two three", "four five"])], "label": ["x"]})
    found = Augmentation(("swap", "delete"), copies=8).of(frame, [], 0)["text"]
    assert len(found) > 2
    for text in found:
        first, second = (set(field.split()) for field in fields_of(text))
        assert first <= {"one", "two", "three"}
        assert second <= {"four", "five"}


def test_a_boundary_in_a_text_is_none() -> None:
    """It becomes a replacement character on the way in."""
    other = f"a{BOUNDARY}b"
    assert texts_of(other) == texts_of([other]) == texts_of(pd.DataFrame({"text": [other]})) == ["a\ufffdb"]
    assert texts_of([(other, "c")], n_fields=2) == [f"a\ufffdb{BOUNDARY}c"]
    assert texts_of(pd.DataFrame({"a": [other], "b": ["c"]}), ("a", "b")) == [f"a\ufffdb{BOUNDARY}c"]


def test_ngrams_see_both_fields_and_no_boundary() -> None:
    tfidf = Tfidf()
    tfidf.fit_transform([join_fields(["alpha beta", "gamma"])])
    names = [name for each in tfidf.vectorizers for name in each.get_feature_names_out()]
    assert {"alpha", "gamma", "beta gamma"} <= set(names)
    assert BOUNDARY not in "".join(names)


def test_a_split_on_disk_holds_a_column_a_field(tmp_path: Path) -> None:
    texts = [join_fields(fields) for fields in (("a,\n1", "b"), ("", "c"), ("d", ""))]
    rows = pd.DataFrame({"text": texts, "label": list("xyx")})
    split = Split(rows, rows[:2], rows[2:])
    save_split(split, tmp_path)
    assert list(pd.read_csv(tmp_path / "train.csv").columns) == ["text", "text_2", "label"]
    back = load_split(tmp_path)
    assert back.train["text"].tolist() == texts
    assert back.sha256() == split.sha256()


# A run of a table with two columns.


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A BERT, a table and a run of both."""
    home = tmp_path_factory.mktemp("pairs")
    checkpoint(home / "bert", "bert")
    FRAME.to_csv(home / "rows.csv", index=False)
    options = {"text_column": ("premise", "hypothesis"), "max_length": 12, "stack": "ngrams"}
    paths = {"data": str(home / "rows.csv"), "model": str(home / "bert"), "out": home / "run"}
    train(TrainConfig.of(**paths, **options, **QUICK))
    return home


def saved_in(home: Path) -> SavedClassifier:
    return read_classifier(home / "run" / "classifier")


def test_from_a_table_to_answers_and_back(home: Path, tmp_path: Path) -> None:
    classifier = load_classifier(home / "run", "cpu", "fp32")
    spec = json.loads((home / "run" / "classifier" / "classifier.json").read_text())
    assert (spec["fields"], spec["text_columns"]) == (2, ["premise", "hypothesis"])
    expected = classifier.predict_proba(ROW_PAIRS)
    np.testing.assert_array_equal(classifier.predict_proba(FRAME), expected)
    classify_file(classifier, home / "rows.csv", tmp_path / "out.csv")
    out = pd.read_csv(tmp_path / "out.csv")
    np.testing.assert_allclose(out[[f"probability_{x}" for x in classifier.labels]], expected, atol=1e-6)
    predictions = pd.read_csv(home / "run" / "predictions.csv")
    assert {*zip(predictions["text"], predictions["text_2"], strict=True)} <= {*ROW_PAIRS}
    n_test = (predictions["part"] == "test").sum()
    assert evaluate(model=home / "run", device="cpu", precision="fp32")["n"] == n_test
    assert evaluate(model=classifier, data=home / "rows.csv")["n"] == len(ROWS)
    assert evaluate(model=classifier, data=ROW_PAIRS, labels=LABELS)["n"] == len(ROWS)


def test_saved_again_it_is_the_same_and_no_file_has_a_boundary(home: Path, tmp_path: Path) -> None:
    save_classifier(tmp_path / "again", saved_in(home), full=True)
    for name in ("classifier.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (home / "run" / "classifier" / name).read_bytes()
    kinds = (".md", ".csv", ".json", ".html", ".txt")
    written = [path for path in (home / "run").rglob("*") if path.suffix in kinds]
    assert len(written) > 8
    assert not any(BOUNDARY in path.read_text(encoding="utf-8") for path in written)


def test_why_shows_both_texts_and_their_boundary(home: Path, tmp_path: Path, capsys) -> None:
    classifier = load_classifier(home / "run", "cpu", "fp32")
    pair = ("the dog runs", "it sleeps")
    why = classifier.explain([pair], gradients=True, steps=4)[0]
    assert (why.pieces, why.seams) == (("the", " dog", " runs", "\nit", " sleeps"), (3,))
    odds = np.log(classifier.predict_proba([pair, ("the runs", "it sleeps"), ("the dog runs", "sleeps")]))
    odds = odds[:, 1] - odds[:, 0]
    np.testing.assert_allclose(why.attributions[[1, 3], 1], odds[0] - odds[1:], atol=1e-4)
    assert list(why.lines())[1] == f"the dog runs\n{SIGN} it sleeps"
    assert SIGN in why.section()
    first, second = classifier.explain([("", "it sleeps"), None])
    assert first.pieces == ("it", " sleeps")
    assert second is None
    for name in ("why.html", "why.csv"):
        files = {"data": home / "rows.csv", "out": tmp_path / name}
        explain(ExplainConfig(model=str(home / "run"), least=2, device="cpu", **files))
        assert BOUNDARY not in (tmp_path / name).read_text(encoding="utf-8")
    assert BOUNDARY not in capsys.readouterr().out


def test_pieces_have_the_rows_that_are_read(home: Path) -> None:
    tokenizer = saved_in(home).tokenizer
    text = join_fields(["the dog runs in the park " * 3, "he is awake he is"])
    ids = tokenizer.encode(text)
    for long in CUTS:
        pieces = Pieces.of(text, tokenizer, 12, long, "word")
        inner = cut_of(long, tokenizer)(ids[1:-1], 10)
        assert [list(row) for row in pieces.whole] == [[ids[0], *row, ids[-1]] for row in inner]


WRONG = ["a text", ["a text"], ["a", "b"], [("a", "b", "c")], [("a",)], [("a", 1)]]


@pytest.mark.parametrize("given", WRONG)
def test_rows_of_another_kind_are_refused(given: Any, home: Path) -> None:
    with pytest.raises((InputError, TypeError), match=r"2 texts|expected text") as error:
        load_classifier(home / "run", "cpu").predict(given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["one", f"a{BOUNDARY}b"])
def test_texts_on_the_command_line_are_refused(text: str, home: Path) -> None:
    with pytest.raises(InputError, match=r"reads 2 texts together \(premise, hypothesis\).*--data"):
        classify(ClassifyConfig(texts=(text,), model=str(home / "run"), device="cpu"))
    with pytest.raises(InputError, match="reads 2 texts together"):
        explain(ExplainConfig(texts=(text,), model=str(home / "run"), device="cpu"))


def test_pseudo_labels_train_the_next_one(home: Path, tmp_path: Path) -> None:
    files = {"data": home / "rows.csv", "out": tmp_path / "more.csv"}
    pseudo_label(PseudoLabelConfig(model=str(home / "run"), confidence=0.1, device="cpu", **files))
    assert list(pd.read_csv(files["out"]).columns) == ["text", "text_2", "label", "probability"]
    options = {"text_column": ("premise", "hypothesis"), "extra": files["out"], "train": "head"}
    run = fit(FRAME[:12], str(home / "bert"), **options, **QUICK)
    assert len(run.split.train) > len(run.split.plain)
    assert set(run.split.train["text"].str.count(BOUNDARY)) == {1}


def test_pairs_in_memory_and_in_scikit_learn(home: Path) -> None:
    run = fit(ROW_PAIRS, str(home / "bert"), labels=LABELS, train="head", **QUICK)
    assert run.classifier.fields == 2
    expected = run.predict_proba(FRAME, text_column=("premise", "hypothesis"))
    np.testing.assert_array_equal(run.predict_proba(ROW_PAIRS), expected)
    estimator = GPTClassifier(str(home / "bert"), settings={"train": "head", **QUICK})
    estimator.fit(ROW_PAIRS, LABELS)
    assert estimator.classifier_.saved.fields == 2
    table = FRAME[["premise", "hypothesis"]].to_numpy()
    np.testing.assert_array_equal(estimator.predict_proba(table), estimator.predict_proba(ROW_PAIRS))
    with pytest.raises(TypeError, match="row 20: expected 2 texts in a tuple, got tuple"):
        fit([*ROW_PAIRS, ("a", "b", "c")], labels=[*LABELS, "man"])


def test_a_classifier_of_joined_lines_stays_one(home: Path, tmp_path: Path) -> None:
    """As those were that were trained before fields had a separator."""
    lines = FRAME["premise"] + "\n" + FRAME["hypothesis"]
    rows = pd.DataFrame({"text": lines, "label": LABELS})
    run = fit(rows, str(home / "bert"), train="head", **QUICK)
    run.classifier.text_columns = ("premise", "hypothesis")
    save_classifier(tmp_path / "old", run.classifier)
    description = tmp_path / "old" / "classifier.json"
    spec = json.loads(description.read_text())
    del spec["fields"], spec["architecture"]["sep_id"]
    description.write_text(json.dumps(spec))
    old = load_classifier(tmp_path / "old", "cpu", "fp32")
    np.testing.assert_array_equal(old.predict_proba(FRAME), old.predict_proba(lines))
    blank = pd.DataFrame({"premise": ["a man"], "hypothesis": [None]})
    np.testing.assert_array_equal(old.predict_proba(blank)[0], old.predict_proba("a man"))


@pytest.mark.parametrize("kind", ["bert", "roberta", "gpt2"])
def test_pairs_go_out_to_transformers(kind: str, home: Path, tmp_path: Path) -> None:
    model = GPT2(GPT2Config(n_layer=2, n_embd=16, n_head=2, n_positions=64))
    if kind != "gpt2":
        checkpoint(tmp_path / "base", kind)
        model = str(tmp_path / "base")
    asked = {"train": "head", "pooling": "auto" if kind != "gpt2" else "last", "max_length": 20}
    run = fit(LABELLED_FRAME, model, text_column=COLUMNS[:2], repeats="keep", **asked, **QUICK)
    to_transformers(run.classifier, tmp_path / "out")
    classify = transformers.pipeline("text-classification", str(tmp_path / "out"), device="cpu")
    pairs = [pair for pair in PAIRS if "" not in pair][:4]
    given = [{"text": a, "text_pair": b} for a, b in pairs]
    theirs = [
        {one["label"]: one["score"] for one in each} for each in classify(given, truncation=True, top_k=None)
    ]
    ours = run.predict_proba(pairs)
    np.testing.assert_allclose(pd.DataFrame(theirs)[list(run.classifier.task.labels)], ours, atol=1e-5)


def test_three_texts_do_not(tmp_path: Path) -> None:
    rows = [(*row, row[0]) for row in ROW_PAIRS]
    run = fit(rows, GPT2(GPT2Config(n_layer=2, n_embd=16, n_head=2, n_positions=64)), labels=LABELS, **QUICK)
    assert run.classifier.fields == 3
    with pytest.raises(InputError, match=r"reads 3 texts together, and a tokenizer.json knows one or two"):
        to_transformers(run.classifier, tmp_path / "out")


@pytest.mark.slow
def test_pairs_go_out_to_onnx(home: Path, tmp_path: Path) -> None:
    onnxruntime, tokenizers = pytest.importorskip("onnxruntime"), pytest.importorskip("tokenizers")
    run = fit(ROW_PAIRS, str(home / "bert"), labels=LABELS, max_length=10, **QUICK)
    to_onnx(run.classifier, tmp_path / "out")
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    rows = tokenizer.encode_batch(PAIRS)
    inputs = {"ids": [row.ids for row in rows], "lengths": [sum(row.attention_mask) for row in rows]}
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    found = session.run(None, {name: np.array(values, np.int64) for name, values in inputs.items()})[0]
    np.testing.assert_allclose(found, run.predict_proba(PAIRS), atol=1e-4)
    program = [sys.executable, "example.py", *ROW_PAIRS[0], *ROW_PAIRS[1]]
    done = subprocess.run(program, cwd=tmp_path / "out", capture_output=True, text=True, check=True)
    assert [line.split("\t")[1] for line in done.stdout.splitlines()] == run.predict(ROW_PAIRS[:2])


def test_a_server_takes_lists(home: Path) -> None:
    client = pytest.importorskip("starlette.testclient").TestClient
    from gptcls.serve.app import create_app

    classifier = load_classifier(home / "run", "cpu", "fp32")
    with client(create_app(classifier), base_url="http://127.0.0.1") as server:
        answer = server.post("/classify", json={"texts": [list(ROW_PAIRS[0]), ["", " "]]}).json()
        np.testing.assert_allclose(
            answer["probabilities"][0], classifier.predict_proba(ROW_PAIRS[:1])[0], 1e-5
        )
        assert answer["answers"][1] is None
        why = server.post("/explain", json={"text": list(ROW_PAIRS[0])}).json()
        assert "".join(piece["piece"] for piece in why["pieces"]) == "\n".join(ROW_PAIRS[0])
        for texts in (["one"], [["a", "b", "c"]], [f"a{BOUNDARY}b"]):
            refused = server.post("/classify", json={"texts": texts})
            assert refused.status_code == 422
            assert "reads 2 texts together" in refused.text
