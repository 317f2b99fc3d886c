"""--help, --help-all and what is said of a wrong command line."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_type_hints

import pytest
import tyro

from gptcls.audit import AuditConfig
from gptcls.classify.run import ClassifyConfig
from gptcls.common import cli
from gptcls.common.help import ADVANCED, options_of, page
from gptcls.compare import CompareConfig
from gptcls.data.readers import FORMATS, SUFFIXES
from gptcls.distill import DistillConfig
from gptcls.evaluate import EvaluateConfig
from gptcls.explain import ExplainConfig
from gptcls.generate import GenerateConfig
from gptcls.pretrain.adapt import AdaptedConfig
from gptcls.pretrain.config import PretrainConfig
from gptcls.pseudo_label import PseudoLabelConfig
from gptcls.serve.run import ServeConfig
from gptcls.train.config import TrainConfig

CONFIGS = {
    "train": AdaptedConfig, "classify": ClassifyConfig, "evaluate": EvaluateConfig,
    "audit": AuditConfig, "compare": CompareConfig,
    "pretrain": PretrainConfig, "generate": GenerateConfig, "pseudo-label": PseudoLabelConfig,
    "explain": ExplainConfig, "serve": ServeConfig, "distill": DistillConfig,
}  # fmt: skip
LONG = "/data/a-rather-long-folder-name/and-another-one/with-a-file-name-that-no-eighty-columns-hold.csv"


@pytest.fixture
def gptcls(monkeypatch, capsys):
    """A command line in this process: status, standard output, standard error."""

    def run(verb, *arguments):
        monkeypatch.setattr(sys, "argv", ["gptcls", verb, *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        return exit_.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("verb", CONFIGS)
def test_the_options_are_those_that_tyro_parses(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")  # wider, it has two columns of groups
    forms = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    with pytest.raises(SystemExit):
        tyro.cli(CONFIGS[verb], config=forms, args=["--help"])
    lines = [line.strip("│ ") for line in capsys.readouterr().out.splitlines()]
    rows = [line.partition("  ")[0] for line in lines if line.startswith("-")]
    theirs = {flag for row in rows for flag in re.findall(r"--[a-z][a-z-]+", row)} - {"--help"}
    assert {flag for option in options_of(CONFIGS[verb]) for flag in option.flags} == theirs


@pytest.mark.parametrize("verb", CONFIGS)
def test_help_all_shows_every_option_once_with_its_text(verb, gptcls):
    status, out, err = gptcls(verb, "--help-all")
    assert (status, err) == (0, "")
    for option in options_of(CONFIGS[verb]):
        assert len(option.text) > 10, f"{option.name} has no text"
        if option.flags:
            assert len(re.findall(rf"^  {re.escape(', '.join(option.flags))}( |$)", out, re.M)) == 1
    assert not re.search(r"default: (\)|None|\(\)|False)", out)
    assert "{None}" not in out


def test_the_first_page_has_about_ten_options_and_names_the_rest(gptcls):
    for verb in ("train", "pretrain", "distill"):
        _, out, _ = gptcls(verb, "--help")
        assert 8 <= len(re.findall(r"^  --", out, re.M)) <= 12
        assert f"gptcls {verb} --help-all shows" in out
        n = int(re.search(r"shows (\d+) more", out)[1])
        assert n + len(re.findall(r"^  --", out, re.M)) == len(list(options_of(CONFIGS[verb])))
    for verb in set(CONFIGS) - {"train", "pretrain", "distill"}:
        assert gptcls(verb, "--help") == gptcls(verb, "--help-all") == gptcls(verb, "-h")


def test_groups():
    titles = re.findall(r"^(\w+):$", page(TrainConfig, "x", True), re.M)
    assert titles == ["data", "model", "training", "output", ADVANCED]
    assert re.findall(r"^(\w+):$", page(TrainConfig, "x", False), re.M) == titles[:-1]
    names = set(TrainConfig.defaults())
    groups = {"data", "model", "language", "fit", "run"}
    assert set(TrainConfig.FIRST_PAGE) <= names
    assert set(TrainConfig.GROUPS) <= names | groups
    assert set(PretrainConfig.GROUPS) - {""} <= set(PretrainConfig.defaults())


@pytest.mark.parametrize("columns", [60, 200])
def test_no_word_is_broken_and_no_line_too_long(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    for config in CONFIGS.values():
        words = page(config, "x", True).split()
        for option in options_of(config):
            assert set(option.text.split()) <= set(words)
        lines = page(config, "x", True).splitlines()
        assert max(len(line) for line in lines if not line.lstrip().startswith("-")) <= min(columns, 100)


def test_suffixes_come_from_the_readers():
    for suffix in (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx"):
        assert suffix in FORMATS
        assert suffix in SUFFIXES
    assert ".csv.gz" in SUFFIXES
    for config in CONFIGS.values():
        for option in options_of(config):
            if option.name == "data":
                assert SUFFIXES in option.text


def choices(config):
    for field in dataclasses.fields(config):
        kind = get_type_hints(config)[field.name]
        if dataclasses.is_dataclass(kind):
            yield from choices(kind)
            continue
        for each in (kind, *get_args(kind)):  # alone, or None, or several
            if getattr(each, "__origin__", None) is Literal:
                yield "--" + field.name.replace("_", "-"), get_args(each)


@pytest.mark.parametrize(
    ("verb", "flag"),
    [("train", "--balance"), ("train", "--augment"), ("classify", "--precision"), ("pretrain", "--schedule")],
)
def test_a_wrong_choice_lists_each_choice_once_in_one_line(verb, flag, gptcls):
    known, required = dict(choices(CONFIGS[verb]))[flag], ["--model", "m"]
    status, out, err = gptcls(verb, *required, flag, "smote")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err == (
        f"error: {flag} 'smote' is none of its choices: {', '.join(known)}; see gptcls {verb} --help\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--epochs", LONG], f"--epochs '{LONG}' is not a whole number"),
        (["--epochs", "1.5"], "--epochs '1.5' is not a whole number"),
        (["--lr=fast"], "--lr 'fast' is not a number"),
        (["--balance", LONG], f"--balance '{LONG}' is none of its choices"),
        (["--lr"], "--lr has no value"),
        (["--epohcs", "3"], "there is no option --epohcs; did you mean --epochs?"),
        (["--label_colum", "x"], "there is no option --label_colum; did you mean --label-column?"),
        (["--zzz"], "there is no option --zzz; see"),
        ([LONG], f"'{LONG}' follows no option that takes it"),
        (["--data", LONG], f"{LONG}: no such file"),
    ],
)
def test_other_mistakes_name_what_was_typed_unbroken(arguments, said, gptcls, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    status, out, err = gptcls("train", *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_what_is_missing(gptcls):
    assert gptcls("evaluate")[2].startswith("error: --model is missing; see")
    assert "--model is missing; did you mean --model runs/x?" in gptcls("evaluate", "runs/x")[2]
    assert "--data is missing" in gptcls("pretrain")[2]


def test_a_module_is_named_as_it_was_started_and_may_lose_its_reader():
    command = f"{sys.executable} -m gptcls.evaluate --help | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("usage: python -m gptcls.evaluate [-h] [OPTIONS]\n", "")


def test_texts_and_metavars_come_from_the_dataclass():
    options = {option.name: option for option in options_of(ClassifyConfig)}
    assert options["model"].text.startswith("Folder that gptcls.train left"), "inherited, as model: str is"
    assert options["texts"].flags == ()
    assert options["data"].flags == ("--data", "--input")
    assert options["precision"].choices == ("auto", "fp32", "bf16", "fp16", "int8")
    assert tyro.cli(ClassifyConfig, args=["--input", "x"]).data == Path("x")
