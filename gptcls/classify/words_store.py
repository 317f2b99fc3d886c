"""A classifier of n-grams as one folder: ``classifier.json``, which people can read, and the weights of its
buckets in ``words.safetensors``."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from gptcls.classify.description import words_description
from gptcls.classify.store import NO_ROOM, SavedClassifier, intact, library_versions
from gptcls.classify.words import BUCKETS, WEIGHTS, Words
from gptcls.common.files import atomic_folder, write_json
from gptcls.core.tasks import task_from_json
from gptcls.evaluation.calibration import Calibration
from gptcls.evaluation.decision import PLAIN, Decision
from gptcls.models.weight_files import saving

FORMAT_VERSION = 1
AS_THEY_ARE = ("cleaning", "text_columns", "fields", "training", "scores")  # in classifier.json


def save_words(folder: Path, saved: SavedClassifier) -> None:
    """Write ``saved``, whose model is :class:`Words`, to ``folder``; a classifier already there stays whole
    until this one is complete. InputError where it cannot be written."""
    words = saved.model
    description = {
        "format": "gptcls n-grams", "format_version": FORMAT_VERSION, "runs": words.runs,
        "task": saved.task.to_json(), **{field: getattr(saved, field) for field in AS_THEY_ARE},
        "calibration": saved.calibration and saved.calibration.to_json(),
        "decision": None if saved.decision == PLAIN else saved.decision.to_json(),
        "versions": library_versions(),
    }  # fmt: skip
    tensors = {"idf": words.idf, "coefficients": words.coefficients, "intercept": words.intercept}
    with saving("the classifier", folder, NO_ROOM), atomic_folder(folder) as temporary:
        save_file(tensors, temporary / WEIGHTS)
        write_json(temporary / "classifier.json", description)


def read_words(folder: Path) -> SavedClassifier:
    """What :func:`save_words` wrote; InputError where it is damaged or newer than this gptcls."""
    with intact(folder):
        spec = json.loads((folder / "classifier.json").read_text(encoding="utf-8"))
        spec, tensors = words_description(spec, folder, FORMAT_VERSION), load_file(folder / WEIGHTS)
        task, n = task_from_json(spec["task"]), 2 * BUCKETS
        shapes = {"idf": (n,), "coefficients": (n, task.n_outputs), "intercept": (task.n_outputs,)}
        for name, shape in shapes.items():
            if (found := tensors[name]).shape != shape or found.dtype != np.float32:
                raise ValueError(f"{name} is {found.dtype} {found.shape}, not float32 {shape}")
            if not np.isfinite(found).all():
                raise ValueError(f"{name} holds what is not a number")
        words = Words(tuple(spec["runs"]), **{name: tensors[name] for name in shapes})
        words.logits(["a text"])  # now, since what is left to find wrong is found when it is used
        calibration = spec["calibration"] and Calibration.from_json(spec["calibration"])
        decision = Decision.from_json(spec["decision"])
        own = {field: spec[field] for field in AS_THEY_ARE} | {"text_columns": tuple(spec["text_columns"])}
    return SavedClassifier(words, task, 0, None, None, calibration=calibration, decision=decision, **own)
