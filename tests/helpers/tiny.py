"""A classifier small enough to train in a test, and data it can learn."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from gptcls.classify.store import SavedClassifier, save_classifier
from gptcls.core.batches import TextDataset, bucket_loader, plain_loader
from gptcls.core.classifier import POOLERS, Classifier
from gptcls.core.gpt2 import GPT2, GPT2Config
from gptcls.core.loop import Curves, FitSettings, Trainer
from gptcls.core.task import SingleLabel
from gptcls.models.lora import LoRAConfig, adapt, learn_adapters
from gptcls.train.hooks import BestWeights, StopOnSignal, StoppedError

TINY = GPT2Config(n_layer=3, n_embd=16, n_head=2, n_positions=64)
CPU = torch.device("cpu")
HAM = [
    "see you at home",
    "running late sorry",
    "did you eat",
    "call me after work",
    "ok thanks",
    "love you mum",
]
SPAM = [
    "win a prize now",
    "claim your cash",
    "free entry text win",
    "urgent account locked",
    "you have won",
    "buy now",
]
ROWS = [
    (f"{text} {i}", label)
    for i in range(5)
    for texts, label in ((HAM, "ham"), (SPAM, "spam"))
    for text in texts
]


def tiny_task() -> SingleLabel:
    """ham and spam."""
    return SingleLabel.of(label for _, label in ROWS)


def tiny_classifier(policy: str = "all", seed: int = 0, config: GPT2Config = TINY) -> Classifier:
    """Random weights."""
    torch.manual_seed(seed)
    model = Classifier(GPT2(config), 2)
    model.freeze(policy)
    return model


def tiny_lora(
    lora: LoRAConfig | None = None,
    targets: tuple[str, ...] = ("*",),
    backbone: GPT2 | None = None,
    seed: int = 0,
) -> Classifier:
    """A classifier with adapters of rank 3, in eval mode; no bias or B is 0, which would hide mistakes."""
    torch.manual_seed(seed)
    model = Classifier(backbone or GPT2(TINY), 2)
    adapt(model.backbone, lora or LoRAConfig(3, 6.0), targets)
    learn_adapters(model)
    with torch.no_grad():
        for parameter in model.parameters() if backbone is None else model.trained_parameters().values():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def stir(model: Classifier, scale: float = 0.2) -> Classifier:
    """``model`` with no bias 0 and no norm 1, which would hide mistakes."""
    torch.manual_seed(8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)
    return model


def tiny_saved(seed: int = 0) -> SavedClassifier:
    """A classifier as a run would save it."""
    return SavedClassifier(tiny_classifier(seed=seed).eval(), tiny_task(), 64, None, None, {"lr": 0.1}, {})


def tiny_trainer(
    policy: str = "last_2", bucketed: bool = True, config: GPT2Config = TINY, **changes
) -> Trainer:
    """A trainer over :data:`ROWS` with the hooks of a run, always the same for the same arguments."""
    settings = {
        "epochs": 4, "lr": 3e-3, "weight_decay": 0.1, "schedule": "cosine", "warmup": 0.1, "clip": 1.0,
        "accumulate": 1,
    }  # fmt: skip
    patience, eval_freq = changes.pop("patience", 2), changes.pop("eval_freq", 3)
    task = tiny_task()
    texts, labels = zip(*ROWS, strict=True)
    data = TextDataset(texts, task.targets(labels), 64)
    train_loader = bucket_loader(data, 8) if bucketed else plain_loader(data, 8, shuffle=True)
    model = tiny_classifier(policy, config=config)
    torch.manual_seed(1)
    curves = Curves(plain_loader(data, 8), eval_freq, 2, full=patience > 0)
    hooks = [curves, BestWeights(patience), StopOnSignal()]
    return Trainer(model, task, train_loader, FitSettings(**settings | changes), CPU, hooks)


def val_loader(trainer: Trainer) -> DataLoader:
    """What :func:`tiny_trainer` validates on."""
    return trainer.hooks[0].val_loader


def best(trainer: Trainer) -> BestWeights:
    """The hook that keeps the weights."""
    return trainer.hooks[1]


def set_pooling(model: Classifier, pooling: str) -> Classifier:
    """Let the classifier read something else."""
    model.pooling, model.pool = pooling, POOLERS[pooling](model.backbone.config.n_embd)
    return model


def write_csv(path: Path, rows: list[tuple[str, str]] = ROWS, header: str = "text,label") -> Path:
    """Rows as a plain CSV file."""
    path.write_text(
        "\n".join([header, *(f"{text},{label}" for text, label in rows)]) + "\n", encoding="utf-8"
    )
    return path


@contextmanager
def stopped_before(n: int, when: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """The run inside has to stop before step ``n``, or the first such ``when`` something is so, where Ctrl-C
    stops one: between two steps, not inside one."""
    call = Trainer._call

    def stop(trainer: Trainer, event: str) -> None:
        call(trainer, event)
        if event in ("on_start", "on_step") and trainer.progress.step == n and when():
            raise StoppedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_call", stop)
        with pytest.raises(StoppedError):
            yield


def run_of_sure_answers(folder: Path) -> Path:
    """``folder`` with a classifier in it, of which both labels occur and no probability is near a half."""
    saved = tiny_saved()
    with torch.no_grad():
        saved.model.head.weight.mul_(100)
    save_classifier(folder / "classifier", saved)
    return folder
