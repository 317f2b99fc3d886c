"""The console script gptcls: the verbs under one name, each imported only when it is called."""

import re
import subprocess
import sys
from importlib import import_module

import pytest

from gptcls.common import cli

START = "import sys; from gptcls.common.cli import main; main()"


def gptcls(*arguments):
    done = subprocess.run(
        [sys.executable, "-c", START, *arguments], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_help_lists_every_verb_in_a_line_each():
    status, out, err = gptcls("--help")
    assert gptcls("--help-all") == (status, out, err)
    assert (status, err) == (0, "")
    assert re.findall(r"^  (\S+) +\S", out, re.MULTILINE) == list(cli.VERBS)
    assert gptcls() == (0, out, "")


def test_version():
    from gptcls import __version__

    assert gptcls("--version") == (0, f"gptcls {__version__}\n", "")


def test_a_wrong_verb_is_one_line():
    status, out, err = gptcls("clasify", "text")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert "'clasify'" in err
    assert "classify?" in err
    status, out, err = gptcls("--frobnicate")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert all(verb in err for verb in cli.VERBS)


@pytest.mark.parametrize("verb", [*cli.VERBS, "pseudo_label"])
def test_a_verb_is_the_module_of_that_name(verb, monkeypatch, capsys):
    name = verb.replace("_", "-")
    shown = []
    for start, argv in (
        (cli.main, ["gptcls", verb, "--help-all"]),
        (import_module(cli.VERBS[name][0]).main, [f"gptcls.{name}", "--help-all"]),
    ):
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as exit_:
            start()
        assert exit_.value.code == 0
        shown.append(capsys.readouterr().out.partition("\n"))
    assert shown[0][0].startswith(f"usage: gptcls {name} [-h]")
    assert shown[0][2] == shown[1][2]


def test_mistakes_in_a_verb_name_the_way_it_was_started():
    status, _, err = gptcls("generate", "--modle", "x")
    assert (status, err.count("\n")) == (2, 1)
    assert "--modle" in err
    assert "gptcls generate --help" in err


def test_a_text_through_it_with_no_more_imports_than_it_needs():
    code = "import gc, sys; from gptcls.common import cli; cli.main()\n"
    code += "print(gc.isenabled(), gc.get_freeze_count() > 0, *sys.modules)"
    command = [sys.executable, "-c", code, "classify", "You have won a prize, text WIN to 80000"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer, (enabled, frozen, *modules) = map(str.split, done.stdout.splitlines())
    assert (answer[0], done.stderr, enabled, frozen) == ("spam", "", "True", "True")
    slow = {"pandas", "sklearn", "scipy", "matplotlib", "transformers", "torch._dynamo", "torch._inductor"}
    assert not slow & set(modules)


def test_nothing_heavy_is_imported_before_a_verb_is_known():
    code = "import sys, gptcls; from gptcls.common import cli; sys.argv[1:] = ['--help']; cli.main()"
    code += "; print(sorted({'torch', 'numpy', 'pandas', 'tyro'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
