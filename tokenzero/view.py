"""The page of a search tree: one HTML file that needs nothing else and may fetch nothing.

Style, scripts and the document are written into it; a content security policy with their digests lets nothing
else run. What is on the page is drawn by the scripts in ``tokenzero/viewer``.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from importlib import resources
from typing import Any

from tokenzero import view_document

SCRIPTS = ("growth.js", "layout.js", "paint.js", "svg.js", "panel.js", "app.js", "start.js")


def page(document: Mapping[str, Any]) -> str:
    """The page of a document (see ``view_document``), with those of its fields that are known.

    Raises InputError for a document that is damaged.
    """
    known = view_document.document(
        view_document.trees_of(document), document.get("answer", ""), document.get("title", "")
    )
    style = _file("view.css")
    script = '"use strict";\n(() => {\n' + "\n".join(map(_file, SCRIPTS)) + "})();\n"
    policy = (
        f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    title = known["title"] or known["searches"][0]["prompt"]
    filled = _file("view.html")
    parts = {
        "policy": escape(policy),
        "title": escape(f"{title[:80]} - search tree".encode("utf-8", "replace").decode()),
        "style": style,
        "script": script,
        "document": embedded(known),
    }
    before, *rest = filled.split("{{")
    written = [before]
    for piece in rest:  # one walk, so that what is filled in is never taken for a place to fill
        name, after = piece.split("}}", 1)
        written += [parts[name], after]
    return "".join(written)


def embedded(document: dict[str, Any]) -> str:
    """The document as JSON that can stand inside a script element: no character in it ends or opens one."""
    text = view_document.to_json(document)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _digest(text: str) -> str:
    """The source expression of an inline element in a content security policy (CSP level 3, 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _file(name: str) -> str:
    return resources.files("tokenzero").joinpath("viewer", name).read_text(encoding="utf-8")
