"""The README.md of a classifier's folder: a model card, with the metadata that the Hugging Face hub reads."""

import re
import textwrap
from pathlib import Path

from gptcls.classify.store import SavedClassifier
from gptcls.common.console import escaped
from gptcls.core.task import SingleLabel
from gptcls.core.tasks import MultiLabel
from gptcls.data.corpora import corpus_of
from gptcls.evaluation.decision import PLAIN
from gptcls.evaluation.report import scores_table
from gptcls.language.head import LabelClassifier
from gptcls.models.families import known_family
from gptcls.models.hub import is_hub_name
from gptcls.models.pretrained import OWNERS, RELEASES

SHOWN = 20  # labels
FOR_HUB = {  # a score: the hub's name of the measure, and ours
    "accuracy": ("accuracy", "accuracy"), "subset_accuracy": ("accuracy", "exact match"), "f1": ("f1", "F1"),
    "micro_f1": ("f1", "micro-F1"), "macro_f1": ("f1", "macro-F1"), "mae": ("mae", "MAE"),
    "spearman": ("spearmanr", "Spearman"),
}  # fmt: skip
READ = {  # of a text that is longer than what is read at once
    "head": "its start alone", "tail": "its end alone", "head-tail": "its start and its end",
    "windows": "all in overlapping windows",
}  # fmt: skip
LOADING = "## How to load"


def card(saved: SavedClassifier, baselines: dict[str, dict[str, dict]] | None = None) -> str:
    """What a stranger has to know: data and split, scores with intervals and those of the baselines, how far
    to believe a probability, limits, how to load. Its front matter holds what is measured or known: it has no
    license and no language, which only who trained it can say."""
    text = '"a text"' if saved.fields == 1 else "--data FILE --out FILE"
    texts = '"a text", "another"'
    if saved.fields > 1:
        texts = '("a text"' + ', "another"' * (saved.fields - 1) + ")"
    parts = [
        _front_matter(saved),
        f"# {_name(saved)}: model card",
        _what(saved),
        _data(saved),
        _scores(saved, baselines or {}),
        _believe(saved),
        _limits(saved),
        loading(
            f"gptcls classify --model FOLDER {text}",
            f"""
            from gptcls import load_classifier

            classifier = load_classifier("FOLDER")  # or owner/name on the Hugging Face hub
            classifier.predict([{texts}])
            """,
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def loading(command: str, python: str) -> str:
    """The section that says how to use what lies in the folder."""
    code = textwrap.dedent(python).strip()
    return f"{LOADING}\n\n```bash\n{command}\n```\n\n```python\n{code}\n```"


def _front_matter(saved: SavedClassifier) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    test, data = saved.scores.get("test") or {}, _data_name(saved)
    results = [
        EvalResult(
            task_type="text-classification",
            dataset_type=re.sub(r"[^\w.-]+", "-", data).strip("-").lower() or "data",
            dataset_name=data,
            dataset_split="test",
            metric_type=theirs,
            metric_name=_measured(ours, saved),
            metric_value=round(test[score], 4),
        )
        for score, (theirs, ours) in FOR_HUB.items()
        if isinstance(test.get(score), float)
    ]
    family = known_family(saved.model.backbone)
    metadata = ModelCardData(
        library_name="gptcls",
        pipeline_tag="text-classification",
        tags=["gptcls", *([family] if family else [])],
        base_model=_on_hub(saved),
        model_name=_name(saved) if results else None,
        eval_results=results or None,
    )
    return f"---\n{metadata.to_yaml()}\n---"


def _measured(name: str, saved: SavedClassifier) -> str:
    """A single label's F1 is that of the second of two classes, and of more the mean over them."""
    if name != "F1":
        return name
    return f"F1 of {_named(saved.task.labels[1])}" if len(saved.task.labels) == 2 else "macro-F1"


def _on_hub(saved: SavedClassifier) -> str | None:
    """The repository of the weights it was trained on, if they have one."""
    name = (saved.base or {}).get("name", "")
    if name in RELEASES:
        return RELEASES[name].repo
    if name in OWNERS:
        return f"{OWNERS[name]}/{name}"
    return name if is_hub_name(name) else None


def _base_name(saved: SavedClassifier) -> str:
    """Of a local file or folder the last part: the others are nobody's business."""
    name = (saved.base or {}).get("name") or f"a {known_family(saved.model.backbone) or 'network'}"
    return _on_hub(saved) or Path(name).name


def _data_name(saved: SavedClassifier) -> str:
    """Likewise."""
    data = str(saved.training.get("data", "unnamed rows"))
    found = corpus_of(data)
    return escaped(found[0] if found else Path(data).name)


def _name(saved: SavedClassifier) -> str:
    return f"{_base_name(saved).rpartition('/')[2]} on {_data_name(saved)}"


def _named(label: str) -> str:
    """A label as code, whatever it holds."""
    return f"`{escaped(label).replace('`', chr(39))}`"


def _what(saved: SavedClassifier) -> str:
    task, labels = saved.task, saved.task.labels
    names = ", ".join(map(_named, labels[:SHOWN]))
    names += f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    if isinstance(task, SingleLabel):
        gives = f"one of {len(labels)} classes: {names}"
    elif isinstance(task, MultiLabel):
        gives = f"any of {len(labels)} labels: {names}"
    else:
        gives = f"numbers: {names}" if len(labels) > 1 else "a number"
    n = 1 + len(saved.members)
    of = f"{n} networks whose probabilities are averaged, each over" if n > 1 else "A network over"
    mixed = ", its answers mixed with those of an n-gram model" if saved.mixture else ""
    if isinstance(saved.model, LabelClassifier):
        over = f"A network over {_named(_base_name(saved))}, of which `{saved.model.policy}` was trained"
        by = f"by how likely it finds each label behind the text, in {_named(saved.model.prompt.pattern)}"
        return f"**What.** It gives a text {gives}. {over}, answers {by}{mixed}."
    trained, pooling = saved.training.get("train") or saved.model.policy, saved.model.pooling
    over = f"{of} {_named(_base_name(saved))}, of which `{trained}` was trained, with a head that reads"
    what = "a text" if saved.fields == 1 else f"{saved.fields} texts that are read together"
    return f"**What.** It gives {what} {gives}. {over} `{pooling}`{mixed}."


def _data(saved: SavedClassifier) -> str:
    counts = {part: found["n"] for part, found in saved.scores.items() if "n" in found}
    text = f"**Data.** {_named(_data_name(saved))}"
    if counts:
        text += ": " + ", ".join(f"{n:,} texts in {_named(part)}" for part, n in counts.items())
    seed, files = saved.training.get("seed"), [saved.training.get(x) for x in ("validation", "test")]
    own = "; validation or test rows are those of files of their own" if any(files) else ""
    by = f", the split drawn with seed {seed}" if seed is not None and not all(files) else ""
    return f"{text}{by}{own}."


def _scores(saved: SavedClassifier, baselines: dict[str, dict[str, dict]]) -> str:
    if not saved.scores:
        return "**Scores.** It was not scored: the run was ended before."
    table = scores_table(saved.task, saved.scores, baselines)
    beside = ", beside baselines on the same texts" if baselines else ""
    said = f"**Scores**{beside}. The brackets are 95 % confidence intervals."
    return f"{said}\n\n{textwrap.indent(table, '    ', bool)}"


def _believe(saved: SavedClassifier) -> str:
    """How far to believe a probability, and when there is no answer."""
    task, test, lines = saved.task, saved.scores.get("test") or {}, []
    if not task.has_probabilities:
        return ""
    if saved.calibration is None:
        lines.append("Probabilities are as the network gives them.")
    elif isinstance(task, MultiLabel):
        lines.append("Probabilities are calibrated on validation rows, label by label.")
    else:
        t = saved.calibration.temperatures[0]
        lines.append(f"Probabilities are calibrated on validation rows, by a temperature of {t:.2f}.")
    if test.get("ece") is not None:
        interval = f"[{test['ece_low']:.3f}, {test['ece_high']:.3f}]"
        lines.append(f"Expected calibration error on the test rows: {test['ece']:.3f} {interval}.")
    if isinstance(task, MultiLabel):
        pairs = list(zip(task.labels, task.thresholds, strict=True))[:SHOWN]
        shown = ", ".join(f"{_named(label)} {at:.3f}" for label, at in pairs)
        more = ", …" if len(task.labels) > SHOWN else ""
        lines.append(f"A label is given where its probability reaches its threshold: {shown}{more}.")
    if saved.decision.costs is not None:
        lines.append("The answer is the class that costs least, by the costs in `classifier.json`.")
    if saved.decision.threshold is not None:
        at = saved.decision.threshold
        lines.append(f"{_named(task.labels[1])} is the answer where its probability is above {at:.3f}.")
    if saved.decision.abstain != PLAIN.abstain:
        lines.append(f"The answer is `unsure` where its confidence is below {saved.decision.abstain}.")
    return "**Probabilities.** " + " ".join(lines)


def _limits(saved: SavedClassifier) -> str:
    lines = [f"It reads {saved.max_length:,} tokens at once, of a longer text {READ[saved.long]}."]
    if saved.cleaning != "none":
        lines.append("White space and repeated punctuation are collapsed before it reads.")
    if saved.text_columns:
        lines.append(f"Trained on the columns {', '.join(map(_named, saved.text_columns))}.")
    classes = (saved.scores.get("test") or {}).get("per_class") or {}
    recalls = {label: row["recall"] for label, row in classes.items() if row.get("recall") is not None}
    if len(recalls) > 1:
        worst = min(recalls, key=recalls.__getitem__)
        found = f"{100 * recalls[worst]:.1f} % of the {classes[worst]['support']:,} texts of {_named(worst)}"
        lines.append(f"On the test rows it finds {found}, its weakest.")
    lines.append(
        "The scores are about texts of the same source: on others it may do worse, which "
        "`gptcls evaluate` measures. Labels that training had not are never given."
    )
    return "**Limits.** " + " ".join(lines)
