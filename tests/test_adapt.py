"""--adapt: pretraining and fine-tuning in one run, the same as one after the other."""

import json
import logging
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers.tiny import HAM, ROWS, SPAM, stopped_before, write_csv
from safetensors.torch import load_file

import gptcls.pretrain.adapt
import gptcls.pseudo_label
import gptcls.train.run
from gptcls.core.errors import InputError
from gptcls.data.same_text import text_key
from gptcls.data.split import load_split
from gptcls.pretrain.adapt import AdaptedConfig, adapt_and_train
from gptcls.pretrain.config import PretrainConfig
from gptcls.pretrain.run import pretrain
from gptcls.pseudo_label import PseudoLabelConfig, pseudo_label
from gptcls.train.config import TrainConfig
from gptcls.train.folder import state_of
from gptcls.train.run import RESULT, fit_classifier, train


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.INFO, "gptcls")
    return caplog


@pytest.fixture
def options(base, tmp_path, monkeypatch):
    monkeypatch.setattr(PretrainConfig, "batch_size", 1)  # 256 tokens a step
    texts = [f"{text}, {word}" for text in HAM + SPAM for word in ("my friend", "today", "number 9")]
    with (tmp_path / "texts.jsonl").open("w") as file:
        for text in [*texts, *(text.upper() for text, _ in ROWS)]:
            file.write(json.dumps({"text": text}) + "\n")
    return {
        "model": str(base), "data": str(write_csv(tmp_path / "rows.csv")), "device": "cpu", "epochs": 1,
        "adapt": tmp_path / "texts.jsonl", "adapt_steps": 2,
    }  # fmt: skip


def tensors(out):
    return load_file(out / RESULT / "model.safetensors")


def run(out, **options):
    return adapt_and_train(AdaptedConfig.of(out=out, **options))


def test_it_is_pretrain_and_then_train(options, tmp_path, monkeypatch, log):
    seen = []

    def spied(config):
        lines = Path(config.data[0]).read_text(encoding="utf-8").splitlines()
        seen.append((config, [json.loads(line)["text"] for line in lines]))
        return pretrain(config)

    monkeypatch.setattr(gptcls.pretrain.adapt, "pretrain", spied)
    one = run(tmp_path / "one", **options)
    ((config, read),) = seen
    split = load_split(tmp_path / "one" / "split")
    held = {text_key(text) for part in (split.validation, split.test) for text in part.text}
    assert len(held) == len(split.validation) + len(split.test) > 5
    assert not held & set(map(text_key, read)), "no text of validation or test"
    assert set(map(text_key, split.train.text)) < set(map(text_key, read))
    assert f"{len(held)} texts left out" in log.text

    assert (config.model, config.steps, config.seed) == (options["model"], 2, 123)
    base = tmp_path / "one" / "adapted" / "model"
    plain = {name: value for name, value in options.items() if not name.startswith("adapt")}
    two = train(TrainConfig.of(**plain | {"model": str(base)}, out=tmp_path / "two"))
    theirs = tensors(tmp_path / "two")
    assert theirs.keys() == (ours := tensors(tmp_path / "one")).keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    assert one.scores == two.scores
    first = "transformer.h.0.mlp.c_fc.weight"
    start = load_file(Path(options["model"]) / "model.safetensors")
    read_on = load_file(base / "model.safetensors")
    assert not torch.equal(read_on[first], start[first])
    assert not list(tmp_path.glob("one/*.jsonl"))


@pytest.mark.parametrize("phase", ["adapting", pytest.param("running", marks=pytest.mark.slow)])
def test_it_goes_on_where_it_was_stopped(options, tmp_path, phase, log):
    whole, out = run(tmp_path / "whole", **options), tmp_path / "out"
    begun = lambda: (out / "adapted" / "model").exists()  # noqa: E731
    with stopped_before(1, when=begun if phase == "running" else lambda: True):
        run(out, **options)
    assert state_of(out, RESULT) == {"adapting": "adapting", "running": "interrupted"}[phase]
    with pytest.raises(InputError, match="holds an interrupted run; add --resume"):
        run(out, **options)
    with pytest.raises(InputError, match="--lr cannot change on --resume"):
        run(out, resume=True, lr=0.5)
    log.clear()
    found = run(out, resume=True)
    assert found.scores == whole.scores
    theirs = tensors(tmp_path / "whole")
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in tensors(out).items())
    assert (f"{out / 'adapted'} goes on after 1 of 2 steps" in log.text) == (phase == "adapting")
    assert state_of(out, RESULT) == "finished"


def test_the_second_half_goes_on_with_the_whole_command_from_anywhere(options, tmp_path, monkeypatch):
    """What is taken on is what :func:`test_it_is_pretrain_and_then_train` compares: the weights read on."""
    monkeypatch.chdir(tmp_path)
    out = Path("out")
    with stopped_before(1, when=lambda: (out / "adapted" / "model").exists()):
        gptcls.train(out="out", **options)
    described = json.loads((out / "config.json").read_text())
    assert (described["options"]["model"], described["base"]["name"]) == (options["model"], "adapted/model")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="--model cannot change"):
        gptcls.train(out="../out", resume=True, **options | {"model": "gpt2-nano"})
    found = gptcls.train(out="../out", resume=True, **options)
    assert (state_of(found.folder, RESULT), found.config.model.model) == ("finished", options["model"])
    assert found.classifier.base["name"] == str(tmp_path / "out" / "adapted" / "model")

    # Rounds start from the same weights; of those that are gone they say so.
    starts = []
    monkeypatch.setattr(
        gptcls.pseudo_label, "fit_classifier",
        lambda split, config: starts.append(config.model.model) or fit_classifier(split, config),
    )  # fmt: skip
    how = {"model": str(tmp_path / "out"), "data": options["adapt"], "confidence": ("0.1",), "device": "cpu"}
    rounds = PseudoLabelConfig(**how, out=tmp_path / "sure.csv", rounds=2)
    assert len(pseudo_label(rounds)) == 2
    assert starts == [str(tmp_path / "out" / "adapted" / "model")]
    shutil.rmtree(tmp_path / "out" / "adapted")
    with pytest.raises(InputError, match="adapted/model, which is gone; put it back"):
        pseudo_label(rounds)


def test_from_python_rows_may_be_in_memory(options, tmp_path):
    rows = {"data": pd.read_csv(options["data"])}
    with stopped_before(1):
        gptcls.train(out=tmp_path / "one", **options | rows)
    with pytest.raises(InputError, match="ended before it held its rows, which were in memory"):
        gptcls.train(out=tmp_path / "one", resume=True)
    with pytest.raises(InputError, match="the rows given are not those"):
        gptcls.train(out=tmp_path / "one", resume=True, data=rows["data"][::-1].iloc[:40])
    found = gptcls.train(out=tmp_path / "one", resume=True, **rows)
    split = load_split(found.folder / "split")
    assert len(split.train) + len(split.validation) + len(split.test) == len(rows["data"])
    with pytest.raises(TypeError, match="no option 'adopt'; did you mean 'adapt'"):
        gptcls.train(adopt="texts.txt")


def test_a_text_of_several_lines_is_left_out_line_by_line(options, tmp_path, monkeypatch):
    rows = pd.DataFrame([(f"Subject {i}\n\n{text}", label) for i, (text, label) in enumerate(ROWS)])
    rows.columns = ["text", "label"]
    document = "\n".join(["before", *"\n".join(rows["text"]).upper().split("\n"), *HAM * 9])
    (tmp_path / "texts.txt").write_text(document)
    read = []
    monkeypatch.setattr(
        gptcls.pretrain.adapt, "pretrain",
        lambda config: read.append(Path(config.data[0]).read_text()) or pretrain(config),
    )  # fmt: skip
    found = gptcls.train(out=tmp_path / "out", **options | {"data": rows, "adapt": tmp_path / "texts.txt"})
    lines = {text_key(line) for line in json.loads(read[0])["text"].split("\n")}
    for part, kept in [("train", True), ("validation", False), ("test", False)]:
        for text in getattr(found.split, part).text:
            assert {text_key(line) in lines for line in text.split("\n") if line} == {kept}
    assert "before" in lines


@pytest.mark.slow
def test_lines_of_one_document_are_left_out_too(options, tmp_path, log):
    text = tmp_path / "texts.txt"
    text.write_text("\n".join([*(f"{row}!" for row, _ in ROWS), "a line of its own", *HAM * 9]))
    run(tmp_path / "out", **options | {"adapt": text})
    n = sum(len(getattr(load_split(tmp_path / "out" / "split"), part)) for part in ("validation", "test"))
    assert f"{n} texts left out" in log.text


def test_what_cannot_be_adapted_leaves_nothing(options, tmp_path):
    (tmp_path / "short.txt").write_text("hello")
    for changes, said in [
        ({"adapt": tmp_path / "none.jsonl"}, "no such file"),
        ({"adapt": tmp_path / "short.txt"}, "tokens are too few to read on in"),
        ({"adapt": tmp_path / "rows.csv", "adapt_steps": 0}, "--adapt-steps 0 is too small"),
        ({"adapt_lr": 0.0}, "--adapt-lr 0.0 is no rate"),
        ({"adapt": None}, "--adapt-steps 2 goes with --adapt"),
        ({"init": "random", "model": "gpt2-nano"}, "--init random knows nothing"),
        ({"model": str(tmp_path / "nowhere")}, "nowhere"),
        ({"model": "sms-spam-nano"}, "sms-spam-nano is a classifier"),
    ]:
        with pytest.raises(InputError, match=said):
            run(tmp_path / "out", **options | changes)
        assert not (tmp_path / "out").exists()


def test_without_it_the_command_line_trains_as_before(options, tmp_path, run_main):
    given = ["--model", options["model"], "--data", options["data"], "--epochs", 1, "--device", "cpu"]
    status, out, err = run_main(gptcls.train.run, *given, "--out", tmp_path / "x")
    assert (status, "saved in" in out) == (0, True), err
    assert "adapt" not in json.loads((tmp_path / "x" / "config.json").read_text())["options"]
