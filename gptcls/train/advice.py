"""What would probably help a finished run most: the first of a few rules that its scores fit.

The rules look at training and validation rows alone, so whoever follows them does not choose by test rows.
"""

from gptcls.classify.mixture import NETWORK
from gptcls.core.gpt2 import PRESETS
from gptcls.evaluation.baselines import TFIDF
from gptcls.train.run import Run

MEASURES = {"single_label": "accuracy", "multi_label": "micro_f1"}
SHORT_OF = 0.5  # recall of a class, below which it counts as missed
LEARNT_BY_HEART = 10.0  # points by which training rows are better than validation rows


def advice(run: Run) -> str:
    """One line: the options to add, and what speaks for them; "" where no rule fits."""
    scores, config = run.scores, run.config
    if (measure := MEASURES.get(run.classifier.task.kind)) is None:
        return ""
    on_train, ours = (100 * scores[part][measure] for part in ("train", "validation"))
    as_is = config.data.balance == "none" and config.fit.costs is None  # costs may ask to miss a class
    if as_is and (missed := _missed(run)):
        label, recall, n = missed
        return f"--balance weights: of {label!r}, {round(recall * n)} of {n} validation rows are found"
    if config.run.recipe == "book":
        return "--recipe default: repeats dropped before the split, and padding changes no answer"
    found = {name: 100 * parts["validation"][measure] for name, parts in run.baselines.items()}
    rival, plain = found.get(TFIDF, 0), found.get(NETWORK, 0)
    mix = f"--stack ngrams, to mix it in: {TFIDF} is ahead on validation, {rival:.1f} to {ours:.1f} %"
    unmix = f"--stack none: the {NETWORK} is ahead on validation, {plain:.1f} to {ours:.1f} %"
    names, model = list(PRESETS), config.model.model
    larger = names[names.index(model) + 1 :] if model in names else []
    heart = f"{on_train:.1f} % is right of {len(run.split.train):,} training rows, {ours:.1f} % of validation"
    rules = {
        mix: rival > ours and config.fit.stack != "ngrams",
        unmix: plain > ours,
        f"more labelled rows: {heart}": on_train - ours > LEARNT_BY_HEART,
        "--preset best: it trains more and for longer": config.fit.preset != "best",
        **{f"--model {name}, a larger pretrained network": True for name in larger},
    }
    return next((said for said, fits in rules.items() if fits), "")


def _missed(run: Run) -> tuple[str, float, int] | None:
    """The class with the lowest recall on validation rows, if most of its rows are missed."""
    rows = run.scores["validation"]["per_class"].items()
    found = [(values["recall"], label, values["support"]) for label, values in rows if values["support"] >= 5]
    recall, label, n = min(found, default=(1.0, "", 0))
    return (label, recall, n) if recall < SHORT_OF else None
