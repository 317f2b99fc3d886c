"""The report of an audit: a table for the terminal, a page, and a file with every finding."""

from dataclasses import dataclass
from pathlib import Path

from gptcls.common.files import atomic_file
from gptcls.common.lazy import pd
from gptcls.data.split import PARTS
from gptcls.data.writer import ChunkWriter
from gptcls.evaluation import page
from gptcls.evaluation.findings import CONFLICT, CUT, DOUBT, LEAK, LENGTH, NEAR, REPEAT, SCRIPT, SUSPECT
from gptcls.evaluation.mistakes import CONTROLS
from gptcls.evaluation.table import aligned, shortened

SHOWN, ON_PAGE, LONGEST = 8, 200, 600  # rows in the terminal, of a kind on the page, characters there


@dataclass
class Audit:
    """What was found. ``rows`` has every row of the data: part, row (its number there), text, label, and,
    where labels were judged, ``own``, the probability of its label. ``findings`` has a row for each finding;
    ``confused`` counts the classes that are taken for each other, ``notes`` are sentences."""

    name: str
    unit: str  # what rows are numbered by, such as "line"
    rows: "pd.DataFrame"
    findings: "pd.DataFrame"
    confused: "pd.DataFrame"
    lengths: "pd.DataFrame"
    scripts: "pd.DataFrame"
    meanings: dict[str, str]  # finding -> what it says of a row
    notes: list[str]

    @property
    def parts(self) -> list[str]:
        return [part for part in PARTS if part in set(self.rows["part"])]

    def of(self, finding: str) -> "pd.DataFrame":
        """The rows of one kind of finding, in their order."""
        return self.findings[self.findings["finding"] == finding]


def meanings_of(near_share: float, max_length: int) -> dict[str, str]:
    near = f"{near_share:.0%}"
    return {
        LEAK: f"it, or a text {near} alike, stands in a part before",
        CONFLICT: "the same text has other labels as well",
        SUSPECT: "models of other rows confidently say another label",
        DOUBT: "models of other rows say another label, less surely",
        REPEAT: "the same text stands earlier in the part",
        NEAR: f"a text {near} alike stands earlier in the part",
        CUT: f"longer than {max_length:,} tokens",
        LENGTH: "hardly a training row is as long, or as short",
        SCRIPT: "hardly a training row is in its script",
    }


def write_report(found: Audit, folder: Path) -> None:
    """``audit.csv`` with every finding, ``audit.html`` with the first of each kind."""
    with ChunkWriter(folder / "audit.csv") as writer:
        writer.write(found.findings)
    with atomic_file(folder / "audit.html") as temporary:
        temporary.write_text(as_page(found), encoding="utf-8")


def as_page(found: Audit) -> str:
    """The report as one HTML page."""
    heads = ["finding", *found.parts, "what it says of a row"]
    parts = [page.paragraph(" ".join(found.notes)), page.table(heads, _counts(found))]
    for finding, meaning in found.meanings.items():
        if (each := found.of(finding)).empty:
            continue
        first = f" The first {ON_PAGE:,} of {len(each):,}; audit.csv has all." if len(each) > ON_PAGE else ""
        shown, rows = ["part", found.unit, "label", "why", "text"], each.head(ON_PAGE)
        texts = [shortened(CONTROLS.sub("\ufffd", text), LONGEST) for text in rows["text"]]
        lines = zip(rows["part"], rows["row"].map(str), rows["label"], rows["said"], texts, strict=True)
        said = page.paragraph(f"{meaning[0].upper()}{meaning[1:]}.{first}")
        parts.append(page.section(f"{finding.capitalize()}: {len(each):,}", said, page.table(shown, lines)))
    confused = "Rows that models fitted on other rows take for another."
    tables = {
        "Classes that are confused": (found.confused, confused),
        "Tokens of a text": (found.lengths, ""),
        "Rows in each script": (found.scripts, "A text of several counts in each."),
    }
    for title, (frame, said) in tables.items():
        if not frame.empty:
            lines = frame.head(ON_PAGE).itertuples(index=False, name=None)
            own = [page.paragraph(said)] if said else []
            parts.append(page.section(title, *own, page.table(list(frame.columns), lines)))
    return page.page(f"Audit of {found.name}", parts)


def _counts(found: Audit) -> list[list[object]]:
    """A line for each kind: how many rows of each part, and what that says."""
    by_part = pd.crosstab(found.findings["finding"], found.findings["part"])
    by_part = by_part.reindex(index=list(found.meanings), columns=found.parts, fill_value=0)
    sizes = found.rows["part"].value_counts()
    lines = [["rows", *(int(sizes[part]) for part in found.parts), ""]]
    return lines + [[kind, *map(int, by_part.loc[kind]), said] for kind, said in found.meanings.items()]


def in_words(found: Audit) -> str:
    """The table and the first suspects for the terminal."""
    counts = ([kind, *(f"{n:,}" for n in numbers), said] for kind, *numbers, said in _counts(found))
    lines = [["", *found.parts, ""], *counts]
    shown = [*aligned(lines, left=(0, len(lines[0]) - 1)), "", *found.notes]
    for finding in (LEAK, CONFLICT, SUSPECT):
        each = found.of(finding)
        if not each.empty:
            shown += ["", f"{finding}, the first {min(SHOWN, len(each))} of {len(each):,}:"]
        for row in each.head(SHOWN).itertuples():
            text = shortened(" ".join(CONTROLS.sub("\ufffd", row.text).split()), 60)
            shown.append(f"  {row.part} {row.row}, {shortened(row.label, 30)}: {text!r} ({row.said})")
    if "taken for" in found.confused:
        rows = found.confused.head(SHOWN).itertuples(index=False, name=None)
        pairs = ", ".join(f"{a} for {b} {n:,} of {own:,}" for a, b, n, own in rows)
        shown += ["", f"classes that are confused: {pairs}"]
    return "\n".join(shown)
