"""python -m gptcls.pretrain: a GPT-2 learns to continue text, from random weights or further on your own.

    python -m gptcls.pretrain --init random --data novels.jsonl.gz messages.txt
    python -m gptcls.train --model runs/gpt2-nano-pretrained/model --data labelled.csv

What comes out is a folder in Hugging Face's format, which this package and ``transformers`` both load.
"""

import logging
import shlex
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gptcls import cli, report, runs
from gptcls.atomic import write_json
from gptcls.data.packing import Stream, WindowSampler, hold_out, read_documents
from gptcls.device import pick_device
from gptcls.errors import InputError
from gptcls.models.gpt2 import GPT2, PRESETS
from gptcls.models.pretrained import load_pretrained, weights_sha256
from gptcls.models.sampling import generate
from gptcls.models.save import save_pretrained
from gptcls.precision import pick_dtype
from gptcls.pretrain_config import PretrainConfig
from gptcls.tokenizer import PAD_ID, VOCAB_SIZE, decode, encode
from gptcls.training.checkpoint import load_checkpoint, save_checkpoint, try_checkpoint
from gptcls.training.loop import NonFiniteLossError, StoppedError
from gptcls.training.next_token import perplexity
from gptcls.training.pretrainer import Pretrainer, PretrainProgress, PretrainSettings

log = logging.getLogger("gptcls")
RESULT = "model"  # the folder that a finished run leaves in its own
LOOK_WINDOWS = 64  # of each file's held-out text while the run goes on
FINAL_WINDOWS = 1024  # and at its end
SAMPLE_TOKENS = 30


@dataclass(frozen=True)
class PretrainRun:
    """A finished run: its folder, the held-out perplexity of each file, the network, the history."""

    folder: Path
    perplexity: dict[str, float]
    model: GPT2
    progress: PretrainProgress


def pretrain(config: PretrainConfig) -> PretrainRun:
    """Train as ``config`` says; the weights are in ``model``, in the run's folder, in Hugging Face's format.

    Raises:
        InputError: something in the options or the data cannot be used; the line says what.
        KeyboardInterrupt: after Ctrl-C, once what is trained so far is saved.
    """
    if config.resume:
        (config, origin_then, there), folder = runs.resumed(config), config.out
    else:
        config = config.checked()
        folder = runs.new_folder(config.out, config.run_name, RESULT)
    device = pick_device(config.device)
    dtype = pick_dtype(config.precision, device)
    if dtype == torch.float16:  # its gradients would need loss scaling
        dtype = torch.float32
    here = runs.environment(device, dtype)
    model, base = _build_model(config)
    window = config.window or min(config.WINDOW, model.config.n_positions)
    if window > model.config.n_positions:
        raise InputError(f"--window {window} is longer than the {model.config.n_positions} tokens it reads")
    streams, held = _read_streams(config, window + 1)
    origin = {"weights": base, "tokens": {stream.name: len(stream.tokens) for stream in streams}}
    if config.resume:
        runs.warn_of_changes(there, here)
        if origin != origin_then:
            raise InputError(f"the text or the weights that {folder} was started with changed; put them back")
    else:
        folder = runs.claim(folder, config.out, config.run_name, RESULT)
        runs.write_config(folder, config, origin, here)
    settings = PretrainSettings(
        steps=config.steps,
        lr=config.lr,
        warmup_steps=round(config.warmup * config.steps),
        weight_decay=config.weight_decay,
        clip=config.clip,
        candidates=config.candidates,
        eval_freq=config.eval_freq,
        seed=config.seed,
    )
    shares = config.mix or [len(stream.tokens) for stream in streams]
    sampler = WindowSampler(streams, shares, window + 1, config.batch_size, config.seed)
    trainer = Pretrainer(model.to(device), sampler, settings, dtype)
    if config.resume:
        load_checkpoint(folder / "checkpoint", trainer)
    try:
        trainer.fit(
            look=lambda: _look(trainer, held, config),
            on_checkpoint=lambda: try_checkpoint(folder / "checkpoint", trainer),
        )
    except StoppedError:
        save_pretrained(trainer.model, folder / RESULT, config.save)
        save_checkpoint(folder / "checkpoint", trainer)
        where = shlex.quote(str(folder))
        log.info(f"interrupted; the weights so far: {folder / RESULT} (continue with --out {where} --resume)")
        raise
    except NonFiniteLossError as error:
        raise NonFiniteLossError(f"{error}; {folder} has what was saved before") from None
    return _finish(folder, trainer, held, config)


def _build_model(config: PretrainConfig) -> tuple[GPT2, dict | None]:
    """The network at the start, and the name and sha256 of its pretrained weights, if any."""
    torch.manual_seed(config.seed)
    if config.init == "random":
        try:
            sizes = replace(PRESETS[config.model], dropout=config.dropout, **config.sizes)
        except ValueError as error:
            raise InputError(f"{config.model} with {config.sizes}: {error}") from None
        model, base = GPT2(sizes), None
    else:
        loaded = load_pretrained(config.model)
        if not isinstance(loaded, GPT2):
            raise InputError(f"{config.model} is no GPT-2: pretraining is for these alone")
        model = GPT2(replace(loaded.config, dropout=config.dropout))
        model.load_state_dict(loaded.state_dict())
        base = {"name": config.model, "sha256": weights_sha256(config.model)}
    sizes = model.config
    if sizes.vocab_size < VOCAB_SIZE:
        raise InputError(
            f"{config.model} knows {sizes.vocab_size} tokens, GPT-2's tokenizer has {VOCAB_SIZE}; "
            "choose a model with GPT-2's vocabulary"
        )
    log.info(
        f"{config.model}: {config.init} weights, {sum(p.numel() for p in model.parameters()):,} parameters, "
        f"{sizes.n_layer} layers, width {sizes.n_embd}, {sizes.n_positions} positions"
    )
    return model, base


def _read_streams(config: PretrainConfig, length: int) -> tuple[list[Stream], dict[str, Tensor]]:
    """What is trained on, and each file's held-out windows (n, length)."""
    streams, held = [], {}
    for name in config.data:
        documents = read_documents(name, config.text_column)
        train, rest = hold_out(documents, config.held_out)
        stream, judged = Stream.of(name, train), Stream.of(name, rest)
        for part, tokens in (("", len(stream.tokens)), ("the held-out part of ", len(judged.tokens))):
            if tokens < length:
                way_out = "make --window smaller" + (" or --held-out larger" if part else "")
                raise InputError(f"{part}{name} has {tokens} tokens, a window needs {length}: {way_out}")
        streams.append(stream)
        held[name] = torch.from_numpy(judged.windows(length)[:FINAL_WINDOWS].astype(np.int64))
        log.info(
            f"{name}: {len(documents):,} documents, {len(stream.tokens):,} tokens to train on, "
            f"{len(judged.tokens):,} held out"
        )
    return streams, held


def _look(trainer: Pretrainer, held: dict[str, Tensor], config: PretrainConfig) -> dict[str, float]:
    """Held-out perplexities, and a sample of what the model writes by now, to the log."""
    progress = trainer.progress
    windows = {name: w[:LOOK_WINDOWS].to(trainer.device) for name, w in held.items()}
    found = {name: perplexity(trainer.model, w) for name, w in windows.items()}
    text = _sample(trainer, config)
    losses = progress.losses
    train_loss = f"train loss {sum(losses) / len(losses):.3f}, " if losses else ""
    log.info(
        f"step {progress.step}: {train_loss}held-out perplexity "
        + ", ".join(f"{value:,.1f} ({Path(name).name})" for name, value in found.items())
        + f'; it writes: "{" ".join(text.split())}"'
    )
    return {f"perplexity {name}": value for name, value in found.items()}


def _sample(trainer: Pretrainer, config: PretrainConfig) -> str:
    """A text by the model, from the prompt on; without one from the beginning of a document."""
    ids = torch.tensor([[PAD_ID, *encode(config.prompt)]], device=trainer.device)
    generator = torch.Generator(trainer.device).manual_seed(config.seed)
    written = generate(trainer.model, ids, SAMPLE_TOKENS, 0.8, 50, generator, eos_id=PAD_ID)[0, 1:]
    return decode(written[written != PAD_ID].tolist())


def _finish(
    folder: Path, trainer: Pretrainer, held: dict[str, Tensor], config: PretrainConfig
) -> PretrainRun:
    """Save everything, then measure the perplexity on all of the held-out windows."""
    save_pretrained(trainer.model, folder / RESULT, config.save)  # before anything else can go wrong
    progress = trainer.progress
    columns = list(dict.fromkeys(key for row in progress.history for key in row))
    report.write_history(folder / "history.csv", progress.history, columns)
    final = {name: perplexity(trainer.model, w.to(trainer.device)) for name, w in held.items()}
    write_json(
        folder / "metrics.json",
        {
            "perplexity": final,
            "held_out_tokens": {name: w[:, 1:].numel() for name, w in held.items()},
            "tokens_seen": progress.tokens_seen,
            "seconds_training": round(progress.seconds, 1),
        },
    )
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    return PretrainRun(folder, final, trainer.model, progress)


def main() -> None:
    """The command line."""
    cli.run(PretrainConfig, _pretrain_and_print)


def _pretrain_and_print(config: PretrainConfig) -> None:
    run = pretrain(config)
    rate = run.progress.tokens_seen / run.progress.seconds
    print(f"{run.progress.tokens_seen:,} tokens in {run.progress.seconds:,.0f} s, {rate:,.0f} a second")
    for name, value in run.perplexity.items():
        print(f"held-out perplexity {value:,.1f}  {name}")
    model = shlex.quote(str(run.folder / RESULT))
    print(f"saved in {run.folder}; try: python -m gptcls.train --model {model}")


if __name__ == "__main__":
    main()
