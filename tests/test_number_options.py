"""Options that take numbers: none of them takes what is not a finite one."""

import sys

import pytest

from gptcls.common import cli
from gptcls.common.help import options_of
from gptcls.core.errors import InputError
from gptcls.distill import DistillConfig, checked
from gptcls.generate import GenerateConfig, generate_text
from gptcls.pretrain.adapt import AdaptedConfig
from gptcls.pretrain.adapt import checked as adapted
from gptcls.pretrain.config import PretrainConfig
from gptcls.pseudo_label import PseudoLabelConfig, pseudo_label
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve

VERBS = {  # what checks the options, and those that it cannot do without
    AdaptedConfig: (adapted, ["--train", "lora"]),
    PretrainConfig: (PretrainConfig.checked, ["--data", "x.txt"]),
    GenerateConfig: (generate_text, []),
    DistillConfig: (checked, ["--teacher", "sms-spam-nano", "--train", "lora"]),
    PseudoLabelConfig: (pseudo_label, ["--model", "sms-spam-nano", "--data", "x.csv", "--out", "y.csv"]),
}
FLOATS = [(verb, option.flags[0]) for verb in VERBS for option in options_of(verb) if option.kind is float]


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize(("verb", "flag"), FLOATS, ids=[f"{v.__name__} {flag}" for v, flag in FLOATS])
def test_no_option_takes_what_is_not_finite(verb, flag, value, monkeypatch, capsys):
    check, needed = VERBS[verb]
    monkeypatch.setattr(sys, "argv", ["x", *needed, f"{flag}={value}"])
    with pytest.raises(SystemExit) as stopped:
        cli.run(verb, check)
    assert stopped.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert flag.strip("-").replace("-", "_") in line.replace("-", "_")
    assert str(float(value)) in line


def test_from_python_too():
    with pytest.raises(InputError, match="--lr inf is not a finite number; choose one that is"):
        resolve(TrainConfig.of(lr=float("inf")))
    with pytest.raises(InputError, match=r"--epochs 10+ is not a finite number"):  # too large for a float
        resolve(TrainConfig.of(epochs=10**400))
