"""``--recipe book`` against the book's own package, step by step: same weights, same data, same numbers."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from gptcls.core.tokenizer import gpt2_encoding
from gptcls.train.config import TrainConfig
from gptcls.train.run import train

ch04 = pytest.importorskip("llms_from_scratch.ch04", reason="needs pip install --no-deps llms-from-scratch")
ch06 = pytest.importorskip("llms_from_scratch.ch06", reason="needs pip install --no-deps llms-from-scratch")

TINY = {
    "vocab_size": 50257, "context_length": 1024, "emb_dim": 64, "n_heads": 2, "n_layers": 2,
    "drop_rate": 0.0, "qkv_bias": True,
}  # fmt: skip


class BookRun:
    """Chapter 6 as the book's notebook runs it, through the book's own functions."""

    def __init__(self, data: Path, weights: Path, folder: Path, epochs: int = 5) -> None:
        frame = pd.read_csv(data, sep="\t", header=None, names=["Label", "Text"])
        balanced = ch06.create_balanced_dataset(frame)
        balanced["Label"] = balanced["Label"].map({"ham": 0, "spam": 1})
        self.frames = ch06.random_split(balanced, 0.7, 0.1)
        for name, part in zip(("train", "validation", "test"), self.frames, strict=True):
            part.to_csv(folder / f"{name}.csv", index=None)
        tokenizer = gpt2_encoding()
        train_set = ch06.SpamDataset(folder / "train.csv", tokenizer, max_length=None)
        self.max_length = train_set.max_length
        val_set, test_set = (
            ch06.SpamDataset(folder / f"{name}.csv", tokenizer, max_length=self.max_length)
            for name in ("validation", "test")
        )
        torch.manual_seed(123)
        train_loader = DataLoader(train_set, batch_size=8, shuffle=True, num_workers=0, drop_last=True)
        val_loader = DataLoader(val_set, batch_size=8, num_workers=0, drop_last=False)
        test_loader = DataLoader(test_set, batch_size=8, num_workers=0, drop_last=False)
        self.n_batches = [len(loader) for loader in (train_loader, val_loader, test_loader)]

        model = ch04.GPTModel(TINY)
        model.load_state_dict(torch.load(weights, weights_only=True))
        model.eval()
        for parameter in model.parameters():
            parameter.requires_grad = False
        torch.manual_seed(123)
        model.out_head = torch.nn.Linear(TINY["emb_dim"], 2)
        for module in (model.trf_blocks[-1], model.final_norm):
            for parameter in module.parameters():
                parameter.requires_grad = True

        device = torch.device("cpu")
        loaders = (train_loader, val_loader, test_loader)
        torch.manual_seed(123)
        self.accuracies_before = [
            ch06.calc_accuracy_loader(x, model, device, num_batches=10) for x in loaders
        ]
        with torch.no_grad():
            self.losses_before = [ch06.calc_loss_loader(x, model, device, num_batches=5) for x in loaders]
        torch.manual_seed(123)
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.1)
        self.train_losses, self.val_losses, self.train_accs, self.val_accs, self.examples = (
            ch06.train_classifier_simple(
                model,
                train_loader,
                val_loader,
                optimizer,
                device,
                num_epochs=epochs,
                eval_freq=50,
                eval_iter=5,
            )
        )
        self.accuracies_after = [ch06.calc_accuracy_loader(x, model, device) for x in loaders]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The book's run and ours on the same data and the same random weights."""
    folder = tmp_path_factory.mktemp("book")
    data = Path(__file__).parents[2] / "shared" / "data" / "sms" / "SMSSpamCollection"
    if not data.exists():
        pytest.skip(f"the UCI SMS file is not at {data}")
    torch.manual_seed(7)
    model = ch04.GPTModel(TINY)
    with torch.no_grad():  # larger than the initial weights, so that errors of the converter would show
        for parameter in model.parameters():
            parameter.mul_(1.5)
    torch.save(model.state_dict(), folder / "weights.pth")
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_head": TINY["n_heads"]}))
    book = BookRun(data, folder / "weights.pth", folder)
    config = TrainConfig.of(
        model=str(folder / "weights.pth"), data=str(data), recipe="book", out=folder / "run", device="cpu"
    )
    return book, train(config), folder


@pytest.mark.slow
def test_split_files_are_equal_row_for_row(both):
    book, run, _ = both
    for name, theirs in zip(("train", "validation", "test"), book.frames, strict=True):
        ours = pd.read_csv(run.folder / "split" / f"{name}.csv", keep_default_na=False)
        assert ours["text"].tolist() == theirs["Text"].tolist()
        assert ours["label"].map({"ham": 0, "spam": 1}).tolist() == theirs["Label"].tolist()


@pytest.mark.slow
def test_every_logged_loss_matches(both):
    book, run, _ = both
    logged = [row for row in run.history if "train_loss" in row]
    assert [row["step"] for row in logged] == list(range(0, 650, 50))
    assert [row["train_loss"] for row in logged] == pytest.approx(book.train_losses, abs=1e-4)
    assert [row["val_loss"] for row in logged] == pytest.approx(book.val_losses, abs=1e-4)
    assert book.examples == 5200
    assert math.isfinite(sum(book.train_losses))
    assert book.train_losses[-1] < book.train_losses[0] - 0.05, (
        "nothing was learned: the comparison says little"
    )


@pytest.mark.slow
def test_every_logged_accuracy_matches(both):
    book, run, _ = both
    logged = [row for row in run.history if "train_accuracy" in row]
    assert [row["train_accuracy"] for row in logged] == pytest.approx(book.train_accs, abs=1e-6)
    assert [row["val_accuracy"] for row in logged] == pytest.approx(book.val_accs, abs=1e-6)


@pytest.mark.slow
def test_before_and_after_match(both):
    book, run, _ = both
    metrics = json.loads((run.folder / "metrics.json").read_text())
    before = metrics["before_training"].values()
    assert [part["accuracy"] for part in before] == pytest.approx(book.accuracies_before, abs=1e-6)
    assert [part["loss"] for part in before] == pytest.approx(book.losses_before, abs=1e-4)
    assert list(metrics["accuracy_by_loader"].values()) == pytest.approx(book.accuracies_after, abs=1e-6)


@pytest.mark.slow
def test_lengths_and_loaders_of_references(both):
    book, run, _ = both
    assert book.max_length == run.classifier.max_length == run.classifier.pad_to == 120
    assert book.n_batches == [130, 19, 38]
