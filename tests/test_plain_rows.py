"""What is done to the training rows is done for the network: baselines are fitted on the rows as labelled."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny import ROWS, stopped_before, write_csv
from sklearn.dummy import DummyClassifier

from gptcls.data.sources import labelled_frame
from gptcls.data.split import Split, load_split, save_split
from gptcls.evaluation.baselines import MAJORITY, PROBE, TFIDF, ClassBaselines
from gptcls.evaluation.table import DIFFERENCE
from gptcls.train.config import TrainConfig
from gptcls.train.run import Run, train

UNEVEN = [*ROWS, *((f"{text} again", label) for text, label in ROWS if label == "ham")]
CHANGES: dict[str, dict[str, Any]] = {
    "undersample": {"balance": "undersample"},
    "oversample": {"balance": "oversample"},
    "augment": {"augment": ("swap", "delete")},
    "extra": {"extra": "extra.csv"},
    "all": {"balance": "oversample", "augment": ("swap",), "extra": "extra.csv"},
}


def run(folder: Path, base: Path, out: str = "run", **options) -> Run:
    data = write_csv(folder / "rows.csv", UNEVEN)
    if "extra" in options:
        extra = [("a prize to claim", "spam"), ("home at last", "spam"), ("cash for the winner", "spam")]
        options["extra"] = write_csv(folder / options["extra"], extra)
    settings = {"epochs": 1, "max_length": 8, "batch_size": 16, "train": "head", "device": "cpu"}
    return train(TrainConfig.of(model=str(base), data=str(data), out=folder / out, **settings | options))


@pytest.mark.parametrize("change", CHANGES)
def test_baselines_see_the_rows_as_labelled(change: str, base: Path, tmp_path: Path) -> None:
    done = run(tmp_path, base, **CHANGES[change])
    split = load_split(tmp_path / "run" / "split")
    assert len(split.plain) != len(split.train)
    assert set(zip(split.plain.text, split.plain.label, strict=True)) <= set(UNEVEN)
    assert len(split.plain) + len(split.validation) + len(split.test) == len(UNEVEN)
    labelled = {"train": split.plain, "validation": split.validation, "test": split.test}
    parts = {
        part: (rows.text.tolist(), (rows.label == "spam").to_numpy(int)) for part, rows in labelled.items()
    }
    model = DummyClassifier(strategy="prior").fit(split.plain.text, split.plain.label)
    assert done.baselines[MAJORITY]["test"]["accuracy"] == model.score(split.test.text, split.test.label)
    for run_of in (
        done,
        other := run(tmp_path, base, "plain"),
    ):  # the networks differ, and so what they are ahead
        for part in ("validation", "test"):
            for scores in run_of.baselines.values():
                scores[part].pop(DIFFERENCE)
    assert done.baselines[TFIDF] == ClassBaselines(["ham", "spam"]).scores(parts)[TFIDF]
    assert done.baselines[TFIDF]["train"]["n"] == len(split.plain)
    plain = other.baselines
    if change == "undersample":  # what is left out has no features
        assert done.baselines.pop(PROBE)["train"]["n"] == len(split.train) < plain.pop(PROBE)["train"]["n"]
    assert done.baselines == plain
    assert not (tmp_path / "plain" / "split" / "plain.csv").exists()


def test_a_resumed_run_has_the_same_baselines(base: Path, tmp_path: Path) -> None:
    whole = run(tmp_path, base, **CHANGES["all"])
    with stopped_before(2):
        run(tmp_path, base, "stopped", **CHANGES["all"])
    (tmp_path / "extra.csv").unlink()
    resumed = train(TrainConfig.of(out=tmp_path / "stopped", resume=True))
    assert resumed.baselines == whole.baselines
    assert json.loads((tmp_path / "stopped" / "metrics.json").read_text())["baselines"] == whole.baselines


def test_plain_rows_do_not_outlive_their_split(tmp_path: Path) -> None:
    one, two = labelled_frame(["a"], ["x"]), labelled_frame(["b"], ["y"])
    save_split(Split(one, one, one, plain=two), tmp_path)
    assert load_split(tmp_path).plain.text.tolist() == ["b"]
    save_split(Split(one, one, one), tmp_path)
    assert load_split(tmp_path).plain is None
