"""The fast path against the plain one: the same losses, the same predictions, and no stale feature."""

import logging
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.tiny import CPU, ROWS, TINY, set_pooling, stir, tiny_classifier, tiny_task

from gptcls.common.hardware import pick_dtype
from gptcls.core.answer import dataset_logits
from gptcls.core.batches import TextDataset, bucket_loader, pad
from gptcls.core.classifier import POOLERS, trained_blocks
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2
from gptcls.core.loop import FitSettings, Trainer
from gptcls.fast.features import FeatureCache, Means
from gptcls.fast.frozen import Answering, Autocast, Frozen, Staged, Trained
from gptcls.fast.fused import FusedBlock, can_fuse
from gptcls.fast.one_position import at
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve
from gptcls.train.rows import split_of
from gptcls.train.run import trainer_of
from gptcls.train.setup import prepare

POLICIES = ["head", "last_block", "last_2"]
IDS = [[5, 6, 7, 8, 9, 10], [11], [3, 4], [50000, 1, 2, 3]]


def stirred(policy="last_block", pooling="last", config=TINY):
    """A classifier with no bias 0 and no norm 1, which would hide mistakes."""
    model = tiny_classifier(policy, config=config)
    set_pooling(model, pooling)
    return stir(model).eval()


def data(pad_to=None):
    task = tiny_task()
    texts, labels = zip(*ROWS, strict=True)
    return TextDataset(texts, task.targets(labels), 64, pad_to)


def depth_of(model):
    return 3 - trained_blocks(model.policy, 3)


@pytest.mark.parametrize("pooling", POOLERS)
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_two_stages_equal_the_classifier(pooling, depth):
    model = stirred(pooling=pooling)
    ids, lengths = pad(IDS, pad_to=9)
    with torch.no_grad():
        expected = model(ids, lengths)
        got = Trained(model, depth)(Frozen(model, depth)(ids, lengths), lengths)
    torch.testing.assert_close(got, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("pooling", POOLERS)
def test_gradients_equal_the_classifiers(pooling):
    ids, lengths = pad(IDS)
    grads = []
    for fast in (False, True):
        model = stirred("last_block", pooling)
        logits = Trained(model, 2)(Frozen(model, 2)(ids, lengths), lengths) if fast else model(ids, lengths)
        logits.square().sum().backward()
        grads.append({name: p.grad for name, p in model.trained_parameters().items()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "position-1"])
@pytest.mark.parametrize("policy", POLICIES)
def test_losses_and_predictions_are_those_of_the_plain_loop(policy, pooling, monkeypatch):
    """In fp32, to 1e-5 a step."""
    pad_to = 16 if pooling == "position-1" else None
    losses, logits = [], []
    step = Trainer._step
    monkeypatch.setattr(
        Trainer, "_step", lambda self, group: losses[-1].append(step(self, group)) or losses[-1][-1]
    )
    for fast in (False, True):
        losses.append([])
        model = stirred(policy, pooling)
        dataset = data(pad_to)
        network = model
        if fast:
            network = Trained(model, depth_of(model))
            dataset = FeatureCache().datasets(Frozen(model, depth_of(model)), {"train": dataset}, CPU)[
                "train"
            ]
        settings = FitSettings(
            epochs=3, lr=1e-3, weight_decay=0.1, schedule="cosine", warmup=0.1, clip=1.0, accumulate=1,
        )  # fmt: skip
        torch.manual_seed(2)
        Trainer(network, tiny_task(), bucket_loader(dataset, 8), settings, CPU).fit()
        logits.append(dataset_logits(network, dataset, CPU))
    assert len(losses[0]) == len(losses[1]) == 24
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    torch.testing.assert_close(logits[1], logits[0], atol=1e-4, rtol=1e-4)
    assert torch.equal(logits[1].argmax(-1), logits[0].argmax(-1))


@pytest.mark.parametrize(
    ("policy", "pooling", "minds"),
    [("last_block", "last", False), ("last_block", "max", True), ("last_2", "last", True)],
)
def test_a_step_is_cut_by_length_only_where_padding_costs(policy, pooling, minds):
    """One block at one position: padding meets no matrix, and a second call would read all weights again."""
    rows = [(f"{text} {'again ' * 40}" if label == "spam" else text, label) for text, label in ROWS]
    how = {"train": policy, "pooling": pooling, "batch_size": 8, "device": "cpu", "precision": "fp32"}
    config = resolve(TrainConfig.of(**how))
    frame = pd.DataFrame(rows, columns=["text", "label"])
    trainer = trainer_of(prepare(split_of(frame, config), config, GPT2(TINY)))
    assert (len(trainer.parts(next(iter(trainer.train_loader)))) > 1) == minds


def test_dropout_in_the_trained_block_falls_back_to_the_plain_block():
    """The rewritten attention has no weights to drop; the plain block's, at the position, takes over."""
    model = stirred(config=replace(TINY, dropout=0.5))
    model.freeze("last_block")
    ids, lengths = pad(IDS)
    hidden = Frozen(model, 2)(ids, lengths)
    block = model.backbone.blocks[2].train()
    outputs = []
    for call in (lambda: at(block, hidden, lengths - 1), lambda: block(hidden)[torch.arange(4), lengths - 1]):
        torch.manual_seed(0)
        outputs.append(call())
    assert torch.equal(*outputs)


class Counted(Frozen):
    """Counts the rows that ran through it."""

    rows = 0

    def forward(self, ids, lengths):
        type(self).rows += len(ids)
        return super().forward(ids, lengths)


@pytest.fixture
def counted():
    Counted.rows = 0
    return Counted


def features(lower, cache, dataset=None):
    dataset = dataset or data()
    found = cache.datasets(lower, {"train": dataset}, CPU)["train"]
    return [row.clone() for row in found.features]


def test_every_distinct_text_runs_once(counted):
    model = stirred()
    texts = ["same text", "other text", "same text"]
    dataset = TextDataset(texts, torch.zeros(3, dtype=torch.int64), 64)
    parts = FeatureCache().datasets(counted(model, 2), {"train": dataset, "test": dataset}, CPU)
    assert counted.rows == 2
    assert torch.equal(parts["train"].features[0], parts["test"].features[2])
    assert [len(row) for row in parts["train"].features] == dataset.lengths


def test_a_folder_keeps_them_between_runs(tmp_path, counted):
    model = stirred()
    first = features(counted(model, 2), FeatureCache(tmp_path))
    assert counted.rows == len(ROWS)
    again = features(counted(model, 2), FeatureCache(tmp_path))
    assert counted.rows == len(ROWS), "nothing ran again"
    assert all(map(torch.equal, first, again))
    more = TextDataset(["brand new", ROWS[0][0]], torch.zeros(2, dtype=torch.int64), 64)
    features(counted(model, 2), FeatureCache(tmp_path), more)
    assert counted.rows == len(ROWS) + 1, "only the new text ran"


def other_weights(model):
    with torch.no_grad():
        model.backbone.blocks[0].mlp.fc.bias[0] += 1e-3
    return Counted(model, 2)


def other_depth(model):
    model.freeze("last_2")
    return Counted(model, 1)


def other_pooling(model):
    model.freeze("head")
    set_pooling(model, "mean")
    return Counted(model, 3)


def narrower(model):
    return Counted(model, 2, torch.bfloat16)


def other_heads(model):
    config = replace(TINY, n_head=4)
    other = stirred(model.policy, config=config)
    other.load_state_dict(model.state_dict())
    return Counted(other, 2)


def nothing_frozen(model):
    model.freeze("all")
    return other_weights(model)


@pytest.mark.parametrize(
    "change", [other_weights, other_depth, other_pooling, narrower, other_heads, nothing_frozen]
)
def test_a_stale_cache_is_never_used(tmp_path, counted, change):
    model = stirred("head" if change is other_pooling else "last_block")
    features(Counted(model, depth_of(model)), FeatureCache(tmp_path))
    before = counted.rows
    lower = change(model)
    got = features(lower, FeatureCache(tmp_path))
    assert counted.rows == 2 * before
    assert all(map(torch.equal, got, features(lower, FeatureCache())))


def test_other_padding_is_another_text(tmp_path, counted):
    model = stirred(pooling="position-1")
    short = features(counted(model, 2), FeatureCache(tmp_path), data(pad_to=12))
    long = features(counted(model, 2), FeatureCache(tmp_path), data(pad_to=20))
    assert (len(short[0]), len(long[0])) == (12, 20)


def test_trained_weights_do_not_change_the_key(tmp_path, counted):
    model = stirred()
    features(counted(model, 2), FeatureCache(tmp_path))
    with torch.no_grad():
        model.head.weight.add_(1)
        model.backbone.blocks[2].mlp.fc.weight.add_(1)
    features(counted(model, 2), FeatureCache(tmp_path))
    assert counted.rows == len(ROWS)


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_vectors_of_some_texts_are_those_of_all(pooling):
    """Made when they are asked for, as the probe's; from the plain blocks here."""
    model = stirred("head" if pooling == "mean" else "last_block", pooling)
    dataset = data()
    found = FeatureCache().datasets(Frozen(model, depth_of(model)), {"train": dataset}, CPU)["train"]
    one = []
    with torch.no_grad():
        for ids in dataset.rows:
            hidden = Frozen(model, depth_of(model))(*pad([ids]))[0]
            one.append(hidden.mean(dim=0))
    torch.testing.assert_close(found.means(), torch.stack(one), atol=1e-5, rtol=1e-4)
    assert np.array_equal(found.vectors[np.array([2, 0])], found.means()[[2, 0]].numpy())
    assert np.array_equal(Means(found, [3, 1, 2])[np.array([1, 2])], found.means()[[1, 2]].numpy())
    assert (len(found.vectors), len(Means(found, [3, 1, 2]))) == (len(dataset), 3)


def test_past_the_budget_they_lie_in_a_file(caplog):
    model = stirred()
    lower = Frozen(model, 2)
    with caplog.at_level(logging.INFO, "gptcls"):
        in_file = features(lower, FeatureCache(budget=1000))
    assert "temporary file" in caplog.text
    assert all(map(torch.equal, in_file, features(lower, FeatureCache())))


def test_an_incomplete_file_is_computed_again(tmp_path, counted, caplog):
    model = stirred()
    first = features(counted(model, 2), FeatureCache(tmp_path))
    file = next(tmp_path.rglob("*.bin"))
    with file.open("r+b") as stream:
        stream.truncate(100)
    with caplog.at_level(logging.INFO, "gptcls"):
        again = features(counted(model, 2), FeatureCache(tmp_path))
    assert "incomplete" in caplog.text
    assert counted.rows == 2 * len(ROWS)
    assert all(map(torch.equal, first, again))


def test_what_another_run_is_writing_or_left_broken_does_not_disturb(tmp_path, counted):
    model = stirred()
    first = features(counted(model, 2), FeatureCache(tmp_path))
    folder = next(tmp_path.rglob("*.bin")).parent
    (folder / ".half.1.partial.safetensors").write_bytes(b"1")
    (folder / "broken.safetensors").write_bytes(b"1")
    again = features(counted(model, 2), FeatureCache(tmp_path))
    assert counted.rows == len(ROWS)
    assert all(map(torch.equal, first, again))


def test_writing_to_features_does_not_reach_the_folder(tmp_path):
    lower = Frozen(stirred(), 2)
    first = features(lower, FeatureCache(tmp_path))
    FeatureCache(tmp_path).datasets(lower, {"train": data()}, CPU)["train"].features[0].zero_()
    assert all(map(torch.equal, first, features(lower, FeatureCache(tmp_path))))


def test_features_that_do_not_fit_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(InputError, match=r"GiB of features do not fit into .*--cache"):
        features(Frozen(stirred(), 2), FeatureCache(tmp_path))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("slow", [False, True])
def test_a_fused_block_is_the_plain_one_however_long_a_tanh_takes(slow):
    block, x = stirred().backbone.blocks[0], 3 * torch.randn(3, 9, TINY.n_embd)
    if not can_fuse(block, torch.float32):
        pytest.skip("this torch fuses nothing here")
    fused = FusedBlock(block, torch.float32)
    fused.tanh_is_slow = slow
    with torch.no_grad():
        torch.testing.assert_close(fused(x), block(x), atol=1e-5, rtol=1e-5)


def test_plain_blocks_where_nothing_can_be_fused(monkeypatch):
    model = stirred()
    ids, lengths = pad(IDS)
    fused = Frozen(model, 2)(ids, lengths)
    monkeypatch.setattr("gptcls.fast.fused.can_fuse", lambda block, dtype: False)
    torch.testing.assert_close(Frozen(model, 2)(ids, lengths), fused, atol=1e-5, rtol=1e-5)
    assert Frozen(model, 2, torch.bfloat16)(ids, lengths).dtype == torch.bfloat16


def test_an_interrupted_pass_leaves_nothing_that_counts(tmp_path, counted, monkeypatch):
    model = stirred()
    with monkeypatch.context() as patch:
        patch.setattr(Counted, "forward", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            features(counted(model, 2), FeatureCache(tmp_path))
    assert not list(tmp_path.rglob("*.bin"))
    features(counted(model, 2), FeatureCache(tmp_path))
    assert counted.rows == len(ROWS)


def test_bf16_is_close_and_trained_weights_stay_fp32():
    model = stirred()
    ids, lengths = pad(IDS)
    with torch.no_grad():
        exact = model(ids, lengths)
        narrow = Staged(model, torch.bfloat16)(ids, lengths)
    assert narrow.dtype == torch.float32
    assert 0 < (narrow - exact).abs().max() < 0.1
    assert all(p.dtype == torch.float32 for p in model.parameters())
    blocks = Frozen(model, 2, torch.bfloat16).blocks
    assert all(p.dtype == torch.bfloat16 for p in blocks.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pooling", ["last", "first", "mean", "max"])
def test_a_run_that_keeps_features_scores_with_the_bits_of_its_classifier(pooling, dtype):
    model, (ids, lengths) = stirred(pooling=pooling), pad(IDS)
    several = pooling in ("mean", "max")
    with torch.no_grad():
        expected = Staged(model, dtype)(ids, lengths)
        for depth in range(4 if several and dtype != torch.float32 else 3):
            got = Answering(model, depth, dtype)(Frozen(model, depth, dtype)(ids, lengths), lengths)
            assert torch.equal(got, expected), depth
    close = {"atol": 2e-6, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0}
    torch.testing.assert_close(expected, model(ids, lengths), **close)


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
@pytest.mark.parametrize(
    ("dtype", "int8"), [(torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)]
)
def test_the_last_block_is_narrow_where_all_its_positions_are_read(pooling, dtype, int8):
    if int8:
        pytest.importorskip("torchao", reason="needs pip install 'gptcls[int8]'")
    narrow = pooling != "last" and dtype == torch.bfloat16 and not int8
    assert len(Staged(stirred(pooling=pooling), dtype, int8).above.between.blocks) == 2 + narrow


def test_int8_weights_are_close():
    pytest.importorskip("torchao", reason="needs pip install 'gptcls[int8]'")
    model = stirred()
    ids, lengths = pad(IDS)
    with torch.no_grad():
        exact = model(ids, lengths)
        narrow = Staged(model, torch.float32, int8=True)(ids, lengths)
    assert 0 < (narrow - exact).abs().max() < 0.3
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_int8_without_torchao_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(InputError, match=r"gptcls\[int8\]"):
        Staged(stirred(), torch.float32, int8=True)


def test_autocast_keeps_names_and_gradients():
    model = stirred()
    network = Autocast(Trained(model, 2), torch.bfloat16)
    ids, lengths = pad(IDS)
    logits = network(Frozen(model, 2)(ids, lengths), lengths)
    assert logits.dtype == torch.float32
    logits.sum().backward()
    trained = [name for name, p in network.named_parameters() if p.requires_grad]
    assert trained == [f"network.classifier.{name}" for name in model.trained_parameters()]
    assert all(p.grad.dtype == torch.float32 for p in model.trained_parameters().values())


def test_pick_dtype():
    assert pick_dtype("fp32", CPU) == torch.float32
    assert pick_dtype("bf16", CPU) == torch.bfloat16
    assert pick_dtype("auto", CPU) in (torch.float32, torch.bfloat16)
    with pytest.raises(InputError, match="GPU"):
        pick_dtype("fp16", CPU)
    with pytest.raises(InputError, match="using a classifier"):
        pick_dtype("int8", CPU)
    with pytest.raises(InputError, match="int3"):
        pick_dtype("int3", CPU)


@pytest.mark.slow
def test_the_compiled_trained_stage_gives_the_same():
    model = stirred()
    ids, lengths = pad(IDS)
    expected = model(ids, lengths)
    trained = Trained(model, 2)
    trained.compile(dynamic=True)
    torch.testing.assert_close(
        trained(Frozen(model, 2)(ids, lengths), lengths), expected, atol=1e-5, rtol=1e-5
    )


def test_a_cache_that_is_a_file_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--cache .*file is a file; name a folder"):
        resolve(TrainConfig.of(cache=tmp_path / "file"))
