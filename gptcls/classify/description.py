"""What may stand in ``classifier.json``: a rule for every field, tried before anything is built from it."""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from gptcls.core.classifier import trained_blocks
from gptcls.core.errors import InputError
from gptcls.data.clean import CLEANERS
from gptcls.data.long_texts import CUTS
from gptcls.language.trie import begins_another
from gptcls.models.families import FAMILIES, Family, poolings_of

FORMAT_VERSION = 2
# What version 1 did not always say: before version 2 there was one tokenizer, and one way to read a text.
SINCE_VERSION_2 = {"tokenizer": None, "long": "head", "cleaning": "none"}
YOUNGER_THAN_VERSION_2 = {
    "text_columns": [], "mixture": None, "calibration": None, "decision": None, "members": 1,
    "head_bias": True, "fields": 1, "prompt": None,
}  # fmt: skip

# What each kind of task has one number per label of: its default, and what each number must exceed.
PER_LABEL: dict[str, dict[str, tuple[Any, float]]] = {
    "single_label": {"class_weights": (None, 0.0)},
    "multi_label": {"thresholds": ((), -math.inf), "positive_weights": (None, 0.0)},
    "regression": {"means": ((), -math.inf), "scales": ((), 0.0)},
}

Rule = tuple[str, Any, bool, str]  # field, its value, whether that fits, what would


def checked_description(spec: dict, folder: Path) -> dict:
    """``classifier.json``'s entries, what version 1 lacks filled in. InputError for a newer format and for a
    value that no classifier has."""
    version = spec["format_version"]
    if type(version) is int and version > FORMAT_VERSION:
        raise InputError(f"{folder} has format version {version}, newer than {FORMAT_VERSION}; update gptcls")
    if version == 1:
        spec = SINCE_VERSION_2 | spec
    spec = YOUNGER_THAN_VERSION_2 | spec
    if (family := spec["architecture"]["family"]) not in FAMILIES:
        found = f"{folder} is a {family!r} network, this gptcls reads {', '.join(FAMILIES)}"
        raise InputError(f"{found}; update it, or register your own in gptcls.models.families.FAMILIES")
    return _obeying(_rules, spec, folder)


def words_description(spec: dict, folder: Path, version: int) -> dict:
    """The same of a classifier of n-grams, up to this version of its format."""
    if type(found := spec["format_version"]) is int and found > version:
        raise InputError(f"{folder} has format version {found}, newer than {version}; update gptcls")
    return _obeying(_words_rules, {"fields": 1, **spec}, folder)


def _obeying(rules: Callable[[dict], Iterator[Rule]], spec: dict, folder: Path) -> dict:
    if (kind := spec["task"]["kind"]) not in PER_LABEL:
        raise InputError(f"{folder} has a task of kind {kind!r}, unknown to this gptcls; update gptcls")
    for field, value, fits, wanted in rules(spec):
        if not fits:
            says = f"{folder / 'classifier.json'} says {field} {value!r:.80}, which is not {wanted}"
            raise InputError(f"{says}; save or copy the classifier again")
    return spec


def _words_rules(spec: dict) -> Iterator[Rule]:
    runs = spec["runs"]
    fits = isinstance(runs, list) and len(runs) == 2 and all(_is_whole(n, 100) for n in runs)
    yield "runs", runs, fits and runs[0] <= runs[1], "how many characters a run has, at least and at most"
    yield from task_rules(spec["task"])
    yield "cleaning", spec["cleaning"], spec["cleaning"] in tuple(CLEANERS), f"one of {', '.join(CLEANERS)}"
    yield from _text_rules(spec)
    yield from _trust_rules(spec)


def _text_rules(spec: dict) -> Iterator[Rule]:
    names, n = spec["text_columns"], spec["fields"]
    fits = isinstance(names, list) and all(isinstance(name, str) for name in names)
    yield "text_columns", names, fits, "a list of names"
    yield "fields", n, _is_whole(n, 100), "a whole number from 1 to 100"


def _rules(spec: dict) -> Iterator[Rule]:
    """A rule for each field, each relying on the ones before it."""
    version, network = spec["format_version"], spec["architecture"]
    family = FAMILIES[network["family"]]
    yield "format_version", version, _is_whole(version, FORMAT_VERSION), f"1 to {FORMAT_VERSION}"
    yield from _size_rules(network, family)
    yield from task_rules(spec["task"])
    n_positions, max_length, pad_to = network["n_positions"], spec["max_length"], spec["pad_to"]
    in_range = f"a whole number from 1 to n_positions {n_positions}"
    yield "max_length", max_length, _is_whole(max_length, n_positions), in_range
    yield "pad_to", pad_to, pad_to is None or _is_whole(pad_to, n_positions), f"null or {in_range}"
    choices = {"pooling": poolings_of(family), "long": CUTS, "cleaning": CLEANERS}
    for name, known in (choices | {"tensors": ("all", "trained", "adapter")}).items():
        yield name, spec[name], spec[name] in tuple(known), f"one of {', '.join(known)}"
    yield "head_bias", spec["head_bias"], type(spec["head_bias"]) is bool, "true or false"
    yield from _prompt_rules(spec["prompt"], network.get("vocab_size", 2**31), len(spec["task"]["labels"]))
    yield from _text_rules(spec)
    yield "mixture", spec["mixture"], _is_mixture(spec["mixture"]), "null, or a weight and a temperature"
    fits = _is_whole(spec["members"], 1000) and (spec["members"] == 1 or spec["trained"] != "lora")
    yield "members", spec["members"], fits, "a whole number from 1 to 1000, of adapters 1"
    yield from _trust_rules(spec)
    stored, trained = spec["tensors"], spec["trained"]
    if stored == "adapter":
        yield "trained", trained, trained == "lora", "lora, as it is with an adapter"
    else:
        fits = _is_policy(trained, network.get("n_layer", 2**20))
        yield "trained", trained, fits, "head, last_block, last_2, … or all"
    named = stored == "all" or isinstance(spec["base"], dict)
    yield "base", spec["base"], named, "the name and sha256 of base weights, which trained tensors need"


def _prompt_rules(prompt: Any, vocab_size: int, n_labels: int) -> Iterator[Rule]:
    """Of labels as language: token ids around a text and of each label, none of which begins another."""
    if prompt is None:
        return
    names = {"prefix", "suffix", "labels", "lead", "pattern", "content_free"}
    fits = isinstance(prompt, dict) and prompt.keys() == names
    yield "prompt", prompt, fits, f"null, or {', '.join(sorted(names))}"

    def ids(value: Any) -> bool:
        return isinstance(value, list) and all(type(i) is int and 0 <= i < vocab_size for i in value)

    for name in ("prefix", "suffix"):
        yield f"prompt.{name}", prompt[name], ids(prompt[name]), "a list of token ids"
    labels, shifts = prompt["labels"], prompt["content_free"]
    fits = isinstance(labels, list) and len(labels) == n_labels and all(ids(x) and x for x in labels)
    yield "prompt.labels", labels, fits and not begins_another(labels), "token ids of each label"
    for name in ("lead", "pattern"):
        yield f"prompt.{name}", prompt[name], isinstance(prompt[name], str), "a text"
    fits = shifts is None or (isinstance(shifts, list) and len(shifts) == n_labels)
    fits = fits and all(type(x) in (int, float) and math.isfinite(x) for x in shifts or ())
    yield "prompt.content_free", shifts, fits, "null, or one number per label"


def _size_rules(network: dict, family: Family) -> Iterator[Rule]:
    """The sizes of a network, by the types in its family's dataclass; other types than these go unchecked."""
    kinds = {
        int: (lambda value: _is_whole(value, 2**20), f"a whole number from 1 to {2**20}"),
        int | None: (lambda v: v is None or _is_whole(v, 2**20), f"null or a whole number from 1 to {2**20}"),
        float: (lambda v: type(v) in (int, float) and 0 <= v < 1e300, "a number of at least 0"),
        bool: (lambda value: type(value) is bool, "true or false"),
    }
    for field in fields(family.config):
        if field.type in kinds and (field.name in network or field.default is MISSING):
            value, (fits, wanted) = network[field.name], kinds[field.type]
            yield field.name, value, fits(value), wanted


def task_rules(spec: dict) -> Iterator[Rule]:
    """A task's outputs have names of their own, and each has its numbers, where these are not the default."""
    labels, kind = spec["labels"], spec["kind"]
    least, wanted = (2, "two or more") if kind == "single_label" else (1, "one or more")
    names = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
    fits = names and least <= len(set(labels)) == len(labels)
    yield "labels", labels, fits, f"{wanted} different names"
    for field, (default, above) in PER_LABEL[kind].items():
        value = spec.get(field, default)
        fits = isinstance(value, list | tuple) and len(value) == len(labels)
        fits = fits and all(isinstance(x, int | float) and above < x < 1e300 for x in value)
        yield field, value, fits or value == default, "one number per label"
    if kind == "single_label":
        smoothing = spec.get("label_smoothing", 0.0)
        fits = isinstance(smoothing, int | float) and 0 <= smoothing < 1
        yield "label_smoothing", smoothing, fits, "a number from 0 to below 1"


def _is_whole(value: Any, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def _is_mixture(value: Any) -> bool:
    match value:
        case {"weight": int() | float() as weight, "temperature": int() | float() as temperature}:
            return 0 <= weight <= 1 and 0 < temperature < 1e300
    return value is None


def _trust_rules(spec: dict) -> Iterator[Rule]:
    kind, n = spec["task"]["kind"], len(spec["task"]["labels"])
    value, several = spec["calibration"], spec["task"]["kind"] == "multi_label"
    fits = value is None or (kind != "regression" and _is_calibration(value, n if several else 1))
    yield "calibration", value, fits, "null, or temperatures above 0 and shifts"
    value = spec["decision"]
    fits = value is None or (kind != "regression" and _is_decision(value, 0 if several else n))
    yield "decision", value, fits, "null, or costs or a threshold, and abstain"


def _is_calibration(value: Any, n: int) -> bool:
    match value:
        case {"temperatures": list() as temperatures, "shifts": list() as shifts}:
            numbers = all(type(x) in (int, float) and math.isfinite(x) for x in (*temperatures, *shifts))
            return numbers and len(temperatures) == len(shifts) == n and min(temperatures) > 0
    return False


def _is_decision(value: Any, n: int) -> bool:
    """Of ``n`` classes; of lists of labels, which have no costs, 0."""
    match value:
        case {"costs": costs, "threshold": threshold, "abstain": abstain}:
            rows = costs if isinstance(costs, list) and n else None
            cells = [x for row in rows or () if isinstance(row, list) and len(row) == n for x in row]
            fits = costs is None or len(cells) == n * len(rows or ()) == n * n > 0
            numbers = all(type(x) in (int, float) and 0 <= x < math.inf for x in cells)
            shares = [abstain, *([] if threshold is None else [threshold])]
            plain = threshold is None or (n == 2 and costs is None)
            return fits and numbers and plain and all(type(x) in (int, float) and 0 <= x <= 1 for x in shares)
    return False


def _is_policy(policy: Any, n_layer: int) -> bool:
    with suppress(InputError, TypeError):
        return trained_blocks(policy, n_layer) >= 0
    return False
