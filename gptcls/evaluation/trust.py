"""How far a part's answers may be believed, in a few lines for the terminal."""

from collections.abc import Mapping
from types import MappingProxyType

MISSING = "\N{EN DASH}"


def format_trust(part: str, scores: dict, costs: Mapping[str, float] = MappingProxyType({})) -> str:
    """The calibration error of one part; where the classifier abstains or errors have costs, also what that
    gave, beside ``costs``, what the same rule makes of others' probabilities. "" for numbers, and for no
    texts.

    >>> calibration = {"ece": 0.021, "ece_low": 0.0, "ece_high": 0.043}
    >>> format_trust("test", {"calibration": calibration, "coverage": {"abstain": 0.0}})
    'calibration error (ECE) on test: 2.1 % [0.0, 4.3]'
    """
    calibration, coverage = scores.get("calibration"), scores.get("coverage")
    if calibration is None or calibration["ece"] is None:
        return ""
    ece, low, high = (100 * calibration[name] for name in ("ece", "ece_low", "ece_high"))
    lines = [f"calibration error (ECE) on {part}: {ece:.1f} % [{low:.1f}, {high:.1f}]"]
    if "cost" in coverage:
        beside = [f"{name} {cost:.4g}" for name, cost in costs.items()]
        lines.append("; ".join([f"cost on {part}: {coverage['cost']:.4g} a text", *beside]))
    if abstain := coverage["abstain"]:
        answered = f"{coverage['coverage']:.1%} answered ({coverage['answered']:,} texts)"
        lines.append(f"{part}, unsure below {abstain:g}: {answered}, {_right(coverage)} of these right")
        lines += ["", "confidence  answered  right of these"]
        for row in coverage["levels"]:
            mark = "  <- --abstain" if row["confidence"] == abstain else ""
            lines.append(f"{row['confidence']:>10g}  {row['coverage']:>8.1%}  {_right(row):>14}{mark}")
    return "\n".join(lines)


def _right(row: dict) -> str:
    return MISSING if row["accuracy"] is None else f"{row['accuracy']:.1%}"
