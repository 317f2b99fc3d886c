"""A classifier to a hub on 127.0.0.1 and back, and hubs that refuse it; its card, as the hub reads it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.hub_server import Hub, serve
from helpers.tiny import ROWS, TINY, tiny_saved, write_csv

from gptcls import evaluate, load_classifier
from gptcls.classify import run as classify_verb
from gptcls.classify.store import find_classifier, read_classifier, save_classifier
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2
from gptcls.core.tasks import MultiLabel, Regression
from gptcls.evaluation.calibration import Calibration
from gptcls.evaluation.decision import Decision
from gptcls.export import run as verb
from gptcls.export.run import ExportConfig, export
from gptcls.models.gpt2_files import save_pretrained
from gptcls.train.card import card
from gptcls.train.run import Run, train

TEXTS = [text for text, _ in ROWS[:4]]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An empty hub, whose token is known; an empty cache."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    with serve({}) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(tmp_path / "harnesses"), raising=False)
        monkeypatch.setattr(
            constants, "HF_HUB_DISABLE_XET", True
        )  # Xet's servers speak a language of their own
        monkeypatch.setenv("HF_TOKEN", "hf_of_this_test")
        monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda seconds: None, time=lambda: 0.0))
        hub.token = "hf_of_this_test"
        yield hub


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on a few rows over a tiny network."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    save_pretrained(GPT2(TINY), folder / "base")
    data = write_csv(folder / "some rows.csv")
    return train(data=data, model=folder / "base", out=folder / "run", epochs=1, max_length=12)


def described(text: str) -> dict:
    """A card's metadata, as huggingface_hub reads it."""
    from huggingface_hub import ModelCard

    return ModelCard(text).data.to_dict()


def test_a_classifier_goes_there_and_is_loaded_by_its_name(hub: Hub, run: Run, run_main) -> None:
    status, out, err = run_main(verb, "--model", run.folder, "--push", "me/messages")
    assert (status, out) == (0, "")
    assert f"{hub.url}/me/messages" in err
    assert hub.private == {"me/messages": False}
    names = {name.removeprefix("me/messages/") for name in hub.files}
    assert names == {path.name for path in (run.folder / "classifier").iterdir()}
    assert names == {"classifier.json", "model.safetensors", "README.md"}
    hub.requests.clear()
    there = load_classifier("me/messages", precision="fp32")
    here = load_classifier(run.folder, precision="fp32")
    np.testing.assert_array_equal(there.predict_proba(TEXTS), here.predict_proba(TEXTS))
    assert [name for name, _ in hub.asked("GET")] == ["classifier.json", "model.safetensors"]
    hub.requests.clear()
    status, out, _ = run_main(classify_verb, "--model", "me/messages", *TEXTS)
    assert (status, len(out.splitlines())) == (0, len(TEXTS))
    data = str(run.folder.parent / "some rows.csv")
    assert evaluate(model="me/messages", data=data)["n"] == len(ROWS)
    assert hub.requests == [], "it is in the cache"


def test_a_private_one_and_one_for_transformers(hub: Hub, tmp_path: Path) -> None:
    save_classifier(tmp_path / "tiny", tiny_saved(), readme=card(tiny_saved()))
    options = {"model": str(tmp_path / "tiny"), "push": "me/plain", "private": True}
    assert export(ExportConfig(**options, to="transformers")) == f"{hub.url}/me/plain"
    assert hub.private == {"me/plain": True}
    names = {name.removeprefix("me/plain/") for name in hub.files}
    expected = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"}
    assert names == expected
    readme = hub.files["me/plain/README.md"].decode()
    assert described(readme)["library_name"] == "transformers"
    assert "load_classifier" not in readme
    assert 'pipeline("text-classification"' in readme
    # It is no classifier of ours.
    with pytest.raises(InputError, match=r"me/plain is no folder here.*no classifier.json of me/plain"):
        load_classifier("me/plain")


def test_what_was_stored_without_weights_of_this_machine_is_sent_whole(hub: Hub, base: Path, tmp_path: Path):
    run = train(
        data=write_csv(tmp_path / "rows.csv"), model=base, out=tmp_path / "run", epochs=1, train="lora"
    )
    assert json.loads((tmp_path / "run/classifier/classifier.json").read_text())["tensors"] == "adapter"
    export(ExportConfig(model=str(tmp_path / "run"), push="me/adapted"))
    expected = run.predict_proba(TEXTS)
    shutil.rmtree(base)
    np.testing.assert_allclose(load_classifier("me/adapted").predict_proba(TEXTS), expected, atol=1e-6)


def test_base_weights_that_a_stranger_names_are_asked_for_only_if_they_may(hub: Hub, base: Path, tmp_path):
    """Who names a classifier on the hub asks for it, and not for what its classifier.json names."""
    for file in base.iterdir():
        hub.files[f"others/base/{file.name}"] = file.read_bytes()
    run = train(
        data=write_csv(tmp_path / "rows.csv"),
        model="others/base",
        out=tmp_path / "run",
        epochs=1,
        train="lora",
    )
    export(ExportConfig(model=str(tmp_path / "run"), push="me/adapted", allow_download=True))
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(InputError, match=r"others/base is on the hub.*--allow-download"):
        load_classifier("me/adapted")
    there = load_classifier("me/adapted", allow_download=True)
    np.testing.assert_allclose(there.predict_proba(TEXTS), run.predict_proba(TEXTS), atol=1e-6)


@pytest.mark.parametrize(
    ("part", "status", "said"),
    [
        ("repos/create", 401, "HF_TOKEN"),
        ("repos/create", 403, "write access to me"),
        ("preupload", 403, "write access to me"),
        ("objects/batch", 413, "too large"),
        ("/large/", 413, "too large"),
        ("/commit/", 413, "too large"),
        ("validate-yaml", 500, "try again"),
        ("repos/create", 500, "try again"),
        ("/commit/", 500, "try again"),
    ],
)
def test_a_hub_that_refuses_is_one_line(part: str, status: int, said: str, hub: Hub, tmp_path, run_main):
    save_classifier(tmp_path / "tiny", tiny_saved(), readme=card(tiny_saved()))
    hub.refuse = {part: status}
    code, out, err = run_main(verb, "--model", tmp_path / "tiny", "--push", "me/messages")
    assert (code, out) == (2, "")
    line = err.splitlines()[-1]
    assert line.startswith(f"error: {hub.url} did not take me/messages")
    assert said in line
    assert not hub.files


def test_without_a_token_or_a_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    save_classifier(tmp_path / "tiny", tiny_saved())
    config = ExportConfig(model=str(tmp_path / "tiny"), push="me/messages")
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    with pytest.raises(InputError, match=r"status 401.*hf auth login"):
        export(config)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="did not take me/messages") as caught:
        export(config)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"you/theirs is no folder here, and as a classifier on the hub"):
        load_classifier("you/theirs")


@pytest.mark.parametrize("name", ["messages", "me/", "../x/y", "me/a b", "me/x/y", "me/--x", ""])
def test_a_name_that_no_repository_has_is_refused_before_anything_is_written(
    name: str, tmp_path: Path
) -> None:
    save_classifier(tmp_path / "tiny", tiny_saved())
    options = {"model": str(tmp_path / "tiny"), "to": "transformers", "out": tmp_path / "out"}
    with pytest.raises(InputError, match="owner/name"):
        export(ExportConfig(**options, push=name))
    assert not (tmp_path / "out").exists()


def test_a_folder_of_that_owner_here_is_not_looked_for_on_the_hub(hub: Hub, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(InputError, match="runs/mispelt does not exist"):
        find_classifier("runs/mispelt")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "say what to write"),
        ({"to": "transformers"}, "needs --out"),
        ({"push": "me/x", "out": Path("x")}, "--out, --int8 and --likeliest go with --to"),
        ({"to": "transformers", "out": Path("x"), "int8": True}, "--to onnx"),
        ({"to": "transformers", "out": Path("x"), "private": True}, "--private goes with --push"),
    ],
)
def test_options_that_do_not_go_together(options: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        export(ExportConfig(model="sms-spam-nano", **options))


# --- the card ---


def test_the_card_of_a_run_says_what_was_measured(run: Run) -> None:
    text = (run.folder / "classifier/README.md").read_text(encoding="utf-8")
    metadata, test = described(text), run.scores["test"]
    assert metadata["library_name"] == "gptcls"
    assert metadata["pipeline_tag"] == "text-classification"
    assert not {"license", "language", "base_model"} & metadata.keys()
    (result,) = metadata["model-index"][0]["results"]
    assert result["dataset"] == {"name": "some rows.csv", "type": "some-rows.csv", "split": "test"}
    values = {each["type"]: each["value"] for each in result["metrics"]}
    assert values == {"accuracy": round(test["accuracy"], 4), "f1": round(test["f1"], 4)}
    assert f"[{100 * test['accuracy_low']:.2f}, {100 * test['accuracy_high']:.2f}]" in text
    for name in run.baselines:
        assert name.split()[0] in text
    assert "12 tokens" in text
    assert f"{test['n']} texts in `test`" in text
    assert str(run.folder.parent) not in text, "paths of this machine are nobody's business"


def test_cards_of_other_tasks_answers_and_labels() -> None:
    saved = tiny_saved()
    assert "temperature of 2.50" in card(replace(saved, calibration=Calibration((2.5,))))
    assert "unsure" in card(replace(saved, decision=Decision(abstain=0.9)))
    assert "costs" in card(replace(saved, decision=Decision(costs=((0, 1), (5, 0)))))
    several = replace(saved, task=MultiLabel(("a", "b"), (0.25, 0.5)))
    assert "`a` 0.250, `b` 0.500" in card(several)
    assert "**Probabilities.**" not in card(replace(saved, task=Regression(("label",))))
    hostile = "`x`\n---\n# <b>\x1b[2J"
    text = card(replace(saved, task=MultiLabel((hostile, "b"))))
    assert "\n# <b>" not in text
    assert "\x1b" not in text
    described(text)
    preset = replace(saved, base={"name": "gpt2-small", "sha256": ""})
    assert described(card(preset))["base_model"] == "openai-community/gpt2"
    local = replace(saved, base={"name": "/home/someone/secret/model", "sha256": ""})
    assert "someone" not in card(local)


def test_what_people_wrote_into_a_card_is_kept(tmp_path: Path) -> None:
    saved = tiny_saved()
    text = card(saved).replace("library_name: gptcls", "library_name: gptcls\nlicense: mit")
    save_classifier(tmp_path / "tiny", saved, readme=text + "\n## Thanks\n\nto all.\n")
    export(ExportConfig(model=str(tmp_path / "tiny"), to="transformers", out=tmp_path / "out"))
    there = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert described(there)["license"] == "mit"
    assert there.endswith("## Thanks\n\nto all.\n")
    assert there.count("## How to load") == 1
    (tmp_path / "tiny/README.md").write_text("---\nlicense: [\n---\n# mine\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"README.md begins with metadata that cannot be read"):
        export(ExportConfig(model=str(tmp_path / "tiny"), to="transformers", out=tmp_path / "two"))
    assert not (tmp_path / "two").exists()


def test_the_bundled_classifiers_card_is_read_by_the_hub_too() -> None:
    folder = find_classifier("sms-spam-nano")
    metadata = described((folder / "README.md").read_text(encoding="utf-8"))
    scores = json.loads((folder / "classifier.json").read_text())["scores"]["test"]
    values = {each["type"]: each["value"] for each in metadata["model-index"][0]["results"][0]["metrics"]}
    assert values == {name: round(scores[name], 4) for name in ("accuracy", "f1")}
    assert read_classifier(folder).task.labels == ("ham", "spam")
