"""Distillation: what teaches, on which rows, what is left of it, and a student without a network."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.tiny import ROWS, TINY, stopped_before, tiny_classifier, tiny_saved, write_csv
from safetensors.numpy import load_file, save_file

import gptcls.distill
from gptcls import evaluate, fit, load_classifier, train
from gptcls.classify.run import classify_file
from gptcls.classify.store import find_classifier, read_classifier, save_classifier
from gptcls.classify.words import BUCKETS, counted
from gptcls.compare import compare
from gptcls.core.errors import InputError
from gptcls.core.task import SingleLabel
from gptcls.data.same_text import text_key
from gptcls.data.split import Split, load_split, save_split
from gptcls.distill import DistillConfig, _split, distill
from gptcls.evaluation import baselines
from gptcls.train.config import TrainConfig
from gptcls.train.rows import split_of
from gptcls.train.soft import SoftTargets, alignment
from gptcls.train.words import fit_words

QUICK = {"epochs": 2, "max_length": 16, "device": "cpu", "lr": 3e-3, "precision": "fp32"}
FRAME = pd.DataFrame(ROWS, columns=["text", "label"])
NEW = ["win a prize now", "see you at home", "free free free", "nothing that was seen"]
KINDS = {  # one and the same text under other kinds of labels
    "multi": {"spam": ["bad", "new"], "ham": []},
    "regression": {"spam": 4.0, "ham": 1.5},
}


@pytest.fixture(scope="module", autouse=True)
def at_once():
    """Speed is not measured for long, and the baseline is the first of its models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gptcls.distill, "SECONDS", 0.0)
        every = baselines.linear_models
        patch.setattr(baselines, "linear_models", lambda: dict([*every().items()][:1]))
        yield


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level("INFO", "gptcls")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A network that is sure of what it says, and the rows that it says it was trained on."""
    folder = tmp_path_factory.mktemp("teachers") / "teacher"
    saved = tiny_saved()
    with torch.no_grad():
        saved.model.head.weight.mul_(40)
    save_classifier(folder / "classifier", saved)
    save_split(split_of(FRAME, TrainConfig.of(seed=1)), folder / "split")
    return folder


def labelled(kind):
    return FRAME.assign(
        label=[value + i % 3 if kind == "regression" else value
               for i, value in enumerate(map(KINDS[kind].get, FRAME["label"]))]
    )  # fmt: skip


def test_a_network_learns_and_its_run_says_what_it_is_worth(teacher, base, tmp_path):
    out = tmp_path / "student"
    found = distill(teacher=str(teacher), model=str(base), out=out, **QUICK)
    for part, frame in load_split(out / "split").items():
        assert frame["text"].tolist() == getattr(load_split(teacher / "split"), part)["text"].tolist()
    assert list(found.scores) == ["teacher", "distilled", "alone", "TF-IDF"]
    assert [other for _, other in found.pairs] == ["teacher", "alone", "TF-IDF"]
    test = found.run.split.test
    right = np.array(load_classifier(teacher, "cpu").predict(test["text"])) == test["label"].to_numpy()
    assert found.scores["teacher"]["accuracy"] == right.mean()
    alone = fit(found.run.split, base, **QUICK)
    assert found.scores["alone"] == alone.scores["test"]
    assert np.abs(found.run.outputs["test"] - alone.outputs["test"]).max() > 1e-3, "the teacher said nothing"
    np.testing.assert_allclose(
        load_classifier(out, "cpu", "fp32").predict_proba(test["text"]), found.run.outputs["test"], atol=1e-5
    )
    table = found.table()
    for name in ("teacher", "distilled", "alone", "TF-IDF", "distilled less teacher", "texts/s"):
        assert name in table
    assert max(map(len, table.splitlines())) <= 110
    written = json.loads((out / "distillation.json").read_text())
    assert written["costs"]["distilled"]["bytes"] == sum(
        file.stat().st_size for file in (out / "classifier").iterdir()
    )  # all of it: the base is no preset
    assert written["temperature"] == 2.0
    assert written["differences"]["alone"]["n"] == len(test)


def test_several_teachers_teach_their_mean(teacher, base, tmp_path):
    """Of which none was trained on a test row."""
    split = load_split(teacher / "split")
    words = {"model": str(base), "head": "lm", "epochs": 0, "calibrate": "none", "device": "cpu"}
    for name, pattern in (("a", "{text} is {label}"), ("b", "{text}\nA {label}.")):
        save_classifier(tmp_path / name / "classifier", fit(split, pattern=pattern, **words).classifier)
        save_split(split, tmp_path / name / "split")
    (tmp_path / "more.csv").write_text("text\n" + "\n".join(NEW) + "\n")
    options = {"student": "words", "unlabelled": tmp_path / "more.csv", "device": "cpu"}
    folders = [teacher, tmp_path / "a", tmp_path / "b"]
    beside = tuple(map(str, folders[1:]))
    found = distill(teacher=str(teacher), beside=beside, out=tmp_path / "run", **options)
    test = split.test
    mean = np.mean([load_classifier(each, "cpu").predict_proba(test["text"]) for each in folders], axis=0)
    names = np.array(load_classifier(teacher, "cpu").labels)[mean.argmax(axis=1)]
    assert found.scores["teacher"]["accuracy"] == (names == test["label"].to_numpy()).mean()
    assert found.costs["teacher"][1] > found.costs["distilled"][1]
    save_split(Split(split.test, split.validation, split.train), tmp_path / "b" / "split")
    with pytest.raises(InputError, match="b was trained on 12 of the test rows"):
        distill(teacher=str(teacher), beside=beside, out=tmp_path / "other", **options)


def test_a_share_of_nothing_is_plain_training(teacher, base, tmp_path):
    """To the same bits: the batches too are those of a run without a teacher."""
    found = distill(teacher=str(teacher), model=str(base), out=tmp_path / "run", soft=0.0, **QUICK)
    plain = fit(found.run.split, base, **QUICK)
    np.testing.assert_array_equal(found.run.outputs["test"], plain.outputs["test"])
    for name, tensor in plain.classifier.model.trained_parameters().items():
        assert torch.equal(tensor, found.run.classifier.model.trained_parameters()[name]), name


@pytest.mark.slow
def test_the_soft_part_alone_leads_to_what_the_teacher_says(teacher, base, tmp_path):
    """On rows with labels that the teacher does not share the student follows the teacher."""
    wrong = FRAME.assign(label=FRAME["label"].map({"ham": "spam", "spam": "ham"}))
    wrong.to_csv(tmp_path / "wrong.csv", index=False)
    options = {"data": str(tmp_path / "wrong.csv"), "model": str(base), "train": "all", **QUICK, "epochs": 15}
    found = distill(teacher=str(teacher), soft=1.0, temperature=1.0, out=tmp_path / "run", **options)
    theirs = load_classifier(teacher, "cpu").predict_proba(found.run.split.train["text"])
    assert 0.1 < theirs.argmax(axis=1).mean() < 0.9, "else the teacher is a constant"
    agreement = (theirs.argmax(axis=1) == found.run.outputs["train"].argmax(axis=1)).mean()
    assert agreement > 0.95


@pytest.mark.slow
def test_hidden_vectors_are_learnt_too(teacher, base, tmp_path):
    """Over all batches as they come, and of a teacher of another width; the answers alone do not do that."""
    wide = replace(TINY, n_embd=24)
    folder = tmp_path / "wide"
    save_classifier(folder / "classifier", replace(tiny_saved(), model=tiny_classifier(config=wide).eval()))
    save_split(load_split(teacher / "split"), folder / "split")
    options = {"teacher": str(folder), "model": str(base), "train": "all", **QUICK, "epochs": 15}
    ours = distill(hidden=1.0, out=tmp_path / "ours", **options)
    plain = distill(out=tmp_path / "plain", **options)
    texts = ours.run.split.train["text"].tolist()
    theirs, *both = (vectors_of(place, texts) for place in (folder, ours.run.folder, plain.run.folder))
    assert theirs.shape == (len(texts), 24)
    aligned = [alignment(each, theirs) for each in both]
    assert aligned[0] > max(0.9, aligned[1] + 0.05), aligned
    assert not ours.run.classifier.model.head._forward_hooks
    written = json.loads((tmp_path / "ours" / "distillation.json").read_text())
    assert written["hidden"] == 1.0


def vectors_of(folder, texts):
    """Of the texts (N, C)."""
    return torch.from_numpy(load_classifier(folder, "cpu", "fp32").scored(texts, vectors=True)[0][:, 2:])


def test_vectors_are_what_the_head_reads(teacher):
    classifier = load_classifier(teacher, "cpu", "fp32")
    texts = [NEW[0], None, *NEW[1:]]
    found, _ = classifier.scored(texts, vectors=True)
    np.testing.assert_array_equal(found[:, :2], classifier.outputs_of(texts))
    assert np.isnan(found[1]).all()
    with torch.no_grad():
        logits = classifier.saved.model.head(torch.from_numpy(found[[0, 2, 3, 4], 2:]))
    np.testing.assert_allclose(classifier.saved.outputs(logits, NEW), found[[0, 2, 3, 4], :2], atol=1e-6)
    assert not classifier.saved.model.head._forward_hooks


@pytest.mark.slow
def test_an_interrupted_run_ends_the_same(teacher, base, tmp_path):
    (tmp_path / "more.csv").write_text("text\nwin it all\nhello you\ncall now\n")
    options = {"teacher": str(teacher), "model": str(base), "unlabelled": tmp_path / "more.csv", **QUICK}
    whole = distill(out=tmp_path / "whole", **options)
    with stopped_before(3):
        distill(out=tmp_path / "run", **options)
    again = distill(DistillConfig.of(teacher=str(teacher), out=tmp_path / "run", resume=True))
    np.testing.assert_array_equal(again.run.outputs["test"], whole.run.outputs["test"])


# --- rows ---


def split_for(teacher, tmp_path, frame, **options):
    frame.to_csv(tmp_path / "rows.csv", index=False)
    config = DistillConfig.of(teacher=str(teacher), data=str(tmp_path / "rows.csv"), **options)
    return _split(config, load_classifier(teacher, "cpu"))


def keys(*frames):
    return {text_key(text) for frame in frames for text in frame["text"]}


def test_the_teachers_rows_keep_its_parts_and_the_files_labels(teacher, tmp_path):
    own = load_split(teacher / "split")
    changed = FRAME.sample(frac=1, random_state=3).assign(text=lambda rows: rows["text"].str.upper() + "!")
    changed.loc[changed.index[0], "label"] = "spam"
    changed.loc[changed.index[1], "label"] = "ham"
    split = split_for(teacher, tmp_path, changed)
    for part, frame in split.items():
        assert keys(frame) == keys(getattr(own, part))
        assert (
            set(frame.itertuples(index=False, name=None))
            <= set(changed[["text", "label"]].itertuples(index=False, name=None))
            or "rows" in frame
        )


def test_no_test_row_was_the_teachers_to_learn_from(teacher, tmp_path, caplog):
    own = load_split(teacher / "split")
    more = pd.DataFrame(
        {"text": [f"new {word} {i}" for i in range(20) for word in ("prize", "lunch")],
         "label": ["spam", "ham"] * 20}
    )  # fmt: skip
    split = split_for(teacher, tmp_path, pd.concat([FRAME, more]), seed=5)
    assert not keys(split.test) & keys(own.train, own.validation)
    assert len(keys(split.train, split.validation, split.test)) == len(FRAME) + len(more)
    assert "rows from test to train: the teacher was trained on their texts" in caplog.text
    assert not keys(split.train) & keys(split.test)


def test_texts_without_labels_are_new_ones(teacher, base, tmp_path, caplog):
    test = load_split(teacher / "split").test["text"].tolist()
    texts = [*test, "Something new", "something, NEW", "", "and again"]
    pd.DataFrame({"text": texts}).to_csv(tmp_path / "more.csv", index=False)
    out = tmp_path / "run"
    distill(teacher=str(teacher), student="words", unlabelled=tmp_path / "more.csv", out=out, device="cpu")
    assert f"2 of {len(test) + 3} texts are learnt from" in caplog.text
    n_train = len(load_split(teacher / "split").train)
    assert f"the teacher reads {n_train + 2} texts" in caplog.text


# --- without a network ---


def sklearns(texts):
    """The same features by scikit-learn's own classes."""
    from sklearn.feature_extraction.text import TfidfTransformer

    found = TfidfTransformer(sublinear_tf=True).fit_transform(counted(texts, (4, 4)))
    return found[:, found.getnnz(axis=0) > 0]


def test_the_linear_layer_is_scikit_learns(monkeypatch):
    from sklearn.linear_model import LogisticRegression

    monkeypatch.setattr("gptcls.train.words.STRENGTHS", (3.0,))
    texts = [text for text, _ in ROWS]
    labels = [label if i % 3 else "other" for i, (_, label) in enumerate(ROWS)]
    task = SingleLabel.of(labels)
    words = fit_words(texts, task.targets(labels), task, (texts[:5], task.targets(labels[:5])))
    theirs = LogisticRegression(C=3.0, tol=1e-8, max_iter=2000).fit(sklearns(texts), labels)
    ours = task.outputs(words.logits(texts)).numpy()
    np.testing.assert_allclose(ours, theirs.predict_proba(sklearns(texts)), atol=2e-3)
    assert words.coefficients.shape == (2 * BUCKETS, 3)


def test_soft_labels_are_weights_of_scikit_learns_rows(monkeypatch):
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression

    monkeypatch.setattr("gptcls.train.words.STRENGTHS", (3.0,))
    texts, task = [text for text, _ in ROWS], SingleLabel(("a", "b", "c"))
    outputs = np.random.RandomState(0).dirichlet(np.ones(3), len(texts))
    soft = SoftTargets(task, 1.0, 1.0)
    held = texts[:3], task.targets(["a", "b", "c"])
    words = fit_words(texts, soft.targets([], outputs), soft, held)
    inputs, places = sklearns(texts), np.repeat(range(3), len(texts))
    theirs = LogisticRegression(C=3.0, tol=1e-8, max_iter=2000)
    theirs.fit(sparse.vstack([inputs] * 3), places, sample_weight=outputs.T.ravel())
    np.testing.assert_allclose(
        task.outputs(words.logits(texts)).numpy(), theirs.predict_proba(inputs), atol=2e-3
    )


@pytest.fixture(scope="module")
def words(teacher, tmp_path_factory):
    out = tmp_path_factory.mktemp("students") / "words"
    return distill(teacher=str(teacher), student="words", out=out, device="cpu", abstain=0.9)


def test_n_grams_are_a_classifier_like_any_other(words, teacher, tmp_path):
    folder = words.run.folder
    classifier = load_classifier(folder)
    found, test = classifier.predict_proba(NEW), words.run.split.test
    np.testing.assert_array_equal(found, words.run.predict_proba(NEW))
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    assert np.isnan(classifier.predict_proba(["", "a"])[0]).all()
    assert classifier.predict([" "]) == [None]
    assert classifier.predict(NEW) == words.run.predict(NEW)
    unsure = [answer == "unsure" for answer in classifier.predict(test["text"])]
    assert unsure == (classifier.outputs(test["text"]).max(axis=1) < 0.9).tolist()
    np.testing.assert_allclose(classifier.outputs(test["text"]), words.run.outputs["test"], atol=1e-6)
    scores = evaluate(model=str(folder))
    assert scores["accuracy"] == words.scores["distilled"]["accuracy"]
    FRAME.to_csv(tmp_path / "in.csv", index=False)
    assert classify_file(classifier, tmp_path / "in.csv", tmp_path / "out.csv") == len(FRAME)
    train(data=FRAME, out=tmp_path / "other", init="random", seed=1, **QUICK)
    assert list(compare(folder, tmp_path / "other").scores) == [str(folder), str(tmp_path / "other")]
    json.loads((folder / "classifier" / "classifier.json").read_text())


def test_it_learns_from_any_teacher_also_one_of_n_grams(words, tmp_path):
    found = distill(teacher=str(words.run.folder), student="words", out=tmp_path / "run", device="cpu")
    assert found.scores["teacher"]["accuracy"] == words.scores["distilled"]["accuracy"]


def test_a_teacher_without_a_vector_of_a_text_is_refused(words, teacher, base, tmp_path):
    lm = fit(load_split(teacher / "split"), str(base), head="lm", epochs=0, device="cpu")
    save_classifier(tmp_path / "asked" / "classifier", lm.classifier)
    save_split(load_split(teacher / "split"), tmp_path / "asked" / "split")
    for folder in (words.run.folder, tmp_path / "asked"):
        with pytest.raises(InputError, match=r"--hidden: no head of --teacher .* reads one vector"):
            distill(teacher=str(folder), hidden=1.0, model=str(base), out=tmp_path / "run", **QUICK)
        assert not (tmp_path / "run").exists()


def test_what_needs_a_network_says_so_in_one_line(words):
    folder = words.run.folder
    classifier = load_classifier(folder)
    for call, said in (
        (lambda: classifier.explain("hi"), "n-grams is not explained"),
        (lambda: classifier.predict("hi", max_length=3), "max_length 3 counts tokens"),
        (lambda: read_classifier(folder), "holds n-grams and no network"),
        (lambda: evaluate(model=str(folder), reference="train"), "--reference"),
    ):
        with pytest.raises(InputError, match=said) as error:
            call()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"runs": [4, 2]}, "says runs"),
        ({"runs": ["4", 4]}, "says runs"),
        ({"format_version": 9}, "newer than 1"),
        ({"cleaning": "soap"}, "says cleaning"),
        ({"task": {"kind": "single_label", "labels": ["a", "b", "c"]}}, "coefficients"),
        ({"idf": np.zeros(3, dtype=np.float32)}, "idf is float32"),
        ({"intercept": np.array([0, np.nan], dtype=np.float32)}, "not a number"),
    ],
)
def test_damage_is_named(words, tmp_path, change, said):
    source, folder = find_classifier(words.run.folder), tmp_path / "damaged"
    folder.mkdir()
    spec, tensors = (
        json.loads((source / "classifier.json").read_text()),
        load_file(source / "words.safetensors"),
    )
    for name, value in change.items():
        (tensors if name in tensors else spec)[name] = value
    (folder / "classifier.json").write_text(json.dumps(spec))
    save_file(tensors, folder / "words.safetensors")
    with pytest.raises(InputError, match=said):
        load_classifier(folder)


@pytest.mark.parametrize("student", ["words", pytest.param("network", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_labels_and_numbers(base, tmp_path, kind, student):
    options = {"model": str(base), **QUICK}
    train(data=labelled(kind), task=kind, out=tmp_path / "teacher", **options)
    options = {"student": "words", "device": "cpu"} if student == "words" else options
    found = distill(teacher=str(tmp_path / "teacher"), task=kind, out=tmp_path / "run", **options)
    back = load_classifier(tmp_path / "run", "cpu", "fp32")
    test = found.run.split.test["text"]
    np.testing.assert_allclose(back.outputs(test), found.run.outputs["test"], atol=1e-5)
    if kind == "multi":
        assert back.predict(list(test)) == found.run.predict(list(test))
    assert set(found.scores) == {"teacher", "distilled", "alone", "TF-IDF"}


# --- mistakes ---


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "gpt2-nano"], "--teacher is missing"),
        (["--teacher", "gone"], "gone does not exist"),
        (["--teacher", "TEACHER", "--temperature", "0"], "--temperature 0.0 is too small"),
        (["--teacher", "TEACHER", "--soft", "1.5"], "--soft 1.5 is not a share"),
        (["--teacher", "TEACHER", "--hidden", "-1"], "--hidden -1.0 is below 0"),
        (["--teacher", "TEACHER", "--hidden", "nan"], "--hidden nan"),
        (["--teacher", "TEACHER", "--hidden", "1", "--student", "words"], "leave it or --student words out"),
        (["--teacher", "TEACHER", "--hidden", "1", "--head", "lm"], "leave it or --head lm out"),
        (["--teacher", "TEACHER", "--hidden", "1", "--batch-size", "2"], "--batch-size 2 is too small"),
        (["--teacher", "TEACHER", "--hidden", "1", "--train", "head"], "nothing that it reads is trained"),
        (["--teacher", "TEACHER", "--student", "words", "--epochs", "3"], "--epochs is for a network"),
        (["--teacher", "TEACHER", "--student", "letters"], "--student 'letters' is none of its choices"),
        (["--teacher", "TEACHER", "--task", "multi"], "is of --task single, not --task multi"),
        (["--teacher", "TEACHER", "--balance", "weights"], "--balance weights weighs labels"),
        (["--teacher", "TEACHER", "--repeats", "weight"], "--repeats weight is not for distillation"),
        (["--teacher", "TEACHER", "--recipe", "book"], "--recipe book has no teacher"),
        (["--teacher", "TEACHER", "--test", "x.csv"], "--test goes with --data"),
        (["--teacher", "TEACHER", "--clean"], "cleaned otherwise; leave --clean out"),
        (["--teacher", "TEACHER", "--unlabelled", "gone.csv"], "gone.csv"),
        (["--teacher", "TEACHER", "--unlabelled", "rows.csv"], "no text is new"),
        (
            ["--teacher", "TEACHER", "--data", "others.csv", "--student", "words"],
            "answers ham, spam; the rows",
        ),
        (["--teacher", "sms-spam-nano"], "has no rows next to it; give --data"),
        (["--teacher", "TEACHER", "--data", "rows.csv", "--test", "seen.csv"], "trained on every test row"),
        (["--teacher", "TEACHER", "--resume"], "--resume needs --out"),
    ],
)
def test_mistakes(teacher, tmp_path, run_main, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "rows.csv")
    write_csv(tmp_path / "others.csv", [(f"{text} so", f"not {label}") for text, label in ROWS])
    own = load_split(teacher / "split").train
    write_csv(tmp_path / "seen.csv", [*own[["text", "label"]].itertuples(index=False, name=None)][:6])
    before = sorted(tmp_path.rglob("*"))
    arguments = [str(teacher) if word == "TEACHER" else word for word in arguments]
    status, out, err = run_main(gptcls.distill, *arguments)
    last = err.splitlines()[-1]
    assert (status, out) == (2, ""), err
    assert last.startswith("error: "), err
    assert said in last
    assert sorted(tmp_path.rglob("*")) == before
