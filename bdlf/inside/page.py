"""The page that shows all figures: one HTML file that needs no server, no script and no other file."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence

from bdlf.inside.drawings import Drawing

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 60rem; color: #111;
       background: #fff; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; line-height: 1.25; }
h2 { font-size: 1.15rem; margin-top: 2.2rem; }
nav a { display: inline-block; padding: .35rem .7rem .35rem 0; }
figure { margin: 0; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; background: #fff; }
figcaption { margin-top: .6rem; font-size: .9rem; color: #333; }
.left-out { border-left: 4px solid #d55e00; padding-left: .8rem; }
""".strip()


def page(title: str, drawings: Sequence[Drawing], pictures: Mapping[str, bytes], left_out: Mapping[str, str]) -> str:
    """The page as HTML. `pictures` are the figures as PNG by name; `left_out` says by name why a figure is missing."""
    links = " ".join(f'<a href="#{one.name}">{html.escape(one.title)}</a>' for one in drawings)
    parts = [_part(one, pictures[one.name]) for one in drawings]
    if left_out:
        lines = "".join(f"<li><b>{name}</b>: {html.escape(why)}</li>" for name, why in left_out.items())
        parts.append(f'<section class="left-out"><h2>Left out</h2><ul>{lines}</ul></section>')
    body = "\n".join(parts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>
{_STYLE}
</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
<nav>{links}</nav>
<main>
{body}
</main>
</body>
</html>
"""


def _part(drawing: Drawing, picture: bytes) -> str:
    data = base64.b64encode(picture).decode("ascii")
    return (
        f'<section id="{drawing.name}">\n<h2>{html.escape(drawing.title)}</h2>\n<figure>\n'
        f'<img alt="{html.escape(drawing.alt)}" src="data:image/png;base64,{data}">\n'
        f"<figcaption>{html.escape(drawing.caption)}</figcaption>\n</figure>\n</section>"
    )
