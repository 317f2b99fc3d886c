"""The benchmarks run, count the peers' work right, and print what they measured; no figure is tested."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import benchmarks.book
from benchmarks import (
    book_command,
    finetune,
    first_answer,
    inference,
    measure,
    ours,
    scaling,
    setup,
    steps,
)
from benchmarks.book import WARM_UP, Book, Clocked, book_evaluations, book_model
from gptcls.data.book import book_split
from gptcls.data.split import make_split
from gptcls.models.pretrained import load_pretrained

pytest.importorskip("llms_from_scratch.ch06", reason="needs pip install --no-deps llms-from-scratch")
pytest.importorskip("transformers", reason="needs pip install transformers")

HAM = ["see you at home {}", "did you eat {} of them? I had some of the left over rice", "ok {}"]
SPAM = ["win {} prizes now", "claim your {} in cash, call this number before noon today", "free entry {}"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    """A file in UCI's format: 30 rows of each label, of which the book's split takes 42 / 6 / 12."""
    lines = [
        f"{label}\t{texts[i % 3].format(i)}"
        for i in range(30)
        for label, texts in (("ham", HAM), ("spam", SPAM))
    ]
    path = tmp_path_factory.mktemp("data") / "SMSSpamCollection"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return setup.random_weights("gpt2-nano", tmp_path_factory.mktemp("weights") / "nano")


@pytest.fixture(autouse=True)
def small_gemm(monkeypatch):
    monkeypatch.setattr(measure, "GEMM_SIZE", 256)


@pytest.fixture
def options(rows, weights) -> finetune.Options:
    return finetune.Options(
        model="gpt2-nano", weights=weights, data=rows, repeats=1, peer_steps=2, peer_batches=2, epochs=2
    )


class Calls:
    """Counts a network's forward passes while it trains and while it is evaluated."""

    def __init__(self, model: nn.Module) -> None:
        self.training = self.evaluating = 0
        model.register_forward_hook(self._count)

    def _count(self, module: nn.Module, *_: object) -> None:
        if module.training:
            self.training += 1
        else:
            self.evaluating += 1


def test_scaled_is_the_mean_times_the_count():
    assert measure.scaled([0.5, 1.5, 4.0], 650) == pytest.approx((0.5 + 1.5 + 4.0) / 3 * 650)
    assert measure.scaled([], 0) == 0


def test_ratio_is_the_median_of_the_turns_not_the_ratio_of_the_medians():
    row = measure.compare("x", [1.0, 4.0, 2.0], [10.0, 10.0, 30.0])
    assert row.ratios == [10.0, 2.5, 15.0]
    assert (row.seconds, row.peer_seconds, row.ratio) == (2.0, 10.0, 10.0)


def test_spread_has_the_mean_of_all():
    widths = torch.randint(10, 120, (131,), generator=torch.Generator().manual_seed(0)).tolist()
    chosen = [widths[i] for i in measure.spread(widths, 12)]
    assert sum(chosen) / 12 == pytest.approx(sum(widths) / 131, rel=0.02)
    assert sorted(measure.spread(widths, 1000)) == list(range(131))  # no more than there are


def test_clock_takes_a_mark_at_every_batch_and_at_the_end():
    clocked = Clocked([10, 20, 30], 5)
    assert list(clocked) == [10, 20, 30, 10, 20]
    assert len(clocked.passes[0]) == 6
    assert clocked.passes[0] == sorted(clocked.passes[0])


@pytest.mark.slow
@pytest.mark.parametrize("n_rows", [42, 20])
def test_book_run_in_full_makes_the_steps_and_evaluations_that_a_sample_is_scaled_to(
    options, tmp_path, monkeypatch, n_rows
):
    monkeypatch.setattr(benchmarks.book, "EVAL_FREQ", 4)
    split = book_split(options.data)
    split = replace(split, train=split.train[:n_rows])
    book = Book(options.weights, setup.book_frames(split), tmp_path)
    calls = Calls(book.model)
    n_batches = [len(loader) for loader in book.loaders]
    assert n_batches == [n_rows // 8, 1, 2]
    book.seconds(2, 0, 0, full=True)  # 10 steps or 4: three points of the loss curve, or one
    assert calls.training == 2 * n_batches[0]
    assert calls.evaluating == sum(book_evaluations(n_batches, 2))


def test_book_sample_is_scaled_by_these_counts(options, tmp_path, monkeypatch):
    book = Book(options.weights, setup.book_frames(book_split(options.data)), tmp_path)
    asked = []
    monkeypatch.setattr("benchmarks.book.scaled", lambda measured, n: asked.append((len(measured), n)) or 0.0)
    calls = Calls(book.model)
    book.seconds(3, 4, 2)
    assert calls.training == WARM_UP + 4
    losses, accuracies = book_evaluations([5, 1, 2], 3)
    assert asked == [(4, 15), (1, losses), (1, accuracies)]


@pytest.mark.slow
def test_transformers_run_in_full_makes_the_steps_and_evaluations(options, tmp_path, monkeypatch):
    peer = finetune.Race(options, options.weights, tmp_path).huggingface()
    calls = Calls(peer.model)
    peer.seconds(3, 0, 0, full=True)
    assert calls.training == 3 * 6  # 42 rows in batches of 8, the last one of 2
    assert calls.evaluating == 3 * 1 + 2 + 1 + 1  # validation an epoch; the parts in batches of 32
    asked = []
    monkeypatch.setattr(
        "benchmarks.huggingface.scaled", lambda measured, n: asked.append((len(measured), n)) or 0.0
    )
    peer.seconds(3, 4, 2)
    assert asked == [(4, calls.training - WARM_UP - 4), (2, 7)]


def test_everybody_starts_from_the_same_network(options, tmp_path):
    from transformers import GPT2Model

    ids = torch.arange(40).view(2, 20)
    stirred = shutil.copytree(options.weights, tmp_path / "stirred")
    tensors = load_file(stirred / "model.safetensors")  # biases of 0 and norms of 1 would hide a mix-up
    save_file({k: v + 0.1 * torch.randn_like(v) for k, v in tensors.items()}, stirred / "model.safetensors")
    book = book_model(stirred)
    book.out_head = nn.Identity()
    with torch.inference_mode():
        theirs = GPT2Model.from_pretrained(stirred).eval()(ids).last_hidden_state
        torch.testing.assert_close(load_pretrained(stirred)(ids), theirs, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(book(ids), theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_finetune_prints_its_table_and_writes_it(options, tmp_path, capsys):
    path = tmp_path / "finetune.json"
    finetune.run(replace(options, parts=("in-process",), json=path))
    printed = capsys.readouterr().out
    written = json.loads(path.read_text(encoding="utf-8"))
    first, *rest = written["rows"]
    assert first["what"].startswith("in process: the book / ours")
    assert first["ratio"] == pytest.approx(first["peer_seconds"] / first["seconds"])
    assert any(row["gemm_share"] and row["tokens_per_second"] for row in rest)
    for row in written["rows"]:
        assert row["what"] in printed
    assert written["machine"]["threads"] == torch.get_num_threads()
    assert written["options"]["peer_steps"] == 2
    assert set(written["gemm_peak_flops"]) >= {"fp32"}


@pytest.mark.slow
def test_steps_prints_both_sides(rows, weights, tmp_path, capsys):
    pytest.importorskip("peft", reason="needs pip install peft")
    path = tmp_path / "steps.json"
    options = steps.Options(models=("gpt2-nano",), weights=weights, data=rows, repeats=1, steps=1, json=path)
    steps.run(replace(options, parts=("time",)))
    written = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert [row["what"] for row in written] == [
        f"gpt2-nano, {what} / ours, {how}"
        for what in ("all: transformers", "lora: transformers and PEFT")
        for how in ("the default", "fp32")
    ]
    assert all(row["ratio"] > 0 for row in written)
    assert written[0]["what"] in capsys.readouterr().out


def test_share_of_the_peak_by_hand():
    results = [ours.Result(9.0, seconds, 1000, 4e12, {}, {}) for seconds in (2.0, 4.0, 1.0)]
    row = finetune.frozen_row("fp32", results, peak=4e12)
    assert (row.seconds, row.tokens_per_second, row.gemm_share) == (2.0, 500, 0.5)


def test_flops_of_a_block_are_those_torch_counts():
    """Weights alone, so the attention scores of this short text are taken off."""
    from torch.utils.flop_counter import FlopCounterMode

    from gptcls.core.gpt2 import PRESETS, Block

    block, tokens = Block(PRESETS["gpt2-nano"]), 1
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        block(torch.randn(1, tokens, PRESETS["gpt2-nano"].n_embd))
    matrices = counter.get_flop_counts()["Global"]
    assert matrices[torch.ops.aten.addmm] == ours.block_flops(PRESETS["gpt2-nano"].n_embd) * tokens


@pytest.mark.slow
@pytest.mark.parametrize("contestant", ["ours", "ours-fp32", "book", "hf"])
def test_one_contestant_alone_says_its_seconds_and_memory(options, capsys, contestant):
    finetune.run(replace(options, only=contestant))
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["seconds"] > 0
    assert figures["peak_mib"] > 100


@pytest.mark.slow
def test_book_as_a_whole_process_draws_its_pictures(options, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = f"--data {options.data} --weights {options.weights} --folder {tmp_path}/book --epochs 2"
    monkeypatch.setattr(sys, "argv", ["book_command", *arguments.split(), "--steps=2", "--eval-batches=1"])
    book_command.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["measured"] > 0
    assert figures["scaled"] > 0
    assert {path.name for path in (tmp_path / "book").glob("*.pdf")} == {"loss-plot.pdf", "accuracy-plot.pdf"}


def test_repeats_are_numbered_so_that_none_is_dropped(rows):
    split = book_split(rows)
    again = replace(split, test=split.train[:12].reset_index(drop=True))
    numbered = setup.numbered_repeats(again)
    joined = [text for _, frame in numbered.items() for text in frame["text"]]
    assert len(set(joined)) == len(joined) == 42 + 6 + 12
    assert numbered.test["text"][0] == split.train["text"][0] + " #2"
    kept = make_split(numbered.train, numbered.validation, numbered.test)
    assert [len(frame) for _, frame in kept.items()] == [42, 6, 12]


@pytest.mark.slow
def test_inference_prints_its_table_and_writes_it(options, tmp_path, capsys):
    path = tmp_path / "inference.json"
    shared = {key: getattr(options, key) for key in ("model", "weights", "data", "repeats")}
    some = {"messages": 2, "rows": 12, "parts": ("one", "many"), "peers": ("fp32", "transformers", "book")}
    inference.run(inference.Options(**shared, **some, json=path))
    printed = capsys.readouterr().out
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert [row["what"] for row in rows if row["ratio"] is None] == ["one text: gptcls", "12 texts: gptcls"]
    assert any(row["what"] == "one text: book" for row in rows)
    assert all(row["what"] in printed for row in rows)
    (theirs,) = (row for row in rows if row["what"] == "12 texts: transformers")
    assert "0 of 12 labels differ" in theirs["note"]


def test_first_answers_are_labels(options, tmp_path):
    book = Book(options.weights, setup.book_frames(book_split(options.data)), tmp_path)
    inference.save_book(book, options.weights, tmp_path)
    inference.save_ours(options.weights, tmp_path / "ours")
    assert first_answer.book(tmp_path, "win now") == book.review("win now")
    assert first_answer.ours(tmp_path / "ours", "win now") in ("ham", "spam")


@pytest.mark.parametrize("budget", [2.0, 0.0])
def test_scaling_of_one_size(options, capsys, budget):
    shared = {key: getattr(options, key) for key in ("model", "weights", "data")}
    scaling.run(scaling.Options(**shared, only=100, cache_budget=budget))
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    row = scaling.row_for(100, "in memory", figures)
    assert row.seconds == pytest.approx(figures["frozen"] + figures["epoch"])
    assert row.seconds_per_1k == pytest.approx(10 * row.seconds)
    texts = scaling.numbered_rows(options.data, 100).train["text"]
    assert texts.nunique() == len(texts) == 100
