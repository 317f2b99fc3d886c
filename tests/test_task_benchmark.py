"""benchmarks.tasks runs on imitations of its data sets and prints what it measured; no figure is tested."""

import json

import pytest
from test_task_runs import WORDS, lists_of

from benchmarks import tasks


@pytest.fixture
def options(base, tmp_path):
    root = tmp_path / "data"
    for folder in ("trec6", "goemotions", "sms"):
        (root / folder).mkdir(parents=True)
    for part, n in (("train", 60), ("test", 20)):
        questions = [
            f"{name}:x what is {name} {part} {i} ?" for i in range(n // 2) for name in ("HUM", "LOC")
        ]
        (root / "trec6" / f"{part}.txt").write_text("\n".join(questions))
    (root / "goemotions" / "labels.txt").write_text("\n".join(WORDS))
    for part, n in (("train", 80), ("dev", 30), ("test", 30)):
        rows = [(f"{part} {text}", names) for text, names in lists_of(n) if names]
        ids = [",".join(str(list(WORDS).index(name)) for name in names) for _, names in rows]
        lines = [f"{text}\t{each}\tx" for (text, _), each in zip(rows, ids, strict=True)]
        (root / "goemotions" / f"{part}.tsv").write_text("\n".join(lines))
    sms = [f"{'spam' if i % 5 == 0 else 'ham'}\tmessage {i}" for i in range(60)]
    (root / "sms" / "SMSSpamCollection").write_text("\n".join(sms))
    return tasks.Options(
        data_root=root,
        model=str(base),
        epochs=1,
        max_length=8,
        seeds=(0, 1),
        device="cpu",
        only=("trec6", "goemotions", "imbalance"),
        json=tmp_path / "out.json",
    )


@pytest.mark.slow
def test_the_tables(options, capsys):
    tasks.run(options)
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith("|")]
    assert [line.split(" | ")[2] for line in lines if line.startswith(("| TREC", "| GoEmotions"))] == [
        "accuracy", "macro-F1", "macro-F1", "micro-F1",
    ]  # fmt: skip
    assert "base, pretrained (" in out
    assert [line.split(" | ")[0] for line in lines[-3:]] == ["| none", "| weights", "| undersample"]
    content = json.loads(options.json.read_text())
    assert len(content["goemotions"]) == 2
    mean = sum(each["scores"]["macro_f1"] for each in content["goemotions"]) / 2
    assert f"| macro-F1 | {100 * mean:.1f} [" in out


def test_a_part_of_the_rows(options, capsys):
    with tasks.data_of("goemotions", tasks.Options(data_root=options.data_root, rows=12)) as config:
        assert config["task"] == "multi"
        assert config["data"].endswith("train.jsonl")
        assert len(config["test"].read_text().splitlines()) == 12
    assert not config["test"].exists()
