"""Downloading: from a hub on 127.0.0.1 that behaves, and from one that misbehaves in every way we know."""

import email.utils
import errno
import hashlib
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest
import torch
from helpers import random_bert
from helpers.hub_server import COMMIT, Hub, serve
from helpers.random_gpt2 import TINY, random_ids, transformers_gpt2
from helpers.random_llama import byte_level, oracle_of, save
from helpers.tiny import ROWS
from huggingface_hub import save_torch_state_dict

from gptcls.classify.run import ClassifyConfig
from gptcls.classify.store import SavedClassifier, read_classifier, save_classifier
from gptcls.common import cli
from gptcls.core.classifier import Classifier
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import PRESETS, GPT2Config
from gptcls.core.task import SingleLabel
from gptcls.evaluate import EvaluateConfig
from gptcls.models import hub as hub_module
from gptcls.models import pretrained
from gptcls.models.lora import freeze
from gptcls.models.pretrained import (
    OWNERS,
    Release,
    load_pretrained,
    load_tokenizer,
    weights_file,
    weights_sha256,
)
from gptcls.models.tokenizer_file import FileTokenizer
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve
from gptcls.train.rows import split_of
from gptcls.train.setup import prepare

REPO = "tests/tiny-gpt2"


@pytest.fixture(scope="module")
def oracle():
    return transformers_gpt2()


@pytest.fixture(scope="module")
def content(oracle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the repository that the hub serves."""
    folder = tmp_path_factory.mktemp("repo")
    oracle.save_pretrained(folder)
    return {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}


@pytest.fixture
def hub(content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A good hub with one repository, which is the preset gpt2-tiny, too; an empty cache; short timeouts."""
    from huggingface_hub import constants, file_download

    with serve({f"{REPO}/{name}": data for name, data in content.items()}) as hub:
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(tmp_path / "harnesses"), raising=False)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)  # what has not filled a chunk is lost
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.3)
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
        # Between its attempts at one file, http_get waits for a second.
        quick = SimpleNamespace(sleep=lambda seconds: None, time=__import__("time").time)
        monkeypatch.setattr(file_download, "time", quick)
        hub.slept = []
        monkeypatch.setattr(hub_module, "time", SimpleNamespace(sleep=hub.slept.append))
        weights = content["model.safetensors"]
        release = Release(REPO, hashlib.sha256(weights).hexdigest(), COMMIT, len(weights))
        monkeypatch.setitem(pretrained.RELEASES, "gpt2-tiny", release)
        monkeypatch.setitem(PRESETS, "gpt2-tiny", GPT2Config(**TINY))
        yield hub


def cache(tmp_path: Path) -> list[str]:
    """Everything in the cache that looks like a finished file."""
    files = (tmp_path / "cache").rglob("*")
    aside = (".locks", "refs", ".no_exist")
    return sorted(
        file.name
        for file in files
        if (file.is_file() or file.is_symlink())
        and not file.name.endswith((".incomplete", ".TAG"))
        and not any(part in aside for part in file.parts)
    )


def refused(name: str, *named: str) -> str:
    with pytest.raises(InputError) as caught:
        load_pretrained(name)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 800
    assert "huggingface_hub/" not in "".join(traceback.format_exception(caught.value))
    for part in named:
        assert part in message
    return message


def assert_loads(name: str, oracle) -> None:
    with torch.inference_mode():
        model = load_pretrained(name)
        found = model.lm_logits(model(random_ids()))
        torch.testing.assert_close(found, oracle(random_ids()).logits, rtol=0, atol=1e-4)


def assert_is_fetched_once(hub: Hub, oracle, folder: Path) -> None:
    """What a folder holds is loaded from the hub, and the second time from the cache alone."""
    for file in folder.iterdir():
        hub.files[f"{REPO}/{file.name}"] = file.read_bytes()
    assert_loads(REPO, oracle)
    hub.requests.clear()
    assert_loads(REPO, oracle)
    assert hub.requests == []


# A hub that works


@pytest.mark.parametrize("name", ["gpt2-tiny", REPO])
def test_once_then_without_any_request(hub: Hub, oracle, name: str) -> None:
    assert_loads(name, oracle)
    assert hub.asked("GET") == [("config.json", None), ("model.safetensors", None)][name != REPO :]
    hub.requests.clear()
    hub.mode = "404"
    assert_loads(name, oracle)
    assert weights_file(name).name == "model.safetensors"
    assert hub.requests == []


def test_the_cache_is_the_one_that_huggingface_hub_reads(hub: Hub, oracle) -> None:
    from huggingface_hub import hf_hub_download

    load_pretrained("gpt2-tiny")
    path = hf_hub_download(REPO, "model.safetensors", revision=COMMIT, local_files_only=True)
    assert Path(path) == weights_file("gpt2-tiny")


def test_what_huggingface_hub_downloaded_is_not_downloaded_again(hub: Hub, oracle) -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download(REPO, "model.safetensors", revision=COMMIT)
    hub.requests.clear()
    assert_loads("gpt2-tiny", oracle)
    assert hub.requests == []


def test_bytes_from_another_host(hub: Hub, oracle, tmp_path: Path) -> None:
    hub.mode = "redirects"
    assert_loads("gpt2-tiny", oracle)
    blobs = tmp_path / "cache" / f"models--{REPO.replace('/', '--')}" / "blobs"
    assert [file.name for file in blobs.iterdir()] == [weights_sha256("gpt2-tiny")]


def test_sha256(hub: Hub, content) -> None:
    expected = hashlib.sha256(content["model.safetensors"]).hexdigest()
    assert weights_sha256("gpt2-tiny") == expected
    assert hub.requests == []  # a preset's is in the table
    assert weights_sha256(REPO) == expected


def test_a_repository_with_pytorch_model_bin_only(hub: Hub, oracle, tmp_path: Path) -> None:
    del hub.files[f"{REPO}/model.safetensors"]
    torch.save(oracle.state_dict(), tmp_path / "w.bin")
    hub.files[f"{REPO}/pytorch_model.bin"] = (tmp_path / "w.bin").read_bytes()
    assert_loads(REPO, oracle)
    hub.requests.clear()
    assert_loads(REPO, oracle)
    assert hub.requests == []


def test_a_repository_with_shards(hub: Hub, oracle, tmp_path: Path) -> None:
    del hub.files[f"{REPO}/model.safetensors"]
    oracle.save_pretrained(tmp_path / "saved", max_shard_size="100KB")
    assert_is_fetched_once(hub, oracle, tmp_path / "saved")


def test_shards_of_the_older_format_and_an_adapter(hub: Hub, oracle, tmp_path: Path) -> None:
    del hub.files[f"{REPO}/model.safetensors"]
    state = {name: tensor.clone() for name, tensor in oracle.state_dict().items()}
    (tmp_path / "saved").mkdir()
    save_torch_state_dict(state, tmp_path / "saved", max_shard_size="100KB", safe_serialization=False)
    assert_is_fetched_once(hub, oracle, tmp_path / "saved")
    hub.files["tests/adapter/adapter_config.json"] = b"{}"
    refused("tests/adapter", "tests/adapter holds an adapter, not a network: lay it over its base")


def test_a_decoder_brings_its_tokenizer(hub: Hub, tmp_path: Path) -> None:
    oracle = oracle_of("qwen2")
    byte_level(["see you"], 90).save(str(save(oracle, tmp_path / "saved") / "tokenizer.json"))
    for file in (tmp_path / "saved").iterdir():
        hub.files[f"tests/tiny-qwen2/{file.name}"] = file.read_bytes()
    tokenizer = load_tokenizer("tests/tiny-qwen2")
    assert tokenizer.encode("see you") == FileTokenizer(tmp_path / "saved" / "tokenizer.json").encode(
        "see you"
    )
    assert_loads("tests/tiny-qwen2", oracle)
    hub.requests.clear()
    assert load_tokenizer("tests/tiny-qwen2").vocab_size == tokenizer.vocab_size
    assert_loads("tests/tiny-qwen2", oracle)
    assert hub.requests == []
    shutil.rmtree(tmp_path / "cache")
    del hub.files["tests/tiny-qwen2/tokenizer.json"]
    assert_loads("tests/tiny-qwen2", oracle)
    with pytest.raises(InputError, match=r"tokenizer\.json is missing"):
        load_tokenizer("tests/tiny-qwen2")


@pytest.mark.parametrize("older", [False, True])
def test_a_gpt2_brings_its_own_tokenizer(hub: Hub, oracle, tmp_path: Path, older: bool) -> None:
    """Also in the files of the time before tokenizer.json, and what is not there is asked for once."""
    tokenizer = byte_level(["привет, как дела", "see you"], 300)
    model = json.loads(tokenizer.to_str())["model"]
    merges = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in model["merges"])])
    files = {"vocab.json": json.dumps(model["vocab"]), "merges.txt": merges}
    for name, text in (files if older else {"tokenizer.json": tokenizer.to_str()}).items():
        hub.files[f"{REPO}/{name}"] = text.encode()
    found = load_tokenizer(REPO)
    assert found.encode("привет, you") == tokenizer.encode("привет, you").ids
    assert_loads(REPO, oracle)
    hub.requests.clear()
    assert load_tokenizer(REPO).encode("привет") == found.encode("привет")
    assert hub.requests == []


def test_what_the_hub_has_not_is_remembered_as_huggingface_hub_does(hub: Hub) -> None:
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

    load_pretrained(REPO)
    assert try_to_load_from_cache(REPO, "tokenizer.json") is _CACHED_NO_EXIST
    with pytest.raises(
        hub_module.NotOnHubError, match=r"the hub has no tokenizer\.json of .*, as it said before"
    ):
        hub_module.hub_file(REPO, "tokenizer.json")


def test_a_published_classifier_is_trained_on(hub: Hub, tmp_path: Path, caplog) -> None:
    labels = {"id2label": {0: "spam", 1: "ham"}, "label2id": {"spam": 0, "ham": 1}}
    model = random_bert.oracle_of("bert", vocab_size=300, **labels)
    model.save_pretrained(tmp_path / "saved")
    random_bert.wordpiece([text for text, _ in ROWS], tmp_path / "saved")
    for file in (tmp_path / "saved").iterdir():
        hub.files[f"tests/judge/{file.name}"] = file.read_bytes()
    config = resolve(TrainConfig.of(model="tests/judge", device="cpu", train="head"))
    rows = pd.DataFrame(ROWS, columns=["text", "label"])
    with caplog.at_level("INFO", "gptcls"):
        head = prepare(split_of(rows, config), config).saved.model.head
    assert "tests/judge is a classifier of these labels: its head is trained on" in caplog.text
    torch.testing.assert_close(head.weight.cpu(), model.classifier.weight[[1, 0]])


def test_a_legacy_name_finds_its_owner(hub: Hub, oracle, content, tmp_path: Path, monkeypatch) -> None:
    """As huggingface.co redirects it: tests of the names themselves would need the network."""
    hub.files |= {f"openai-community/gpt2/{name}": data for name, data in content.items()}
    assert_loads("gpt2", oracle)
    assert {path.split("/resolve/")[0] for _, path, _ in hub.requests} == {"/openai-community/gpt2"}
    assert OWNERS["bert-base-uncased"] == "google-bert"
    assert not set(OWNERS) & set(PRESETS)
    monkeypatch.chdir(tmp_path)
    oracle.save_pretrained(tmp_path / "roberta-base")  # a folder of that name comes first
    hub.requests.clear()
    assert_loads("roberta-base", oracle)
    assert hub.requests == []
    hub.mode = "404"
    with pytest.raises(InputError, match="google-bert/bert-base-cased is not a local path"):
        load_pretrained("bert-base-cased")


def test_an_unsupported_network_is_refused_before_its_weights_come(hub: Hub) -> None:
    hub.files[f"{REPO}/config.json"] = b'{"model_type": "mamba"}'
    refused(REPO, "'mamba'; supported are bert, ")
    assert hub.asked("GET") == [("config.json", None)]


def test_a_repository_without_a_config(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the weights are in the cache, it takes no network to know that there is nothing else."""
    from huggingface_hub import constants

    del hub.files[f"{REPO}/config.json"]
    path = weights_file(REPO)
    assert weights_file(REPO) == path
    hub.mode = "busy"
    assert weights_file(REPO) == path
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert weights_file(REPO) == path


def test_bytes_that_look_like_the_beginning_of_a_page(hub: Hub, oracle) -> None:
    """The first eight bytes of a safetensors file are the size of its header: here 0x3c20, " <" on disk."""
    data = hub.files[f"{REPO}/model.safetensors"]
    size = int.from_bytes(data[:8], "little")
    data = (0x3C20).to_bytes(8, "little") + data[8 : 8 + size].ljust(0x3C20) + data[8 + size :]
    assert data.lstrip().startswith(b"<")
    hub.files[f"{REPO}/model.safetensors"] = data
    assert_loads(REPO, oracle)


def test_where_there_are_no_symbolic_links(hub: Hub, oracle, tmp_path: Path, monkeypatch) -> None:
    from huggingface_hub import file_download

    monkeypatch.setattr(file_download, "are_symlinks_supported", lambda *_: False)
    assert_loads("gpt2-tiny", oracle)
    assert cache(tmp_path) == ["model.safetensors"]  # not a second copy among the blobs
    hub.requests.clear()
    assert_loads("gpt2-tiny", oracle)
    assert hub.requests == []


@pytest.mark.slow
def test_environment_and_command_line(hub: Hub, tmp_path: Path, content) -> None:
    """HF_ENDPOINT and HF_HOME, as a reader sets them; huggingface_hub reads them when it is imported."""
    code = "from gptcls.models.pretrained import weights_file; print(weights_file(%r))"
    variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    variables["TQDM_POSITION"] = "-1"  # huggingface_hub shows its progress bar without a terminal, too
    # Nothing on the way to 127.0.0.1, whatever this machine's proxy is.
    kept = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    run = [sys.executable, "-c", code % REPO]
    first = subprocess.run(run, env=kept | variables, capture_output=True, text=True, check=True)
    path = Path(first.stdout.strip())
    assert path.is_relative_to(tmp_path / "home" / "hub")
    assert path.read_bytes() == content["model.safetensors"]
    assert "model.safetensors: 100%" in first.stderr


# A hub that does not


def test_a_download_that_dies_resumes_in_the_same_call(hub: Hub, oracle) -> None:
    hub.mode, hub.keep = "dies once", 1000
    assert_loads("gpt2-tiny", oracle)
    assert hub.asked("GET") == [("model.safetensors", None), ("model.safetensors", "bytes=1000-")]


@pytest.mark.parametrize("mode", ["dies", "stalls"])
def test_a_download_that_breaks_off_resumes_in_the_next_call(
    hub: Hub, oracle, tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub.mode, hub.keep = mode, 1000
    refused("gpt2-tiny", "model.safetensors", REPO, hub.url, "try again", "HF_ENDPOINT", "pass its path")
    assert cache(tmp_path) == []
    hub.mode = "good"
    hub.requests.clear()
    with caplog.at_level(logging.INFO, "gptcls"):
        assert_loads("gpt2-tiny", oracle)
    assert hub.asked("GET") == [("model.safetensors", "bytes=1000-")]
    assert "resuming" in caplog.text


def test_ctrl_c_keeps_what_has_arrived(hub: Hub, oracle, tmp_path: Path, monkeypatch) -> None:
    from huggingface_hub import file_download

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    hub.mode, hub.keep = "dies", 1000
    with monkeypatch.context() as patch:
        patch.setattr(file_download, "time", SimpleNamespace(sleep=interrupted))
        with pytest.raises(KeyboardInterrupt):
            load_pretrained("gpt2-tiny")
    hub.mode = "good"
    hub.requests.clear()
    assert_loads("gpt2-tiny", oracle)
    assert hub.asked("GET") == [("model.safetensors", "bytes=1000-")]


def test_truncated(hub: Hub, oracle, tmp_path: Path) -> None:
    hub.mode, hub.keep = "truncated", 5000
    refused("gpt2-tiny", "model.safetensors", "5000", "try again")
    assert cache(tmp_path) == []
    hub.mode = "good"
    assert_loads("gpt2-tiny", oracle)


@pytest.mark.parametrize("name", ["gpt2-tiny", REPO])
def test_wrong_bytes(hub: Hub, oracle, tmp_path: Path, name: str) -> None:
    hub.mode = "wrong bytes"
    refused(name, "sha256", "deleted", "try again")
    assert not list((tmp_path / "cache").rglob("*.incomplete"))
    assert cache(tmp_path) == []
    hub.mode = "good"
    assert_loads(name, oracle)


def test_weights_other_than_the_published_ones(hub: Hub, content, tmp_path: Path) -> None:
    """The hub is consistent with itself, yet its file is not the one whose hash we know."""
    weights = content["model.safetensors"]
    hub.files[f"{REPO}/model.safetensors"] = weights[:-1] + bytes([weights[-1] ^ 1])
    refused("gpt2-tiny", hashlib.sha256(weights).hexdigest(), "HF_ENDPOINT")
    assert hub.asked("GET") == []
    assert cache(tmp_path) == []
    load_pretrained(REPO)  # by the name of the repository it may hold anything
    refused("gpt2-tiny", hashlib.sha256(weights).hexdigest(), "HF_ENDPOINT")


@pytest.mark.parametrize("mode", ["html", "html on get"])
def test_html_instead_of_the_file(hub: Hub, oracle, tmp_path: Path, mode: str) -> None:
    hub.mode = mode
    refused("gpt2-tiny", "login page", "HF_ENDPOINT")
    assert cache(tmp_path) == []
    assert not list((tmp_path / "cache").rglob("*.incomplete"))
    hub.mode = "good"
    assert_loads("gpt2-tiny", oracle)


def test_html_instead_of_a_config(hub: Hub, tmp_path: Path) -> None:
    load_pretrained("gpt2-tiny")
    hub.mode = "html on get"
    for _ in range(2):  # the second time it is not taken for absent
        refused(REPO, "config.json", "HTML page")
    assert "config.json" not in cache(tmp_path)


def test_404(hub: Hub, tmp_path: Path) -> None:
    hub.mode = "404"
    refused("gpt2-tiny", hub.url, REPO, "404", "HF_TOKEN")
    refused(REPO, REPO, "local path", "check the spelling")
    assert cache(tmp_path) == []


def test_no_answer_at_all(hub: Hub, tmp_path: Path) -> None:
    hub.mode = "stalls on head"
    refused("gpt2-tiny", hub.url, "try again", "HF_ENDPOINT", "pass its path")
    assert cache(tmp_path) == []


def test_busy(hub: Hub, tmp_path: Path) -> None:
    hub.mode = "busy"
    refused("gpt2-tiny", "503", "is busy", "try again later")
    assert sum(hub.slept) == 1 + 2 + 4 + 8 + 16
    assert cache(tmp_path) == []


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("named", "waits"), [("7", [7, 7]), (None, [1, 2]), ("soon", [1, 2]), ("-5", [1, 2])]
)
def test_a_busy_hub_is_asked_again_when_it_says(
    hub: Hub, oracle, status: int, named: str | None, waits: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    hub.refusals, hub.status, hub.retry_after = 2, status, named
    with caplog.at_level(logging.INFO, "gptcls"):
        assert_loads("gpt2-tiny", oracle)
    assert sum(hub.slept) == sum(waits)
    for wait in waits:
        said = f"the hub is busy (status {status}): model.safetensors of {REPO} again in {wait} s, "
        assert said + ("as it asks" if named == "7" else "since it names no time") in caplog.text


def test_the_time_to_ask_again_may_be_a_date(hub: Hub, oracle) -> None:
    hub.refusals, hub.retry_after = 1, email.utils.formatdate(time.time() + 60, usegmt=True)
    assert_loads("gpt2-tiny", oracle)
    assert 50 < sum(hub.slept) <= 60


def test_no_longer_is_waited_than_anybody_would(hub: Hub) -> None:
    hub.refusals, hub.retry_after = 1, "3600"
    refused("gpt2-tiny", "status 429", "try again in 3,600 s, as it asks", "HF_TOKEN")
    assert hub.slept == []


def test_ctrl_c_ends_the_wait(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    hub.refusals, hub.retry_after = 1, "30"
    monkeypatch.setattr(hub_module, "time", SimpleNamespace(sleep=interrupted))
    with pytest.raises(KeyboardInterrupt):
        load_pretrained("gpt2-tiny")
    assert len(hub.requests) == 1


def test_busy_when_the_bytes_are_asked_for(hub: Hub, oracle) -> None:
    hub.mode, hub.refusals, hub.status = "busy on get", 1, 503
    assert_loads("gpt2-tiny", oracle)
    assert hub.slept == [1, 0]  # whole seconds, and what is left of one
    assert hub.asked("GET") == [("model.safetensors", None)] * 2


def test_small_files_are_checked_against_gits_hash(hub: Hub, oracle, tmp_path: Path) -> None:
    hub.git_hashes = True
    assert_loads(REPO, oracle)
    path = weights_file(REPO).with_name("config.json")
    done = subprocess.run(["git", "hash-object", path.resolve()], capture_output=True, text=True, check=True)
    assert path.resolve().name == done.stdout.strip()  # what the server computed, and we checked
    shutil.rmtree(tmp_path / "cache")
    hub.mode = "wrong bytes"
    refused(REPO, "config.json", "git hash", "instead of", "it was deleted", "try again")
    assert cache(tmp_path) == []


@pytest.mark.parametrize("below", ["a file", "/proc/nowhere"])
def test_a_cache_that_cannot_be_written(hub: Hub, tmp_path: Path, monkeypatch, below: str) -> None:
    from huggingface_hub import constants

    (tmp_path / "a file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / below / "hub"))
    refused("gpt2-tiny", f"{below}", "cannot be written", "set HF_HOME to a folder that can be written")
    assert hub.asked("GET") == []


# What a stranger's classifier names


@pytest.fixture
def strangers(hub: Hub, tmp_path: Path) -> Path:
    """A classifier over the weights of a repository, without them; the cache is empty again."""
    model = Classifier(load_pretrained(REPO), 2)
    freeze(model, "last_block")
    base = {"name": REPO, "sha256": weights_sha256(REPO)}
    saved = SavedClassifier(model, SingleLabel.of(["ham", "spam"]), 16, None, base, {}, {})
    save_classifier(tmp_path / "strange", saved, full=False)
    (tmp_path / "cache").rename(tmp_path / "kept")
    hub.requests.clear()
    return tmp_path / "strange"


def test_what_a_classifier_names_is_not_asked_of_the_hub(hub: Hub, strangers: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_classifier(strangers)
    message = str(caught.value)
    for part in (
        str(strangers),
        f"{REPO} is on the hub",
        "--allow-download",
        "allow_download=True",
        "--base",
    ):
        assert part in message
    assert hub.requests == []
    options = ["--model", str(strangers), "a text"]
    for verb, more in ((ClassifyConfig, []), (EvaluateConfig, ["--data", "sms-sample"])):
        with pytest.raises(InputError, match="--allow-download"):
            parsed(verb, [*options[:2], *more]).load()
    assert hub.requests == []
    assert parsed(ClassifyConfig, ["--allow-download", *options]).load().labels == ("ham", "spam")
    assert ("model.safetensors", None) in hub.asked("GET")
    hub.requests.clear()
    read_classifier(strangers)  # now it is in the cache
    assert hub.requests == []


def test_weights_that_a_user_downloaded_serve_without_a_word(hub: Hub, strangers, tmp_path: Path) -> None:
    (tmp_path / "kept").rename(tmp_path / "cache")
    for file in (tmp_path / "cache").rglob("config.json"):
        file.unlink()  # as where somebody wanted the weights alone
    assert read_classifier(strangers).base["name"] == REPO
    assert hub.requests == []


def test_whoever_names_the_weights_may_download_them(hub: Hub, strangers: Path) -> None:
    assert read_classifier(strangers, base=REPO).base["name"] == REPO
    assert ("model.safetensors", None) in hub.asked("GET")


def test_a_preset_may_always_be_downloaded(hub: Hub, strangers: Path) -> None:
    path = strangers / "classifier.json"
    path.write_text(path.read_text(encoding="utf-8").replace(REPO, "gpt2-tiny"), encoding="utf-8")
    assert read_classifier(strangers).base["name"] == "gpt2-tiny"
    assert hub.asked("GET") == [("model.safetensors", None)]


def parsed(verb: type, arguments: list[str]):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gptcls", *arguments])
        return cli._parse(verb)


def test_unreachable(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    template = nobody + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", nobody)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    for name in ("gpt2-tiny", REPO):
        refused(name, nobody, "try again", "HF_ENDPOINT", "pass its path")


def test_offline_and_not_cached(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused("gpt2-tiny", "HF_HUB_OFFLINE", "local copy")
    assert hub.requests == []


def test_offline_and_cached(hub: Hub, oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    load_pretrained(REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert_loads(REPO, oracle)


def test_too_little_room(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    refused("gpt2-tiny", "no room", str(tmp_path / "cache"), "HF_HOME")
    assert hub.asked("GET") == []


def test_the_disk_fills_up(hub: Hub, oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import file_download

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(file_download, "http_get", full)
        refused("gpt2-tiny", "no room", "HF_HOME")
    assert cache(tmp_path) == []
    assert_loads("gpt2-tiny", oracle)


def test_a_cached_file_of_the_wrong_size_is_replaced(hub: Hub, oracle, caplog) -> None:
    load_pretrained("gpt2-tiny")
    path = weights_file("gpt2-tiny")
    path.resolve().write_bytes(b"broken")
    with caplog.at_level(logging.INFO, "gptcls"):
        assert_loads("gpt2-tiny", oracle)
    assert "downloading it again" in caplog.text


def test_a_repository_that_is_no_gpt2(hub: Hub) -> None:
    config = json.loads(hub.files[f"{REPO}/config.json"])
    hub.files[f"{REPO}/config.json"] = json.dumps({**config, "model_type": "opt"}).encode()
    refused(REPO, "model_type 'opt'")


@pytest.mark.parametrize("name", ["a--b/c", "a/b..c", "a/-b"])
def test_no_possible_name_of_a_repository(hub: Hub, name: str) -> None:
    refused(name, name)
    assert hub.requests == []


# A huggingface_hub whose inner functions are not what they were


class WithoutLock(ModuleType):
    """huggingface_hub.utils, for who imports a lock from it."""

    def __getattr__(self, name: str) -> object:
        from huggingface_hub import utils

        if name == "WeakFileLock":
            raise AttributeError(name)
        return getattr(utils, name)


@pytest.fixture(params=["missing", "another signature"])
def other_version(request, monkeypatch: pytest.MonkeyPatch) -> None:
    """For what we import; huggingface_hub itself works."""
    from huggingface_hub import utils

    hub_module._say_once.cache_clear()
    if request.param == "missing":
        monkeypatch.setitem(sys.modules, "huggingface_hub.utils", WithoutLock("huggingface_hub.utils"))
    else:
        monkeypatch.setattr(utils, "build_hf_headers", lambda *, token: {}, raising=False)


@pytest.mark.parametrize("name", ["gpt2-tiny", REPO])
def test_another_version_downloads_as_it_does_itself(other_version, hub: Hub, oracle, caplog, name) -> None:
    with caplog.at_level(logging.WARNING, "gptcls"):
        assert_loads(name, oracle)
    assert caplog.text.count("starts over") == 1
    hub.requests.clear()
    assert_loads(name, oracle)
    assert hub.requests == []


def test_another_version_is_checked_as_well(other_version, hub: Hub, oracle, content, tmp_path: Path) -> None:
    hub.mode = "wrong bytes"
    for name in ("gpt2-tiny", REPO):
        refused(name, "sha256", "deleted", "try again")
        assert "model.safetensors" not in cache(tmp_path)
    hub.mode = "html"
    refused("gpt2-tiny", "HF_ENDPOINT")
    hub.mode = "404"
    refused("gpt2-tiny", "404", "HF_TOKEN")
    hub.mode = "good"
    assert_loads("gpt2-tiny", oracle)
    weights = content["model.safetensors"]
    hub.files[f"{REPO}/model.safetensors"] = weights[:-1] + bytes([weights[-1] ^ 1])
    shutil.rmtree(tmp_path / "cache")
    refused("gpt2-tiny", hashlib.sha256(weights).hexdigest(), "HF_ENDPOINT")
