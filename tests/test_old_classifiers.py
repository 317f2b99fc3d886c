"""Folders in ``old_classifiers``, written by gptcls before its rooms were rebuilt, load and answer the same.

Tiny random networks: an adapter and trained tensors over a Qwen2 (``base``, which lay elsewhere then), a
whole Qwen2, and a GPT-2 whose vocabulary ends at 300. A test of version 1 is in ``test_store.py``.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from gptcls.classify.predict import load_classifier
from gptcls.classify.store import read_classifier, save_classifier

FOLDER = Path(__file__).parent / "old_classifiers"
ANSWERS = json.loads((FOLDER / "answers.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ANSWERS)
def test_an_old_classifier_answers_the_same(name):
    classifier, expected = load_classifier(FOLDER / name, "cpu", "fp32"), ANSWERS[name]
    for text, outputs, answer in zip(*expected.values(), strict=True):
        np.testing.assert_allclose(classifier.outputs(text), outputs, rtol=1e-4, atol=1e-5)
        assert classifier.predict(text) == (pytest.approx(answer, rel=1e-4) if name == "numbers" else answer)


@pytest.mark.parametrize("name", ANSWERS)
def test_an_old_classifier_saved_again_is_the_same(name, tmp_path):
    old = read_classifier(FOLDER / name)
    save_classifier(tmp_path / "x", old, full=old.base is None or name == "lists")
    one, two = (json.loads((f / "classifier.json").read_text()) for f in (FOLDER / name, tmp_path / "x"))
    changing, one = (
        {"versions", "base"},
        {"text_columns": [], "mixture": None, "calibration": None, "decision": None, "members": 1}
        | {"head_bias": True, "prompt": None, "fields": 1}
        | one,
    )  # which they did not name yet
    one["architecture"] = two["architecture"] | one["architecture"]  # a network has more switches by now
    assert {k: v for k, v in one.items() if k not in changing} == {
        k: v for k, v in two.items() if k not in changing
    }
    assert (one["base"] or {}).get("sha256") == (two["base"] or {}).get("sha256")
