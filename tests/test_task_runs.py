"""Lists of labels, numbers and many classes through every verb: train, predict, classify, evaluate."""

import csv
import json
import logging
import os
import signal

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, mean_absolute_error

from gptcls import classify_review
from gptcls.classify.predict import load_classifier
from gptcls.classify.run import ClassifyConfig, classify
from gptcls.classify.store import read_classifier
from gptcls.core.errors import InputError
from gptcls.core.loop import Trainer
from gptcls.data.split import load_split
from gptcls.evaluate import EvaluateConfig, evaluate
from gptcls.evaluation import report
from gptcls.train.config import TrainConfig
from gptcls.train.run import train

WORDS = {"joy": "what a lovely day", "anger": "how dare you", "fear": "please help me"}
QUICK = {"epochs": 2, "batch_size": 16, "max_length": 16, "lr": 1e-2, "train": "last_block", "device": "cpu"}


def lists_of(n):
    """Texts that say which labels they have, one in five none."""
    random = np.random.RandomState(0)
    for i in range(n):
        names = [name for name in WORDS if random.rand() < 0.4]
        yield " ".join([*(WORDS[name] for name in names), f"number {i}"]), names


@pytest.fixture(scope="module")
def module_base(tmp_path_factory):
    """Tiny random weights, as the fixture ``base`` makes them."""
    from conftest import base

    return base.__wrapped__(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def lists_run(module_base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lists")
    with (folder / "rows.jsonl").open("w") as file:
        for text, names in lists_of(120):
            file.write(json.dumps({"text": text, "label": names}) + "\n")
    data = str(folder / "rows.jsonl")
    return train(TrainConfig.of(model=str(module_base), data=data, task="multi", out=folder / "run", **QUICK))


@pytest.fixture(scope="module")
def numbers_run(module_base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbers")
    rows = [(text, 1000 + 500 * len(names), -i) for i, (text, names) in enumerate(lists_of(120))]
    pd.DataFrame(rows, columns=["text", "price", "rank"]).to_csv(folder / "rows.csv", index=False)
    config = TrainConfig.of(
        model=str(module_base),
        data=str(folder / "rows.csv"),
        task="regression",
        label_column="price",
        out=folder / "run",
        **QUICK,
    )
    return train(config)


# --- several labels ---


def test_a_run_over_lists_of_labels(lists_run):
    folder = lists_run.folder
    assert {"labels.png", "loss.png", "micro-f1.png", "metrics.json", "history.csv"} <= {
        path.name for path in folder.iterdir()
    }
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["scores"] == lists_run.scores
    history = list(csv.DictReader((folder / "history.csv").open()))
    assert [row["epoch"] for row in history if row["val_micro-F1"]] == ["1.0", "2.0"]
    spec = json.loads((folder / "classifier" / "classifier.json").read_text())
    assert spec["task"]["kind"] == "multi_label"
    assert spec["task"]["labels"] == ["anger", "fear", "joy"]
    assert spec["task"]["thresholds"] != [0.5] * 3
    split = load_split(folder / "split")
    assert sum(len(part) for _, part in split.items()) == 120


def test_a_run_over_a_lone_label(module_base, tmp_path):
    rows = [{"text": text, "label": ["joy"] if "joy" in names else []} for text, names in lists_of(60)]
    pd.DataFrame(rows).to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    data = str(tmp_path / "rows.jsonl")
    done = train(
        TrainConfig.of(model=str(module_base), data=data, task="multi", out=tmp_path / "run", **QUICK)
    )
    assert [list(parts["test"]["per_class"]) for parts in done.baselines.values()] == [["joy"]] * 3
    assert load_classifier(tmp_path / "run", "cpu").predict("what a lovely day") in ([], ["joy"])


def test_scores_are_those_of_the_saved_classifier(lists_run):
    classifier = load_classifier(lists_run.folder, "cpu")
    test = load_split(lists_run.folder / "split").test
    answers = classifier.predict(test.text)
    targets = [[name in json.loads(label) for name in classifier.labels] for label in test.label]
    predicted = [[name in answer for name in classifier.labels] for answer in answers]
    expected = f1_score(targets, predicted, average="macro", zero_division=0)
    assert lists_run.scores["test"]["macro_f1"] == pytest.approx(expected)
    own = evaluate(EvaluateConfig(model=lists_run.folder, device="cpu"))
    assert own["macro_f1"] == pytest.approx(expected)
    probabilities = classifier.predict_proba(list(test.text))
    chosen = probabilities >= np.array(classifier.saved.task.thresholds)
    assert (chosen == np.array(predicted)).all()


def test_thresholds_are_those_of_the_validation_rows(lists_run):
    """No other threshold of one label gives a better F1 on them."""
    classifier = load_classifier(lists_run.folder, "cpu")
    validation = load_split(lists_run.folder / "split").validation
    probabilities = classifier.predict_proba(list(validation.text))
    for k, name in enumerate(classifier.labels):
        there = [name in json.loads(label) for label in validation.label]
        best = max(
            f1_score(there, probabilities[:, k] >= cut, zero_division=0) for cut in np.linspace(0, 1, 51)
        )
        found = f1_score(there, probabilities[:, k] >= classifier.saved.task.thresholds[k], zero_division=0)
        assert found >= best - 1e-9


def test_answers_mirror_what_is_asked(lists_run, numbers_run):
    lists, numbers = (load_classifier(run.folder, "cpu") for run in (lists_run, numbers_run))
    one, many = lists.predict("how dare you"), lists.predict(["how dare you", "x"])
    assert isinstance(one, list)
    assert many[0] == one
    assert set(one) <= set(lists.labels)
    assert classify_review("how dare you", model=lists_run.folder) == one
    assert isinstance(numbers.predict("a lovely day"), float)
    assert numbers.predict(["a lovely day"]) == [numbers.predict("a lovely day")]
    assert classify_review(["a", "b"], model=numbers) == numbers.predict(["a", "b"])
    assert numbers.outputs(["a", "b"]).shape == (2, 1)
    with pytest.raises(InputError, match="predicts numbers, which have no probabilities; use predict"):
        numbers.predict_proba("a")


def test_evaluate_reads_what_it_is_told(lists_run, tmp_path):
    new = tmp_path / "new.csv"
    new.write_text('text,labels\nhow dare you all,"anger|fear"\nplease do help me,fear\nnothing,\n')
    with pytest.raises(
        InputError, match=r"label 'anger\|fear', unseen in training, in line 2; it knows anger"
    ):
        evaluate(EvaluateConfig(model=lists_run.folder, data=str(new), device="cpu"))
    config = EvaluateConfig(
        model=lists_run.folder, data=str(new), label_separator="|", out=tmp_path / "report", device="cpu"
    )
    assert evaluate(config)["support"] == {"anger": 1, "fear": 2, "joy": 0}
    assert (tmp_path / "report" / "labels.png").exists()
    new.write_text("text,anger,fear,joy\nhow dare you all,1,1,0\n")
    columns = ("anger", "fear", "joy")
    scores = evaluate(
        EvaluateConfig(model=lists_run.folder, data=str(new), label_columns=columns, device="cpu")
    )
    assert scores["support"] == {"anger": 1, "fear": 1, "joy": 0}
    with pytest.raises(InputError, match="and the like go with --data"):
        evaluate(EvaluateConfig(model=lists_run.folder, label_columns=columns, device="cpu"))


def test_classify_lists(lists_run, tmp_path, capsys):
    classifier = load_classifier(lists_run.folder, "cpu")
    texts = ["how dare you", "", "what a lovely day, help me"]
    classify(ClassifyConfig(model=lists_run.folder, texts=tuple(texts), device="cpu"))
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["", ""]
    assert lines[0][0] == ",".join(classifier.predict(texts[0]))
    assert len(lines[2][1].split(",")) == max(1, len(classifier.predict(texts[2])))
    pd.DataFrame({"text": texts, "label": ["mine"] * 3}).to_csv(tmp_path / "in.csv", index=False)
    for suffix in ("csv", "jsonl", "parquet"):
        out = tmp_path / f"out.{suffix}"
        classify(ClassifyConfig(model=lists_run.folder, data=tmp_path / "in.csv", out=out, device="cpu"))
    rows = pd.read_parquet(tmp_path / "out.parquet")
    names = [f"probability_{label}" for label in classifier.labels]
    assert list(rows.columns) == ["text", "label", "predicted_label", *names]
    assert json.loads(rows["predicted_label"][2]) == classifier.predict(texts[2])
    assert rows[names].iloc[1].isna().all()
    np.testing.assert_allclose(rows[names].iloc[0], classifier.predict_proba(texts[0]), atol=1e-5)
    assert "" in (tmp_path / "out.csv").read_text().splitlines()[2].split(",")


# --- numbers ---


def test_a_run_over_numbers(numbers_run):
    folder = numbers_run.folder
    assert {"predictions.png", "loss.png", "mae.png"} <= {path.name for path in folder.iterdir()}
    task = numbers_run.classifier.task
    train_values = load_split(folder / "split").train.label.astype(float)
    assert task.means == pytest.approx((train_values.mean(),))
    assert task.scales == pytest.approx((train_values.std(ddof=0),))
    classifier = load_classifier(folder, "cpu")
    test = load_split(folder / "split").test
    expected = mean_absolute_error(test.label.astype(float), classifier.predict(test.text))
    assert numbers_run.scores["test"]["mae"] == pytest.approx(expected)
    assert evaluate(EvaluateConfig(model=folder, device="cpu"))["mae"] == pytest.approx(expected)
    losses = [row["train_loss"] for row in numbers_run.history if "train_loss" in row]
    assert losses[0] < 3, "in standard deviations, whatever the unit"


def test_classify_numbers(numbers_run, tmp_path, capsys):
    classifier = load_classifier(numbers_run.folder, "cpu")
    classify(ClassifyConfig(model=numbers_run.folder, texts=("a lovely day", " "), device="cpu"))
    first, second = capsys.readouterr().out.splitlines()
    assert float(first) == pytest.approx(classifier.predict("a lovely day"), rel=1e-4)
    assert second == ""
    (tmp_path / "in.tsv").write_text("a lovely day\tx\nanother\ty\n")
    config = ClassifyConfig(
        model=numbers_run.folder,
        data=tmp_path / "in.tsv",
        out=tmp_path / "out.csv",
        columns=("text", "label"),
        device="cpu",
    )
    classify(config)
    rows = pd.read_csv(tmp_path / "out.csv")
    assert list(rows.columns) == ["text", "label", "predicted_label"]
    np.testing.assert_allclose(rows["predicted_label"], classifier.predict(rows["text"]), rtol=1e-5)


def test_several_numbers(module_base, tmp_path):
    rows = [(text, len(names), 100 - i) for i, (text, names) in enumerate(lists_of(60))]
    pd.DataFrame(rows, columns=["text", "count", "rank"]).to_csv(tmp_path / "rows.csv", index=False)
    columns = ("count", "rank")
    config = TrainConfig.of(
        model=str(module_base),
        data=str(tmp_path / "rows.csv"),
        task="regression",
        label_columns=columns,
        out=tmp_path / "run",
        **(QUICK | {"epochs": 1}),
    )
    run = train(config)
    assert run.scores["test"]["per_number"].keys() == {"count", "rank"}
    classifier = load_classifier(tmp_path / "run", "cpu")
    assert np.shape(classifier.predict("x")) == (2,)
    table = report.scores_table(run.classifier.task, run.scores, run.baselines)
    assert "means over the predicted numbers" in " ".join(table.split())
    assert "\ntest:\n" in table
    new = tmp_path / "new.csv"
    new.write_text("text,count,rank\nnew one,1,2\nnew two,3,x\n")
    with pytest.raises(InputError, match=r"'x' in column 'rank', .*finite number, in line 3"):
        evaluate(EvaluateConfig(model=tmp_path / "run", data=str(new), label_columns=columns, device="cpu"))
    with pytest.raises(InputError, match=r"number 'label', unseen in training.* it predicts .*label-columns"):
        evaluate(EvaluateConfig(model=tmp_path / "run", data=str(new), label_column="count", device="cpu"))


# --- many classes ---


def test_many_classes_are_reported_one_by_one(module_base, tmp_path):
    rows = [(f"{WORDS[name]} {i}", name) for i in range(15) for name in WORDS]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(tmp_path / "rows.csv", index=False)
    config = TrainConfig.of(
        model=str(module_base),
        data=str(tmp_path / "rows.csv"),
        label_smoothing=0.1,
        balance="weights",
        out=tmp_path / "run",
        **(QUICK | {"epochs": 1}),
    )
    run = train(config)
    table = report.scores_table(run.classifier.task, run.scores, run.baselines)
    for word in ("precision", "joy", "micro average", "macro average", "weighted average"):
        assert word in table
    task = read_classifier(tmp_path / "run").task
    assert (task.label_smoothing, task.class_weights) == (0.1, (1.0, 1.0, 1.0))


# --- a run that stops, and options that do not go together ---


def test_resuming_a_run_over_lists(module_base, tmp_path, monkeypatch):
    """Its options hold a path and several names, and its thresholds come last."""
    ids = {name: str(i) for i, name in enumerate(WORDS)}
    rows = [f"{text}\t{'|'.join(ids[name] for name in names)}" for text, names in lists_of(60)]
    (tmp_path / "rows.tsv").write_text("\n".join(rows))
    (tmp_path / "names.txt").write_text("\n".join(WORDS))
    config = TrainConfig.of(
        model=str(module_base),
        data=str(tmp_path / "rows.tsv"),
        task="multi",
        label_separator="|",
        label_names=tmp_path / "names.txt",
        columns=("text", "label"),
        out=tmp_path / "run",
        **QUICK,
    )
    step = Trainer._step

    def stopping(self, group):
        if self.progress.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, group)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    assert read_classifier(tmp_path / "run").task.thresholds == (0.5, 0.5, 0.5), "not tuned yet"
    task = train(TrainConfig.of(out=tmp_path / "run", resume=True)).classifier.task
    assert task.labels == ("anger", "fear", "joy")
    assert task.thresholds != (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "multi", "positive": "joy"}, "--positive joy is for --task single, not multi"),
        ({"task": "regression", "positive": "1"}, "--positive 1 is for --task single, not regression"),
        ({"task": "multi", "label_smoothing": 0.1}, "--label-smoothing 0.1 is for --task single"),
        ({"label_smoothing": 1.0}, "--label-smoothing 1.0 "),
        ({"raw_targets": True}, "--raw-targets is for --task regression, not single"),
        ({"task": "regression", "balance": "weights"}, "--balance weights is for --task single or multi"),
        ({"task": "multi", "balance": "undersample"}, "--balance undersample .* --task multi"),
        ({"label_columns": ("a", "b")}, "--label-columns a b: "),
        ({"task": "multi", "recipe": "book"}, "--recipe book .* leave out --task"),
        ({"recipe": "book", "columns": ("label", "text")}, "--recipe book reads .* leave out --columns"),
        ({"task": "multi", "label_columns": ("a",), "label_column": "b"}, "exclude each other"),
    ],
)
def test_options_that_do_not_go_together(options, message, tmp_path):
    data = tmp_path / "rows.csv"
    data.write_text("text,a,b\none,1,0\ntwo,0,1\n")
    with pytest.raises(InputError, match=message):
        train(TrainConfig.of(data=str(data), out=tmp_path / "run", **options))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv"]


def test_lists_need_their_task(tmp_path, caplog):
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"text": t, "label": n}) + "\n" for t, n in lists_of(20)))
    with (
        caplog.at_level(logging.INFO, "gptcls"),
        pytest.raises(InputError, match="or add --task multi for lists"),
    ):
        train(TrainConfig.of(data=str(data), out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
