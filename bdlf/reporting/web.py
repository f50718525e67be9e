"""Writes blocks as one HTML page without other files. Each table scrolls in its own box, so that it fits a phone."""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import groupby

from bdlf.reporting.block import Block
from bdlf.reporting.columns import MARK, Column, Section, notes, sections

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 75rem; margin: 0 auto;
  padding: 0 1rem 2rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.25rem; line-height: 1.3; margin-top: 2.5rem; }}
.box {{ overflow-x: auto; margin: 1rem 0; }}
table {{ border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; font-weight: 600; padding: .3rem 0; }}
th, td {{ padding: .3rem .7rem; text-align: left; white-space: nowrap; }}
thead th {{ vertical-align: bottom; }}
thead th[scope=colgroup] {{ text-align: center; }}
thead tr:last-child th {{ border-bottom: 2px solid #1a1a1a; }}
tbody th, .card th {{ font-weight: normal; }}
.box table {{ overflow-wrap: normal; }}
.box td:not(.figure) {{ white-space: normal; min-width: 4.5rem; max-width: 16rem; }}
tbody tr {{ border-bottom: 1px solid #ddd; }}
.figure {{ text-align: right; }}
.sign {{ display: inline-block; width: .6em; text-align: left; }}
.card th, .card td {{ padding: .1rem .7rem .1rem 0; white-space: normal; vertical-align: top; }}
.card th {{ color: #555; white-space: nowrap; }}
li {{ max-width: 50rem; }}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def text(blocks: Sequence[Block]) -> str:
    """All blocks on one page, each with its tables, notes and protocol card. Several blocks are first listed."""
    parts = [_block(block, f"block{number}") for number, block in enumerate(blocks, 1)]
    if len(blocks) > 1:
        items = (f'<li><a href="#block{number}">{_(block.title)}</a></li>' for number, block in enumerate(blocks, 1))
        parts.insert(0, "<nav><ol>\n" + "\n".join(items) + "\n</ol></nav>")
    return _PAGE.format(title=_(blocks[0].title.partition(":")[0]), body="\n".join(parts))


def _(text: str) -> str:
    return html.escape(text)


def _block(block: Block, name: str) -> str:
    found = sections(block)
    if len(found) > 1 and found[1].columns[-1].group == "diff.":
        both = Section("Figures", found[0].keys, (*found[0].columns, *found[1].columns))
        found = [both, *found[2:]]
    groups = {"diff.": f"difference to {block.reference}, 95 % interval"}
    tables = [_table(section, groups) for section in found]
    listed = "\n".join(f"<li>{_(note)}</li>" for note in notes(block))
    card = "\n".join(f'<tr><th scope="row">{_(key)}</th><td>{_(value)}</td></tr>' for key, value in block.card)
    lines = [f'<section id="{name}">', f"<h2>{_(block.title)}</h2>", *tables]
    lines += [f"<ul>\n{listed}\n</ul>"] if listed else []
    lines += [f'<table class="card">\n<caption>Protocol</caption>\n{card}\n</table>'] if card else []
    return "\n".join([*lines, "</section>"])


def _table(section: Section, groups: dict[str, str]) -> str:
    columns = (*section.keys, *section.columns)
    caption = _(section.caption or "Figures")
    rows = []
    for line in range(len(section.keys[0].texts)):
        keys = (f'<th scope="row">{_(key.texts[line])}</th>' for key in section.keys)
        rows.append(f"<tr>{''.join(keys)}{''.join(_cell(column, line) for column in section.columns)}</tr>")
    body = "\n".join(rows)
    return (
        f'<div class="box" role="region" aria-label="{caption}" tabindex="0">\n<table>\n<caption>{caption}</caption>\n'
        f"<thead>\n{_heads(columns, groups)}\n</thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def _heads(columns: Sequence[Column], groups: dict[str, str]) -> str:
    """The lines of the headings: above them a line of their groups, if there are any."""
    heads = "".join(f'<th scope="col"{_kind(column)}>{_(column.head)}</th>' for column in columns)
    if not any(column.group for column in columns):
        return f"<tr>{heads}</tr>"
    above = ""
    for group, some in groupby(columns, key=lambda column: column.group):
        count = len(list(some))
        words = _(groups.get(group, group))
        above += f'<th colspan="{count}" scope="colgroup">{words}</th>' if group else f'<td colspan="{count}"></td>'
    return f"<tr>{above}</tr>\n<tr>{heads}</tr>"


def _kind(column: Column) -> str:
    return ' class="figure"' if column.figure else ""


def _cell(column: Column, line: int) -> str:
    text = column.texts[line]
    words = _(text.removesuffix(MARK))
    words = f"<strong>{words}</strong>" if line in column.bold else words
    if any(other.endswith(MARK) for other in column.texts):  # a cell without the sign is as wide as with it
        words += f'<span class="sign">{MARK.strip() if text.endswith(MARK) else ""}</span>'
    return f"<td{_kind(column)}>{words}</td>"
