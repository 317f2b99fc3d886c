"""python -m gptcls.pretrain as a user runs it: what it learns, leaves behind, resumes and refuses."""

import json
import math
import os
import signal

import pytest
import torch
from safetensors.torch import load_file
from test_train import command, refused  # noqa: F401
from transformers import GPT2LMHeadModel

import gptcls.pretrain.run
import gptcls.train.run
from gptcls.core.errors import InputError
from gptcls.core.loop import Trainer
from gptcls.core.tokenizer import PAD_ID, encode
from gptcls.models.pretrained import load_pretrained
from gptcls.pretrain import run as pretrainer
from gptcls.pretrain.config import PretrainConfig
from gptcls.pretrain.run import pretrain
from gptcls.pretrain.text import Stream, WindowLoader

TINY = ("--n-layer", "2", "--n-embd", "16", "--n-head", "2", "--n-positions", "32")
SENTENCES = ("the cat sat on the mat", "the dog lay in the sun", "rain fell on the old town")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Something simple enough to be learnt in seconds."""
    path = tmp_path_factory.mktemp("text") / "t.jsonl"
    rows = [f"{SENTENCES[i % 3]} and {SENTENCES[(i // 3) % 3]} {i}" for i in range(300)]
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return path


def config(text, out, **changes) -> PretrainConfig:
    options = {
        "init": "random", "n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 32, "steps": 60, "lr": 0.01,
        "eval_freq": 20, "batch_size": 8, "device": "cpu", "candidates": 64, "dropout": 0.1,
    }  # fmt: skip
    return PretrainConfig(data=(str(text),), out=out, **options | changes)


@pytest.fixture(scope="module")
def run(text, tmp_path_factory):
    return pretrain(config(text, tmp_path_factory.mktemp("runs") / "x"))


def test_it_learns(run, text):
    before = run.history[0][f"perplexity {text}"]
    assert before == pytest.approx(50257, rel=0.1), "an untrained model finds every token equally likely"
    assert run.perplexity[str(text)] < before / 100


def test_what_a_run_leaves(run):
    left = sorted(str(p.relative_to(run.folder)) for p in run.folder.rglob("*") if p.is_file())
    assert left == [
        "config.json",
        "history.csv",
        "metrics.json",
        "model/config.json",
        "model/model.safetensors",
        "model/tokenizer.json",
        "model/tokenizer_config.json",
    ]
    header, *rows = (run.folder / "history.csv").read_text().splitlines()
    assert header.startswith("step,tokens,seconds,candidate_loss,perplexity ")  # not of all tokens
    assert [row.split(",")[0] for row in rows] == ["0", "20", "40", "60"]


def test_a_run_that_goes_on_holds_out_the_same_text(run, text, tmp_path):
    """Whatever its seed: else it would train on what the first was judged by."""
    changes = {"steps": 1, "seed": 7, "model": str(run.folder / "model"), "init": "pretrained"}
    sizes = dict.fromkeys(("n_layer", "n_embd", "n_head", "n_positions"))
    further = pretrain(config(text, tmp_path / "y", lr=1e-9, **changes, **sizes))
    assert further.perplexity[str(text)] == pytest.approx(run.perplexity[str(text)], rel=1e-4)


def test_transformers_and_we_load_the_same_model(run):
    ids = torch.randint(0, 50257, (2, 20), generator=torch.Generator().manual_seed(0))
    ours = load_pretrained(run.folder / "model")
    theirs, info = GPT2LMHeadModel.from_pretrained(run.folder / "model", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    with torch.no_grad():
        expected = theirs.eval()(ids).logits
        torch.testing.assert_close(ours.lm_logits(ours(ids)), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(run.model.lm_logits(run.model(ids)), expected, atol=1e-4, rtol=1e-4)


def test_transformers_reads_the_same_tokens(run):
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(run.folder / "model")
    texts = ["Every effort moves you", " two  spaces\n\n", "naïve 中文 \N{GRINNING FACE} don't we'll"]
    assert [found(text)["input_ids"] for text in texts] == [encode(text) for text in texts]
    assert found("<|endoftext|>")["input_ids"] == [PAD_ID] == [found.pad_token_id]
    assert found.model_max_length == run.model.config.n_positions


@pytest.mark.parametrize("tied", [True, False])
def test_fp16_file_and_untied_head(tmp_path, tied):
    from gptcls.core.gpt2 import GPT2, GPT2Config
    from gptcls.models.gpt2_files import save_pretrained

    torch.manual_seed(0)
    model = GPT2(GPT2Config(2, 16, 2, 32, tied=tied)).eval()
    save_pretrained(model, tmp_path / "m", "fp16")
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    ids = torch.arange(20)[None]
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path / "m", dtype=torch.float32).eval()
    ours = load_pretrained(tmp_path / "m")
    with torch.no_grad():
        torch.testing.assert_close(ours.lm_logits(ours(ids)), theirs(ids).logits, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(ours.lm_logits(ours(ids)), model.lm_logits(model(ids)), atol=1e-2, rtol=0)


def test_training_goes_on_from_a_checkpoint(run, text, tmp_path):
    further = pretrain(
        PretrainConfig(data=(str(text),), model=str(run.folder / "model"), out=tmp_path / "y", steps=5,
                       window=32, device="cpu")
    )  # fmt: skip
    start = further.history[0][f"perplexity {text}"]
    assert start == pytest.approx(run.history[-1][f"perplexity {text}"], rel=0.01)
    assert further.perplexity[str(text)] < start


def test_what_comes_out_can_be_fine_tuned(run, command, tmp_path):  # noqa: F811
    rows = "".join(f"{SENTENCES[i % 3]} {i},{'cat' if i % 3 == 0 else 'other'}\n" for i in range(60))
    (tmp_path / "rows.csv").write_text("text,label\n" + rows)
    status, _, err = command(
        gptcls.train.run,
        "--model",
        run.folder / "model",
        "--data",
        "rows.csv",
        "--epochs",
        "1",
        "--device",
        "cpu",
    )
    assert status == 0, err


def test_an_interrupted_run_continues_to_the_same_bits(run, text, tmp_path, monkeypatch):
    step = Trainer._step

    def ctrl_c_in_step_31(self, group):  # between two looks
        if self.progress.step == 30:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, group)

    monkeypatch.setattr(Trainer, "_step", ctrl_c_in_step_31)
    with pytest.raises(KeyboardInterrupt):
        pretrain(config(text, tmp_path / "cut"))
    assert load_pretrained(tmp_path / "cut" / "model").config.n_layer == 2, "what there is can be used"
    monkeypatch.undo()
    again = pretrain(PretrainConfig(out=tmp_path / "cut", resume=True))  # --data too is the run's own
    whole, resumed = (load_file(r.folder / "model" / "model.safetensors") for r in (run, again))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    drop = {"seconds"}
    for a, b in zip(run.history, again.history, strict=True):
        assert {k: v for k, v in a.items() if k not in drop} == {k: v for k, v in b.items() if k not in drop}
    assert not (tmp_path / "cut" / "checkpoint").exists()


def test_a_perplexity_that_is_not_finite_ends_the_run(text, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrainer, "perplexity", lambda *a: math.inf)
    with pytest.raises(InputError, match=r"perplexity is not finite .*--lr"):
        pretrain(config(text, tmp_path / "x"))


def test_ctrl_c_keeps_the_checkpoint_where_the_weights_cannot_be_saved(text, tmp_path, monkeypatch):
    def cannot(*_):
        raise InputError("too large for fp16")

    def ctrl_c(self, group):
        os.kill(os.getpid(), signal.SIGINT)
        return step(self, group)

    step = Trainer._step
    monkeypatch.setattr(Trainer, "_step", ctrl_c)
    monkeypatch.setattr(pretrainer, "save_pretrained", cannot)
    with pytest.raises(InputError, match="fp16"):
        pretrain(config(text, tmp_path / "x"))
    assert (tmp_path / "x" / "checkpoint" / "progress.json").exists()


def test_decay_on_matrices_only(run, text, tmp_path):
    """With a gradient of zero AdamW moves what it decays, and nothing else."""
    model = load_pretrained(run.folder / "model")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    options = config(text, tmp_path, lr=0.1, weight_decay=0.5)
    loader = WindowLoader([Stream.of("x", [SENTENCES[0] * 20])], [1], 8, 2, steps=10, seed=0)
    trainer = pretrainer._trainer(model, loader, options, torch.device("cpu"), torch.float32, [])
    for p in trainer.parameters.values():
        p.grad = torch.zeros_like(p)
    trainer.optimizer.step()
    for name, p in model.named_parameters():
        expected = before[name] * (1 - 0.1 * 0.5) if p.ndim == 2 else before[name]
        torch.testing.assert_close(p, expected)


def test_the_learning_rate_rises_and_falls(text, tmp_path):
    run = pretrain(config(text, tmp_path / "x", steps=1))
    loader = WindowLoader([Stream.of("x", [SENTENCES[0] * 20])], [1], 8, 2, steps=100, seed=0)
    options = config(text, tmp_path, steps=100, lr=2.0, warmup=0.1)
    trainer = pretrainer._trainer(run.model, loader, options, torch.device("cpu"), torch.float32, [])
    assert [trainer.lr(step) for step in (0, 9, 10)] == pytest.approx([2 / 11, 20 / 11, 2.0])  # one peak
    assert trainer.lr(55) == pytest.approx(1 + math.cos(math.pi * 45 / 90))
    assert run.tokens_seen == 8 * 32


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ("--data is missing",)),
        (("--data", "absent.txt"), ("absent.txt", "no such file")),
        (("--data", "t.txt", "--steps", "0"), ("--steps 0",)),
        (("--data", "t.txt", "--lr", "0"), ("--lr 0",)),
        (("--data", "t.txt", "--mix", "1", "2"), ("--mix 1.0 2.0", "1 files")),
        (("--data", "t.txt", "--mix", "inf"), ("--mix inf",)),
        (("--data", "same.jsonl"), ("held-out part of same.jsonl has 0 tokens",)),
        (("--data", "t.txt", "--held-out", "0"), ("--held-out 0.0",)),
        (("--data", "t.txt", "--candidates", "5"), ("--candidates 5", "or 0 for all")),
        (("--data", "t.txt", "--init", "pretrained", "--n-layer", "3"), ("--n-layer", "--init random")),
        (("--data", "t.txt", "--model", "owner/name"), ("--init random needs a preset", "owner/name")),
        (("--data", "t.txt", "--n-head", "3"), ("n_embd 16", "n_head 3")),
        (("--data", "t.txt", "--window", "33"), ("--window 33", "32 tokens")),
        (("--data", "short.txt",), ("short.txt has", "a window needs 33", "--window")),
        (("--data", "t.txt", "--held-out", "0.001"), ("held-out part of t.txt", "--held-out larger")),
        (("--data", "t.txt", "--resume"), ("--resume needs --out",)),
        (("--data", "t.txt", "--seed", "-1"), ("--seed -1",)),
    ],
)  # fmt: skip
def test_what_it_refuses(command, tmp_path, options, words):  # noqa: F811
    (tmp_path / "t.txt").write_text(" ".join(SENTENCES) * 200)
    (tmp_path / "short.txt").write_text("too short")
    (tmp_path / "same.jsonl").write_text((json.dumps({"text": " ".join(SENTENCES) * 9}) + "\n") * 3)
    refused(command(gptcls.pretrain.run, "--init", "random", *TINY, *options), *words)
    assert not (tmp_path / "runs").exists()


def test_weights_too_large_for_fp16_are_refused(run, tmp_path):
    from gptcls.models.gpt2_files import save_pretrained

    model = load_pretrained(run.folder / "model")
    model.wte.weight.data[0, 0] = 1e6
    with pytest.raises(InputError, match=r"transformer\.wte\.weight.*fp16"):
        save_pretrained(model, tmp_path / "m", "fp16")
    assert not (tmp_path / "m").exists()
