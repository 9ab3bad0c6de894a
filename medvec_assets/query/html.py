"""A self-contained HTML page: one style, no script, nothing from elsewhere.

The style is allowed by its hash, in the page itself and in the header that the service sends (CSP), so that a page opened
from a disk obeys what the served one does.

Belongs here: the frame of a page and its style. Does not belong here: what is in it; the search page (api).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root{color-scheme:light;font:16px/1.5 system-ui,sans-serif}
body{margin:0 auto;max-width:80rem;padding:1rem 1.5rem;color:#1b1f24;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}caption{text-align:left;font-weight:600;padding:.3rem 0}
th,td{border-bottom:1px solid #d0d7de;padding:.3rem .5rem;text-align:left;vertical-align:top;overflow-wrap:anywhere}
td:first-child{min-width:10rem}td.number{text-align:right;font-variant-numeric:tabular-nums}
.ok{color:#116329}.broken{color:#a40e26}
figure{margin:0;overflow-x:auto}svg{max-width:100%;height:auto;min-width:60rem}
""".strip()
_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_DIGEST}'"
"""The Content-Security-Policy under which the page looks as it should."""


def page(title: str, body: str) -> str:
    """The whole document. `title` is text, `body` is HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of text; numbers stand to the right."""
    heads = "".join(f'<th scope="col">{escape(one)}</th>' for one in head)
    lines = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in rows)
    return (
        f"<table><caption>{escape(caption)}</caption>\n<thead><tr>{heads}</tr></thead>\n<tbody>{lines}</tbody></table>"
    )


def _cell(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f'<td class="number">{value:,}</td>'
    return f"<td>{escape('' if value is None else str(value))}</td>"
