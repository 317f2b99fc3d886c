"""fit: rows in memory in, a classifier in memory out."""

import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.tiny import ROWS, TINY, write_csv

from gptcls import InputError, fit, load_classifier, train
from gptcls.classify.store import save_classifier
from gptcls.core.gpt2 import GPT2
from gptcls.core.loop import Hook
from gptcls.data.split import Split
from gptcls.models.pretrained import load_pretrained
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve
from gptcls.train.rows import read_split

FRAME = pd.DataFrame(ROWS, columns=["text", "label"])
QUICK = {"epochs": 1, "max_length": 16, "device": "cpu"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Somewhere empty, and empty it stays."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_frame_gives_what_the_same_file_gives(folder, base):
    run = fit(FRAME, base, **QUICK)
    assert run.folder is None
    assert os.listdir(folder) == ["base"], "nothing is written"
    file = write_csv(folder / "rows.csv")
    same = train(model=str(base), data=str(file), out=folder / "run", **QUICK)
    assert run.scores == same.scores
    assert run.baselines == same.baselines
    states = run.classifier.model.state_dict(), same.classifier.model.state_dict()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert run.predict(["win a prize", "see you"]) == same.predict(["win a prize", "see you"])
    assert run.predict_proba("win a prize").shape == (2,)


def test_parts_and_a_split_are_taken_as_they_are(base):
    split = read_split(resolve(TrainConfig.of(data=str(write_csv(base / "rows.csv")))))
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    runs = [fit(rows, base, **QUICK) for rows in (split, parts)]
    assert runs[0].scores == runs[1].scores
    assert len(fit({"train": FRAME, "test": split.test}, base, **QUICK).split.test) == len(split.test)
    assert isinstance(runs[1].split, Split)


def test_settings_and_single_options(base):
    settings = TrainConfig.of(model=str(base), train="head", **QUICK)
    assert fit(FRAME, settings=settings, lr=0.01).config.flat()["lr"] == 0.01
    assert set(fit(FRAME, settings=settings).classifier.model.trained_parameters()) == {
        "head.weight",
        "head.bias",
    }
    with pytest.raises(TypeError, match=r"'epoch'.*'epochs'"):
        fit(FRAME, epoch=3)


def test_labels_as_lists_and_as_numbers(base):
    rng = np.random.default_rng(0)
    lists = FRAME.assign(label=[["short"] if i % 3 else ["short", "late"] for i in range(len(FRAME))])
    run = fit(lists, base, task="multi", **QUICK)
    assert run.classifier.task.labels == ("late", "short")
    stars = FRAME.assign(label=rng.uniform(1, 5, len(FRAME)))
    run = fit(stars, base, task="regression", **QUICK)
    assert np.isfinite(run.predict("win a prize"))


def test_a_network_of_ones_own(base):
    """Contract 1: whatever keeps the backbone's contract is trained and used."""

    class Mine(torch.nn.Module):
        def __init__(self):
            super().__init__()
            network = load_pretrained(base)
            self.config = network.config
            self.wte, self.blocks, self.norm = network.wte, network.blocks, network.norm

        def embed(self, ids):
            return self.wte(ids)

        def forward(self, ids, lengths=None):
            x = self.embed(ids)
            for block in self.blocks:
                x = block(x, lengths)
            return self.norm(x)

    class MineConfig:
        def __init__(self, config):
            self.__dict__.update(vars(config))

    own = Mine()
    own.config = MineConfig(own.config)
    run = fit(FRAME, own, train="last_block", **QUICK)
    assert run.predict("win a prize") in ("ham", "spam")
    torch.manual_seed(0)
    assert fit(FRAME, GPT2(TINY), train="all", **QUICK).classifier.base is None


def test_what_the_contract_does_not_ask_of_a_network(base):
    """No size of a vocabulary, and its output need not depend on every parameter."""

    class Mine(GPT2):
        def __init__(self):
            super().__init__(TINY)
            self.spare = torch.nn.Linear(2, 2)
            self.config = SimpleNamespace(n_embd=TINY.n_embd, n_positions=TINY.n_positions)

    assert fit(FRAME, Mine(), train="all", **QUICK).predict("win a prize") in ("ham", "spam")

    class Encoder(torch.nn.Module):
        config = SimpleNamespace(n_embd=16, n_positions=64)

    with pytest.raises(InputError, match="--no-causal-mask is for a GPT-2; Encoder"):
        fit(FRAME, Encoder(), no_causal_mask=True, **QUICK)


def test_the_split_of_a_run_is_taken_as_it_is(base):
    options = {"augment": ("delete",), "balance": "oversample", **QUICK}
    run = fit(FRAME, base, **options)
    again = fit(run.split, settings=run.config)
    assert len(again.split.train) == len(run.split.train) > len(again.split.plain)


def test_windows_with_the_books_recipe(base):
    """Its loader shuffles and drops rows: what it says of them cannot be put together to texts."""
    long = FRAME.assign(text=[f"{text} " + "and so on " * (i % 9) for i, text in enumerate(FRAME.text)])
    run = fit(long, base, recipe="book", long="windows", **QUICK | {"max_length": 8})
    assert 0 <= run.extra["accuracy_by_loader"]["train"] <= 1


def test_hooks_are_called(base):
    class Seen(Hook):
        losses, epochs = (), 0

        def on_step(self, trainer):
            self.losses += (trainer.loss,)

        def on_epoch(self, trainer):
            self.epochs += 1

    seen = Seen()
    fit(FRAME, base, hooks=[seen], **QUICK | {"epochs": 2, "batch_size": 8})
    assert seen.epochs == 2
    assert len(seen.losses) == 2 * -(-len(FRAME) * 7 // 10 // 8)


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        ([("a", "b")], TypeError, "list"),
        ({"test": FRAME}, InputError, "train"),
        ({"train": FRAME, "dev": FRAME}, InputError, "dev"),
        (FRAME.rename(columns={"text": "a", "label": "b"}).assign(c=1), InputError, "--text-column"),
        (FRAME.assign(label=None), InputError, "missing label"),
        (FRAME[FRAME.label == "ham"], InputError, "two classes"),
    ],
)
def test_rows_that_cannot_be_used(rows, error, words, folder):
    with pytest.raises(error, match=words):
        fit(rows, **QUICK)
    assert os.listdir(folder) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"validation": "v.csv"}, "--validation v.csv"),
        ({"recipe": "book", "batch_size": 99}, "--batch-size 99"),
    ],
)
def test_options_that_rows_in_memory_exclude(options, words, folder):
    with pytest.raises(InputError, match=words):
        fit(FRAME, **options, **QUICK)
    assert os.listdir(folder) == []


@pytest.mark.parametrize(
    "options",
    [
        *({"train": "last_block", "pooling": pooling} for pooling in ("max", "mean", "last")),
        {"train": "last_block", "pooling": "max", "seeds": (1, 2)},
        {"train": "last_2", "pooling": "max"},
        {"train": "all", "pooling": "last"},
        {"train": "lora", "pooling": "mean"},
        {"train": "last_block", "pooling": "max", "no_cache": True},
    ],
    ids=str,
)
def test_a_run_is_scored_by_what_its_classifier_answers(base, folder, options):
    run = fit(FRAME, base, precision="bf16", lr=1e-2, **options, **QUICK)
    save_classifier(folder / "x", run.classifier, True)
    saved = load_classifier(folder / "x", "cpu", "bf16")
    for part in ("validation", "test"):
        texts = getattr(run.split, part)["text"].tolist()
        np.testing.assert_allclose(saved.predict_proba(texts), run.outputs[part], rtol=0, atol=1e-6)


def test_windows_are_judged_as_texts(base, monkeypatch):
    """Early stopping looks at texts: the loss that it reads is that of the mean of each text's windows."""
    from gptcls.core.answer import dataset_logits

    long = FRAME.assign(text=[f"{text} " + "and so on " * (i % 9) for i, text in enumerate(FRAME.text)])
    how = QUICK | {"max_length": 8, "precision": "fp32"}
    run = fit(long, base, long="windows", train="all", patience=1, lr=1e-3, **how)
    model, task = run.classifier.model, run.classifier.task
    from gptcls.core.batches import TextDataset
    from gptcls.data.long_texts import CUTS

    rows = run.split.validation
    dataset = TextDataset(rows.text.tolist(), task.targets(rows.label.tolist()), 8, cut=CUTS["windows"])
    assert len(dataset) > len(rows)
    expected = task.loss(dataset_logits(model, dataset, torch.device("cpu")), dataset.targets).item()
    judged = [row["full_val_loss"] for row in run.history if row.get("full_val_loss") is not None]
    assert judged == [pytest.approx(expected, abs=1e-6)]
