"""A report as one HTML page: no script, nothing loaded from elsewhere, light or dark as the screen is.

Every string that is given is a text and is escaped; what the functions return is HTML, for :func:`page`.
"""

from collections.abc import Iterable, Sequence
from html import escape

from gptcls.common.console import CONTROLS

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
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def escaped(text: str) -> str:
    """Text as HTML that is text alone, without control characters."""
    return escape(CONTROLS.sub(lambda it: it[0] if it[0] in "\n\t" else "\N{REPLACEMENT CHARACTER}", text))


def page(title: str, parts: Iterable[str], style: str = "") -> str:
    """The whole page, with what ``parts`` need of CSS."""
    return PAGE.format(title=escaped(title), style=STYLE + style, body="\n".join(parts))


def section(title: str, *parts: str) -> str:
    """A heading, and what stands below it."""
    return "\n".join([f"<h2>{escaped(title)}</h2>", *parts])


def paragraph(text: str) -> str:
    return f"<p>{escaped(text)}</p>"


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
    return f'<th class="number">{escaped(name)}</th>' if number else f"<th>{escaped(name)}</th>"


def _cell(value: object, text: bool) -> str:
    if _is_number(value):
        return f'<td class="number">{value:,}</td>'
    kind = ' class="text"' if text else ""
    return f"<td{kind}>{escaped(str(value))}</td>"
