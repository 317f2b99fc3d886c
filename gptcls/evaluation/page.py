"""A report as one HTML page: no script, nothing loaded from elsewhere, light or dark as the screen is.

Every string that is given is a text and is escaped; what the functions return is HTML, for :func:`page`.
"""

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --accent: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --accent: #56b4e9; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; color: var(--accent); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.92em; }
th { text-align: left; border-bottom: 2px solid var(--line); white-space: nowrap; }
th, td { padding: 0.25rem 0.9rem 0.25rem 0; vertical-align: top; }
td { border-bottom: 1px solid var(--soft); overflow-wrap: break-word; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.text { min-width: 20rem; white-space: pre-wrap; overflow-wrap: anywhere; }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """The whole page."""
    head = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
    )
    head += '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    body = "\n".join([f"<h1>{escape(title)}</h1>", *parts])
    return f"{head}<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"


def section(title: str, *parts: str) -> str:
    """A heading, and what stands below it."""
    return "\n".join([f"<h2>{escape(title)}</h2>", *parts])


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def table(head: Sequence[str], rows: Iterable[Sequence[object]], text: Sequence[str] = ("text",)) -> str:
    """Rows below their heads, numbers to the right; the columns that ``text`` names are wide, and keep line
    breaks.

    >>> "<td>a &lt; b</td>" in table(["what"], [["a < b"]])
    True
    """
    rows = list(rows)
    numbers = map(_is_number, rows[0] if rows else head)
    heads = (_head(name, is_number) for name, is_number in zip(head, numbers, strict=True))
    lines = [f"<tr>{''.join(heads)}</tr>"]
    for row in rows:
        cells = (_cell(value, name in text) for name, value in zip(head, row, strict=True))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return '<div class="scroll"><table>\n' + "\n".join(lines) + "\n</table></div>"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _head(name: str, number: bool) -> str:
    return f'<th class="number">{escape(name)}</th>' if number else f"<th>{escape(name)}</th>"


def _cell(value: object, text: bool) -> str:
    if _is_number(value):
        return f'<td class="number">{value:,}</td>'
    kind = ' class="text"' if text else ""
    return f"<td{kind}>{escape(str(value))}</td>"
