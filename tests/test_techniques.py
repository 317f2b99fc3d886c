"""Techniques on top of a run: each against a formula or a known implementation, and the tables of them."""

import json

import numpy as np
import pytest
import torch
from helpers.tiny import ROWS, TINY, tiny_classifier, tiny_trainer
from test_task_runs import WORDS, lists_of
from torch.distributions import Bernoulli, Categorical, kl_divergence
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks import few_labels, techniques
from benchmarks.technique_places import EpochMean, MovingMean, Sizes, drawn, place_of, weights
from benchmarks.technique_rows import (
    MIX_RATE,
    RATE_PER_BLOCK,
    TECHNIQUES,
    LayerMix,
    Neighbours,
    RDrop,
    Technique,
    Twice,
    layer_mix,
    layer_wise,
    plain,
    pseudo_labelled,
    with_dropout,
)
from benchmarks.techniques import contributions, crossed, mean_of, over_seeds_alone, read, written
from gptcls.core.batches import TextDataset
from gptcls.core.errors import InputError
from gptcls.core.loop import Hook
from gptcls.core.task import SingleLabel
from gptcls.core.tasks import MultiLabel
from gptcls.data.labels import LISTS, ONE_CLASS
from gptcls.data.sources import labelled_frame
from gptcls.evaluation.intervals import mean_interval
from gptcls.evaluation.table import MISSING
from gptcls.fast.frozen import Frozen, Trained


@pytest.fixture
def data(tmp_path):
    """Imitations of the text messages and of GoEmotions."""
    root = tmp_path / "data"
    (root / "sms").mkdir(parents=True)
    (root / "goemotions").mkdir()
    sms = [f"ham\tsee you at {i} then, we go home" for i in range(80)]
    sms += [f"spam\twin {i} prizes, call now" for i in range(40)]
    (root / "sms" / "SMSSpamCollection").write_text("\n".join(sms))
    (root / "goemotions" / "labels.txt").write_text("\n".join(WORDS))
    for part, n in (("train", 90), ("dev", 10), ("test", 30)):
        rows = [(f"{part} {text}", names) for text, names in lists_of(n) if names]
        ids = [",".join(str(list(WORDS).index(name)) for name in names) for _, names in rows]
        lines = [f"{text}\t{each}\tx" for (text, _), each in zip(rows, ids, strict=True)]
        (root / "goemotions" / f"{part}.tsv").write_text("\n".join(lines))
    return root


@pytest.fixture
def place(data, base, tmp_path):
    """24 text messages, and quick runs over them."""
    found = place_of("sms", data, 0, Sizes(24, 12, 20, 30, 16), tmp_path / "features", str(base), "cpu")
    found.settings |= {"epochs": 3, "lr": 1e-2, "batch_size": 8}
    return found


# --- rows ---


def test_seeds_share_their_test_rows_and_no_part_has_another_ones_text(data, base, tmp_path):
    for name in ("sms", "goemotions"):
        sizes = Sizes(20, 10, 15, 10, 16)
        places = [place_of(name, data, seed, sizes, tmp_path, str(base), "cpu") for seed in (0, 1)]
        first, second = (place.split for place in places)
        assert first.test["text"].tolist() == second.test["text"].tolist()
        assert first.train["text"].tolist() != second.train["text"].tolist()
        for place in places:
            parts = [frame["text"].tolist() for _, frame in place.split.items()] + [place.unlabelled]
            assert [len(part) for part in parts] == [20, 10, 15, 10]
            assert len(set().union(*parts)) == 55


def test_rows_are_drawn_by_class_and_the_others_are_left():
    rows = labelled_frame([f"text {i}" for i in range(20)], ["rare", *["often"] * 19])
    for seed in range(3):
        taken, rest = drawn(rows, 5, seed, ONE_CLASS)
        assert taken["label"].value_counts().to_dict() == {"often": 4, "rare": 1}
        assert sorted([*taken["text"], *rest["text"]]) == sorted(rows["text"])
    lists = labelled_frame([f"text {i}" for i in range(9)], ['["a"]'] * 8 + ['["a", "b"]'])
    assert any('"b"' in label for label in drawn(lists, 2, 0, LISTS)[0]["label"])


# --- means of weights ---


class Judges(Hook):
    """torch's own averages, taken beside ours."""

    def __init__(self, decay):
        self.ema = self.mean = None
        self.decay = decay

    def on_step(self, trainer):
        if self.ema is None:
            self.ema = AveragedModel(trainer.model, multi_avg_fn=get_ema_multi_avg_fn(self.decay))
            self.mean = AveragedModel(trainer.model)
        self.ema.update_parameters(trainer.model)

    def on_epoch(self, trainer):
        if trainer.progress.epoch in (3, 4):  # of 4
            self.mean.update_parameters(trainer.model)


def test_means_of_weights_are_those_of_torch():
    trainer = tiny_trainer(patience=0)
    ours, moving, judges = EpochMean(), MovingMean(0.9), Judges(0.9)
    trainer.hooks = [ours, moving, judges]
    trainer.fit()
    last = {name: p.detach().clone() for name, p in trainer.parameters.items()}
    for mean, theirs in ((ours.mean, judges.mean), (moving.mean, judges.ema)):
        expected = dict(theirs.module.named_parameters())
        assert mean.keys() == trainer.parameters.keys()
        for name, value in mean.items():
            torch.testing.assert_close(value, expected[name])
        assert any(not torch.equal(value, last[name]) for name, value in mean.items())


def test_the_plain_run_answers_by_its_last_weights_after_a_look_at_the_mean(place):
    before = place.plain.logits()["test"]
    (mean,) = (hook.mean for hook in place.plain.hooks if isinstance(hook, EpochMean))
    with weights(place.plain, mean):
        between = place.plain.logits()["test"]
    assert not torch.allclose(before, between)
    assert torch.equal(before, place.plain.logits()["test"])


# --- R-Drop ---


@pytest.mark.parametrize("alpha", [0.0, 1.0, 5.0])
def test_r_drop_is_the_papers_loss(alpha):
    torch.manual_seed(0)
    logits = torch.randn(6, 2, 3, dtype=torch.float64)
    p, q = (Categorical(logits=x) for x in logits.unbind(1))
    apart = (kl_divergence(p, q) + kl_divergence(q, p)).mean()
    task, targets = SingleLabel(("a", "b", "c")), torch.tensor([0, 1, 2, 0, 1, 2])
    paper = -(p.log_prob(targets) + q.log_prob(targets)).mean() + alpha / 2 * apart
    torch.testing.assert_close(RDrop(task, alpha).loss(logits, targets), paper / 2)
    task, targets = MultiLabel(("a", "b", "c")), torch.randint(2, (6, 3)).double()
    p, q = (Bernoulli(logits=x) for x in logits.unbind(1))
    apart = (kl_divergence(p, q) + kl_divergence(q, p)).mean()
    paper = -(p.log_prob(targets) + q.log_prob(targets)).mean() + alpha / 2 * apart
    torch.testing.assert_close(RDrop(task, alpha).loss(logits, targets), paper / 2)


def test_a_network_answers_twice_in_training_alone_and_each_time_with_dropout_of_its_own(place):
    loop = place.plain
    loader = loop.datasets["train"]
    hidden, lengths, _ = loader.collate([loader[i] for i in range(4)])
    twice, once = Twice(loop.network), loop.network.eval()(hidden, lengths)
    assert torch.equal(twice.eval()(hidden, lengths), once)
    same = twice.train()(hidden, lengths)
    torch.testing.assert_close(same[:, 0], same[:, 1])  # the network has no dropout
    with_dropout(loop, 0.5)
    first, second = twice.train()(hidden, lengths).unbind(1)
    assert not torch.allclose(first, second)
    assert torch.equal(twice.eval()(hidden, lengths), once)


# --- layers ---


def test_a_mix_of_the_top_layer_alone_is_the_classifier():
    model = tiny_classifier("last_block").eval()
    task = SingleLabel.of(label for _, label in ROWS)
    texts, labels = zip(*ROWS[:6], strict=True)
    rows = TextDataset(texts, task.targets(labels), 32)
    ids, lengths, _ = rows.collate([rows[i] for i in range(6)])
    hidden = torch.cat([Frozen(model, depth)(ids, lengths) for depth in range(3)], dim=-1)
    mix = LayerMix(model, 2)
    with torch.no_grad():
        mix.mix.copy_(torch.tensor([-1e9, -1e9, -1e9, 0.0]))
        expected = Trained(model, 2)(Frozen(model, 2)(ids, lengths), lengths)
        torch.testing.assert_close(mix(hidden, lengths), expected)
        # The embeddings' layer alone: what the first block is given, normalised.
        mix.mix.copy_(torch.tensor([0.0, -1e9, -1e9, -1e9]))
        x = torch.nn.functional.layer_norm(model.backbone.embed(ids), (TINY.n_embd,))
        torch.testing.assert_close(mix(hidden, lengths), model.head(model.pool(x, lengths)))


def test_the_weights_of_the_layers_learn(place):
    loop = place.learn(layer_mix)
    assert loop.network.mix.detach().std() > 0
    assert loop.datasets["train"].features[0].shape[1] == 3 * TINY.n_embd
    rates = {group.get("lr_scale", 1.0): len(group["params"]) for group in loop.optimizer.param_groups}
    assert rates[MIX_RATE] == 2


def test_each_block_has_its_rate_and_each_parameter_one(place):
    loop = place.learn(layer_wise, train="blocks")
    groups, blocks = loop.optimizer.param_groups, loop.model.backbone.blocks
    found = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(found)
    assert found.keys() == {id(p) for p in loop.model.trained_parameters().values()}
    for depth, block in enumerate(blocks):
        assert {found[id(p)] for p in block.parameters()} == {RATE_PER_BLOCK ** (len(blocks) - 1 - depth)}
    assert found[id(loop.model.head.weight)] == 1.0


# --- on the plain run ---


def test_votes_of_neighbours_are_those_of_scikit_learns_classifier(place):
    from sklearn.neighbors import KNeighborsClassifier

    vectors = place.plain.vectors()
    model = KNeighborsClassifier(16, metric="cosine", weights="distance")
    model.fit(vectors["train"], place.targets["train"])
    votes = Neighbours(place).outputs(place.split.test["text"])
    np.testing.assert_allclose(votes, model.predict_proba(vectors["test"]), atol=1e-6)
    # The vectors are what the head reads.
    head = place.plain.model.head
    again = torch.from_numpy(vectors["test"]) @ head.weight.T + head.bias
    torch.testing.assert_close(again.detach(), place.plain_logits["test"])


def test_sure_answers_to_unlabelled_texts_are_trained_on(place, monkeypatch):
    trained = []
    learn = type(place).learn

    def seen(self, *arguments, **options):
        trained.append(options.get("rows"))
        return learn(self, *arguments, **options)

    monkeypatch.setattr(type(place), "learn", seen)
    monkeypatch.setattr("benchmarks.technique_rows.SURE", 0.6)
    found = place.unlabelled_outputs()
    pseudo_labelled(place)
    rows = trained[-1]
    sure = found.max(axis=1) >= 0.6
    assert len(rows) == 24 + sure.sum()
    expected = [place.task.labels[i] for i in found[sure].argmax(axis=1)]
    assert rows["label"].tolist()[24:] == expected
    assert rows["text"].tolist()[24:] == [t for t, take in zip(place.unlabelled, sure, strict=True) if take]


# --- differences ---


def test_contributions_are_the_score_and_their_spread_the_jackknifes():
    from sklearn.metrics import accuracy_score, f1_score

    random, n = np.random.RandomState(0), 300
    true = np.eye(2, dtype=bool)[random.randint(2, size=n)]
    given = np.where(random.rand(n, 1) < 0.2, ~true, true)
    several = random.rand(n, 5) < 0.3
    noisy = several ^ (random.rand(n, 5) < 0.1)

    def f1(true, given):
        return f1_score(true[:, 1], given[:, 1])

    def micro(true, given):
        return f1_score(true, given, average="micro")

    for score, judge, pair in (
        ("accuracy", accuracy_score, (true, given)),
        ("f1", f1, (true, given)),
        ("micro_f1", micro, (several, noisy)),
    ):
        values = contributions(*pair, score)
        assert values.mean() == pytest.approx(judge(*pair))
        without = [judge(*(np.delete(x, i, axis=0) for x in pair)) for i in range(0, n, 10)]
        assert values[::10].std() == pytest.approx((n - 1) * np.std(without), rel=0.02)


def test_an_interval_over_seeds_and_texts():
    random = np.random.RandomState(0)
    by_seed, by_text = random.randn(5, 1), random.randn(1, 40)
    # Texts alike: Student's over the seeds. Seeds alike, or one: Student's over the texts.
    for values, each in (
        (by_seed + np.zeros((5, 40)), by_seed[:, 0]),
        (by_text + np.zeros((5, 1)), by_text[0]),
        (by_text, by_text[0]),
    ):
        assert crossed(values).interval(1) == pytest.approx(mean_interval(each))
    both = crossed(by_seed + by_text)
    assert both.variance == pytest.approx(by_seed.var(ddof=1) / 5 + by_text.var(ddof=1) / 40)
    assert crossed(np.zeros((5, 40))).interval() == (0, 0, 0)
    assert over_seeds_alone(by_seed[:, 0].tolist()).interval(1) == pytest.approx(mean_interval(by_seed[:, 0]))


@pytest.mark.parametrize("spreads", [(1, 1, 1), (0, 0, 1), (0.1, 0.1, 3), (1, 5, 1)])
def test_such_intervals_hold_the_truth_nineteen_times_in_twenty(spreads):
    random, held = np.random.RandomState(1), 0
    for _ in range(600):
        of_seed, of_text, of_both = (
            spread * random.randn(*shape)
            for spread, shape in zip(spreads, ((5, 1), (1, 60), (5, 60)), strict=True)
        )
        _, low, high = crossed(of_seed + of_text + of_both).interval()
        held += low <= 0 <= high
    assert 0.91 < held / 600 < 0.99


def test_the_mean_over_data_sets_has_their_mean_variance():
    random = np.random.RandomState(2)
    found = [crossed(random.randn(5, 30) + i) for i in range(4)]
    mean = mean_of(found)
    assert mean.mean == pytest.approx(np.mean([each.mean for each in found]))
    assert mean.variance == pytest.approx(sum(each.variance for each in found) / 16)
    assert mean.df > min(each.df for each in found)


def test_answers_are_read_as_they_were_written():
    flags = np.random.RandomState(0).rand(50, 28) < 0.2
    assert np.array_equal(read(written(flags), 28), flags)
    assert read(written(flags[:0]), 28).shape == (0, 28)


# --- the programs ---


@pytest.fixture
def options(data, base, tmp_path):
    return techniques.Options(
        sets=("sms", "goemotions"), seeds=(0,), train=24, validation=12, test=20, unlabelled=10, length=8,
        data=data, model=str(base), device="cpu", out=tmp_path / "out.json", only=("weights", "knn"),
    )  # fmt: skip


def lines_of(capsys):
    return [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]


def test_the_table_and_that_it_goes_on(options, capsys, monkeypatch):
    monkeypatch.setattr("gptcls.train.presets.MOST", 1)
    techniques.run(options)
    heads, _, *lines = lines_of(capsys)
    assert heads[1:3] == ["sms, F1 of spam", "goemotions, micro-F1"]
    assert [line[0].strip("| ") for line in lines] == [
        "plain run", "class weights", "nearest neighbours mixed in",
    ]  # fmt: skip
    kept = json.loads(options.out.read_text())
    told, answers = (kept[f"techniques/sms/{key}/seed 0"] for key in ("truth", "plain"))
    assert told["labels"] == ["ham", "spam"]
    assert len(told["test"].split()) == len(answers["test"].split()) == 20
    assert len(answers["validation"].split()) == 12
    monkeypatch.setattr(techniques, "answers_of", None)  # nothing is left to measure
    techniques.run(options)
    assert lines_of(capsys)[2:] == lines
    monkeypatch.setitem(techniques.TECHNIQUES, "new", Technique("a new one", plain))
    shown = techniques.Options(**vars(options) | {"only": ("new",), "show": True})
    techniques.run(shown)
    assert lines_of(capsys)[-1][1:3] == ["…", "…"]
    with pytest.raises(InputError, match=r"measured with sizes.*choose another --out"):
        techniques.run(techniques.Options(**vars(options) | {"test": 10}))


def test_a_technique_is_the_difference_of_its_answers(options, capsys):
    cells = techniques.Cells()
    truth = np.eye(2, dtype=bool)[[0, 1] * 20]
    for seed, wrong in ((0, 4), (1, 6)):
        other = truth.copy()
        other[:wrong] = ~other[:wrong]
        for key, flags in (("truth", truth), ("plain", other), ("knn", truth)):
            cells.found[f"techniques/trec6/{key}/seed {seed}"] = {
                "labels": ["a", "b"], "test": written(flags), "seconds": 2.0,
            }  # fmt: skip
    own = techniques.Options(**vars(options) | {"sets": ("trec6",), "seeds": (0, 1), "only": ("knn", "head")})
    found = techniques.Results(cells, own)
    assert found.estimate("trec6", "plain", None).mean == pytest.approx(1 - 5 / 40)
    assert found.estimate("trec6", "knn").mean == pytest.approx(5 / 40)
    assert found.line("knn")[1].startswith("**+12.5 [") or found.line("knn")[1].startswith("+12.5 [")
    assert found.line("knn")[-1] == "2.0"  # the plain run, and its own
    assert found.line("head")[1] == "…"
    assert found.line("lora")[0] == "LoRA"


def test_what_cannot_be_asked_for_is_said(options):
    with pytest.raises(InputError, match="--only magic: there is no such technique; take plain, tfidf"):
        techniques.run(techniques.Options(**vars(options) | {"only": ("magic",)}))
    with pytest.raises(InputError, match="--show prints what --out FILE holds"):
        techniques.run(techniques.Options(**vars(options) | {"show": True}))
    with pytest.raises(InputError, match="--methods magic: there is no such technique"):
        few_labels.run(few_labels.Options(methods=("magic",)))
    with pytest.raises(InputError, match="--show shows what --out FILE holds"):
        few_labels.run(few_labels.Options(show=True))


def test_few_labels(data, base, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("gptcls.train.presets.MOST", 1)
    own = few_labels.Options(
        sets=("sms",), labels=(8, 16), methods=("plain", "stack", "knn"), seeds=(0,), test=20, length=8,
        data=data, model=str(base), device="cpu", out=tmp_path / "out.json", plot=tmp_path / "few.png",
    )  # fmt: skip
    few_labels.run(own)
    heads, _, *lines = lines_of(capsys)
    assert heads[1].startswith("8 labels")
    assert [line[0].strip("| ") for line in lines] == [
        "plain run", "stacked with TF-IDF", "nearest neighbours mixed in",
    ]  # fmt: skip
    kept = json.loads(own.out.read_text())
    assert kept["few labels/sms/8/plain/seed 0"]["validation"] == ""
    assert own.plot.stat().st_size
    figure = few_labels.picture(few_labels.Cells(own.out), own)
    assert len(figure.axes[0].get_lines()) >= 2


@pytest.mark.slow
def test_every_technique_runs_where_it_is_tried(options, capsys, monkeypatch):
    monkeypatch.setattr("gptcls.train.presets.MOST", 1)
    fitting = {key: each for key, each in TECHNIQUES.items() if key != "shots"}  # longer than 64 tokens
    everything = techniques.Options(**vars(options) | {"only": tuple(fitting), "seeds": (0,)})
    techniques.run(everything)
    _, _, *lines = lines_of(capsys)
    assert len(lines) == len(fitting)
    for line, technique in zip(lines, fitting.values(), strict=True):
        for cell, name in zip(line[1:3], ("sms", "goemotions"), strict=True):
            tried = not technique.sets or name in technique.sets
            assert (cell == MISSING) is not tried, line
            assert cell != "…"
