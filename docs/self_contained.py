"""Keeps the built pages to themselves: they load nothing from elsewhere, and the build fails where one would.

Material's search asks a server for one script where pages are opened from a folder; a copy of it is in
`docs/javascripts`. A hook of MkDocs (`hooks` in mkdocs.yml).
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

_LOG = logging.getLogger("mkdocs.hooks.self_contained")  # its warnings are errors of a strict build
_SCRIPT, _COPY = "https://unpkg.com/iframe-worker/shim", "javascripts/iframe-worker.js"
_FROM_ROOT = re.compile(r"""((?:href|src)=["']?)/(?!/)([^"'\s>]*)""")
_LOADED = re.compile(
    r"""<(?:script|link|img|iframe|source|video)\b[^>]*?(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)"""
)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:  # noqa: ARG001
    """Put the copy in the script's place; an event of MkDocs."""
    from mkdocs.utils import get_relative_url

    return output.replace(_SCRIPT, get_relative_url(_COPY, page.url))


def on_post_template(output_content: str, template_name: str, config: MkDocsConfig) -> str:  # noqa: ARG001
    """As `on_post_page`, of pages that have no Markdown, such as 404.html; an event of MkDocs."""
    output = output_content.replace(_SCRIPT, _COPY)
    return beside(output) if template_name == "404.html" else output


def beside(html: str) -> str:
    """A page of the site's own folder with its links from there, not from the server's root: the site may lie
    deeper.
    """
    html = re.sub(r'"base": ?"/"', '"base": "."', html.replace('href="/"', 'href="index.html"'))
    return _FROM_ROOT.sub(r"\1\2", html)


def on_post_build(config: MkDocsConfig) -> None:
    """Warn of pages that would load something from elsewhere; an event of MkDocs."""
    for page in sorted(Path(config.site_dir).rglob("*.html")):
        for address in outside(page.read_text(encoding="utf-8")):
            _LOG.warning("%s loads %s, which is not part of the site", page.name, address)


def outside(html: str) -> list[str]:
    """Addresses of what a page loads from elsewhere; links that a reader may follow are none."""
    found: list[str] = _LOADED.findall(html)
    return found
