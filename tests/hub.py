"""A hub of datasets for tests: one dataset of two configurations, at commits that a test moves."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class Hub:
    """Answers as the hub does, to those of its clients' questions that loading a dataset needs.

    Attributes:
        commits: the files of the dataset `team/text` by commit, each a name and its content.
        head: the commit of the main branch.
        asked: paths that were asked for.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        self.commits: dict[str, dict[str, bytes]] = {}
        self.head = ""
        self.asked: list[str] = []

    @contextmanager
    def at(self, port: int) -> Iterator[None]:
        """Listens on a port of this machine meanwhile."""
        hub = self

        class Handler(_Handler):
            of = hub

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()

    def publish(self, texts: dict[str, list[str]]) -> str:
        """A new commit of the main branch: rows by configuration. Returns it."""
        files = {
            f"{configuration}/train.jsonl": "".join(
                json.dumps({"text": text}) + "\n" for text in rows
            ).encode()
            for configuration, rows in texts.items()
        }
        configs = "".join(f"- config_name: {name}\n  data_files: {name}/train.jsonl\n" for name in texts)
        files["README.md"] = f"---\nconfigs:\n{configs}---\n".encode()
        self.head = hashlib.sha1(repr(files).encode(), usedforsecurity=False).hexdigest()
        self.commits[self.head] = files
        return self.head


class _Handler(BaseHTTPRequestHandler):
    of: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.of.asked.append(path)
        api = re.fullmatch(r"/api/datasets/team/text(?:/(revision|tree|paths-info)/([^/]+)(/.*)?)?", path)
        file = re.fullmatch(r"/datasets/team/text/resolve/([^/]+)/(.+)", path)
        revision = file[1] if file else (api[2] if api else None)
        commit = {None: self.of.head, "main": self.of.head}.get(revision, revision)
        if not (api or file):
            self._send(404, {}, b"{}", body=body, error="RepoNotFound")
        elif commit not in self.of.commits:
            self._send(404, {}, b"{}", body=body, error="RevisionNotFound")
        elif file:
            self._file(commit, file[2], body=body)
        else:
            assert api is not None
            self._send(200, {}, json.dumps(self._told(api[1], commit)).encode(), body=body)

    def _told(self, kind: str | None, commit: str) -> Any:
        files = self.of.commits[commit]
        entries = [
            {"type": "file", "path": name, "size": len(content), "oid": _oid(content)}
            for name, content in files.items()
        ]
        if kind in ("tree", "paths-info"):
            return entries
        siblings = [{"rfilename": name} for name in files]
        return {"id": "team/text", "sha": commit, "siblings": siblings, "private": False, "tags": []}

    def _file(self, commit: str, name: str, *, body: bool) -> None:
        content = self.of.commits[commit].get(name)
        headers = {"X-Repo-Commit": commit}
        if content is None:
            self._send(404, headers, b"", body=body, error="EntryNotFound")
        else:
            self._send(200, {**headers, "ETag": f'"{_oid(content)}"'}, content, body=body)

    def _send(
        self, status: int, headers: dict[str, str], content: bytes, *, body: bool, error: str | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if error is not None:
            self.send_header("X-Error-Code", error)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _oid(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
