"""--mix: rows of other files among the training rows of --head lm, each a task of its own. Losses against
transformers' GPT2LMHeadModel."""

import json
import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.tiny import ROWS, stopped_before, write_csv

from gptcls.classify.predict import load_classifier
from gptcls.core.errors import InputError
from gptcls.core.loop import Hook
from gptcls.core.tokenizer import GPT2
from gptcls.data.repeats import WEIGHT
from gptcls.data.split import Split
from gptcls.distill import DistillConfig, checked
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve
from gptcls.train.rows import mixed_rows, read_split, split_of
from gptcls.train.run import train, trained
from gptcls.train.setup import prepare

FRAME = pd.DataFrame(ROWS, columns=["text", "label"])
THINGS = [(i, thing) for i in range(9) for thing in ("sky", "sea")]
COLOURS = [(f"the {x} is {c} {i}", c) for i, x in THINGS for c in ("dark red", "dark blue", "green")]
TONES = [(f"I was so {tone} {i}", tone) for i in range(9) for tone in ("glad", "sad")]
WORDS = {"pattern": "{text} How was it? {label}.", "verbalizers": {"glad": "very well", "sad": "badly"}}
QUICK = {"head": "lm", "epochs": 2, "batch_size": 8, "device": "cpu", "lr": 3e-3, "precision": "fp32"}


@pytest.fixture
def options(base, tmp_path):
    """A run with two more tasks, of three labels and of two, of which the second has words of its own."""
    (tmp_path / "tones.json").write_text(json.dumps(WORDS))
    data, *files = (
        write_csv(tmp_path / f"{name}.csv", rows)
        for name, rows in (("own", ROWS), ("c", COLOURS), ("t", TONES))
    )
    mix = (f"{files[0]}=0.5", f"{files[1]}=.25")
    patterns = ("{text}\\nIts colour is {label}.", str(tmp_path / "tones.json"))
    return QUICK | {"data": str(data), "model": str(base), "mix": mix, "mix_patterns": patterns}


class Look(Hook):
    """What ``see`` finds out about a trainer before its first step."""

    def __init__(self, see):
        self.see = see

    def on_start(self, trainer):
        trainer.model.eval()
        self.found = self.see(trainer)


def setup_of(options):
    config = resolve(TrainConfig.of(**options))
    return prepare(read_split(config), config)


def seen(look, options):
    """The rows of a run with these options, and what ``look`` saw of it."""
    trained(setup := setup_of(options), [look])
    return setup.split, look.found


def own_losses(oracle, text, wanted, words):
    """Of one row: the cross entropy over its task's labels, and that over the vocabulary of the right one's
    tokens, one after the other behind all that stands before them."""
    before, scores = GPT2.encode(text), {}
    for label, spelled in words.items():
        ids, scores[label] = list(before), 0.0
        for token in GPT2.encode(f" {spelled}"):
            logits = oracle(torch.tensor([ids])).logits[0, -1]
            scores[label] += logits.log_softmax(dim=-1)[token].item()
            ids.append(token)
    return torch.tensor(list(scores.values())).logsumexp(0).item() - scores[wanted], -scores[wanted]


@pytest.mark.parametrize(
    "how",
    [{"train": "last_block"}, {"train": "all", "no_cache": True, "objective": "tokens"}, {"train": "lora"}],
)
def test_the_loss_of_a_batch_is_the_mean_of_each_rows_own(how, base, options):
    transformers = pytest.importorskip("transformers")
    oracle = transformers.GPT2LMHeadModel.from_pretrained(base).eval()

    def see(trainer):
        loader, network = trainer.train_loader, trainer.model
        places = [loader.dataset[i] for i in next(iter(loader.batch_sampler))]
        inputs, lengths, targets = loader.collate_fn(places)
        assert {id(p) for p in network.parameters()} == {id(p) for p in network.network.parameters()}
        return places, trainer.task.loss(network(inputs, lengths), targets).item()

    split, (places, found) = seen(Look(see), options | how | {"epochs": 1})
    assert {number for number, _ in places} == {0, 1, 2}
    own = list(zip(split.train["text"], split.train["label"], strict=True))
    tasks = (
        (own, "{}\nThis message is", {x: x for x in ("ham", "spam")}),
        (COLOURS, "{}\nIts colour is", {x: x for _, x in COLOURS}),
        (TONES, "{} How was it?", WORDS["verbalizers"]),
    )
    losses = []
    with torch.inference_mode():
        for number, row in places:
            rows, words, labels = tasks[number]
            losses.append(own_losses(oracle, words.format(rows[row][0]), rows[row][1], labels))
    expected = np.mean(losses, axis=0)[int("objective" in how)]
    assert found == pytest.approx(expected, rel=1e-4)


def test_files_have_their_shares_of_an_epoch_and_of_each_batch(options):
    def see(trainer):
        places = trainer.train_loader.dataset
        return [[places[i] for i in rows] for rows in trainer.train_loader.batch_sampler]

    split, batches = seen(Look(see), options | {"epochs": 1})
    n, drawn = len(split.train), Counter(place for batch in batches for place in batch)
    assert [drawn[0, row] for row in range(n)] == [1] * n, "all of --data, once"
    of_each = Counter(number for batch in batches for number, _ in batch)
    assert of_each.total() == 4 * n
    assert [of_each[1], of_each[2]] == pytest.approx([2 * n, n], abs=2)
    assert {drawn[1, row] for row in range(len(COLOURS))} == {1, 2}, "as evenly as can be"
    assert all(1 <= sum(not number for number, _ in batch) <= 3 for batch in batches if len(batch) == 8)


def test_all_of_the_tasks_are_learnt(options):
    def loss_of(trainer):  # of the other tasks' rows
        loader = trainer.train_loader
        batch = loader.collate_fn([place for place in loader.dataset if place[0]])
        with torch.inference_mode():
            return trainer.task.loss(trainer.model(*batch[:2]), batch[2]).item()

    class AtEnd(Look):
        def on_epoch(self, trainer):
            self.last = self.see(trainer)

    look = AtEnd(loss_of)
    _, before = seen(look, options | {"train": "all", "lr": 1e-2})
    assert look.last < 0.5 * before


def test_a_run_goes_on_bit_for_bit_answers_its_own_and_refuses_other_rows(options, tmp_path):
    trained(whole := setup_of(options))
    with stopped_before(9):
        train(out=tmp_path / "halved", **options)
    other = tmp_path / "t.csv"
    for file in (other, tmp_path / "tones.json"):
        kept = file.read_text()
        file.write_text(kept.replace("glad", "fine"))
        with pytest.raises(InputError, match=f"{re.escape(file.name)} changed since"):
            train(out=tmp_path / "halved", resume=True)
        file.write_text(kept)
    run = train(out=tmp_path / "halved", resume=True)
    for name, tensor in whole.saved.model.state_dict().items():
        assert torch.equal(run.classifier.model.state_dict()[name], tensor), name
    classifier = load_classifier(tmp_path / "halved", "cpu", "fp32")
    assert classifier.labels == ("ham", "spam")
    texts = [text for text, _ in ROWS[::7]]
    np.testing.assert_allclose(classifier.predict_proba(texts), run.predict_proba(texts), atol=1e-5)
    assert run.scores["train"]["n"] == len(run.split.train)


def test_no_text_that_is_validated_or_tested_on_is_learnt(tmp_path):
    held = Split(*(pd.DataFrame(rows, columns=["text", "label"]) for rows in (ROWS[2:], ROWS[:1], ROWS[1:2])))
    rows = [(text.upper() + "!", label) for text, label in ROWS[:3]] + TONES
    config = TrainConfig.of(head="lm", mix=(f"{write_csv(tmp_path / 'x.csv', rows)}=0.2",))
    (found,) = mixed_rows(config, held)
    assert found["text"].tolist() == [text for text, _ in rows[2:]], "training rows may have another label"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mix": ("x.csv",)}, "'x.csv': write FILE=SHARE"),
        ({"mix": ("x.csv=1.5",)}, "'x.csv=1.5': write FILE=SHARE"),
        ({"mix": ("x.csv=0.0",)}, "a share between 0 and 1"),
        ({"mix": ("x.csv=0.6", "y.csv=0.4")}, "shares of 1 leave none to --data"),
        ({"mix_patterns": ("{text} {label}",) * 2}, "--mix-patterns has 2 for 1 of --mix"),
        ({"head": "linear"}, "--mix goes with --head lm"),
        ({"epochs": 0}, "--mix is about training"),
        ({"balance": "weights"}, "--balance weights is not for --mix"),
        ({"repeats": "weight"}, "--repeats weight is not for --mix"),
        ({"label_smoothing": 0.1}, "--label-smoothing 0.1 is not for --mix"),
    ],
)
def test_what_does_not_go_with_it_is_refused(given, said):
    with pytest.raises(InputError, match=said):
        resolve(TrainConfig.of(**{"head": "lm", "mix": ("x.csv=0.3",)} | given))


def test_what_cannot_be_mixed_in_is_refused(tmp_path, monkeypatch):
    split = split_of(FRAME, config := TrainConfig.of(head="lm", mix=(f"{tmp_path}/x.csv=0.3",)))
    with pytest.raises(InputError, match=r"x\.csv: no such file"):
        next(mixed_rows(config, split))
    write_csv(tmp_path / "x.csv", TONES[::2])
    with pytest.raises(InputError, match="labels in the 9 rows left are 1, not two"):
        next(mixed_rows(config, split))
    weighted = Split(split.train.assign(**{WEIGHT: 1.0}), split.validation, split.test)
    with pytest.raises(InputError, match="not for rows that have weights"):
        next(mixed_rows(config, weighted))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="train --mix runs in one process"):
        next(mixed_rows(config, split))
    with pytest.raises(InputError, match="--mix learns labels, not a teacher's answers"):
        checked(DistillConfig.of(teacher="x", head="lm", mix=("x.csv=0.3",)))
