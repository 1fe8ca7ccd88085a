"""Whether a store can be reached, found without creating it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from sweeps import machine
from sweeps.errors import Problem
from sweeps.wording import masked

_SECONDS = 1.5
_MAGIC = b"SQLite format 3\x00"
_PORTS = {"http": 80, "https": 443, "postgresql": 5432}


def address(url: str) -> str | None:
    """Why nothing answers at a URL's host and port, or None when something does."""
    parts = urlsplit(url)
    port = parts.port or _PORTS[parts.scheme.partition("+")[0]]
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=_SECONDS):
            return None
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        return f"{parts.hostname}:{port}: {reason}"


def sqlite(url: str, where: str) -> Iterator[Problem]:
    """What stands against opening, or making, the file of a `sqlite:///` URL."""
    file = Path(url.partition(":///")[2].partition("?")[0])
    if file.is_dir():
        yield Problem(where, f"{str(file)!r}, a folder", "a file for SQLite", str(file / "study.db"))
    elif file.is_file():
        with file.open("rb") as opened:
            start = opened.read(len(_MAGIC))
        if start not in (_MAGIC, b""):
            yield Problem(
                where, f"{str(file)!r}, which is no SQLite file", "a SQLite file or a new one", "another name"
            )
        elif not machine.writable(file):
            yield Problem(where, f"{str(file)!r}, which cannot be written to", "a SQLite file to write to")
    else:
        folder = machine.existing(file.parent)
        if not folder.is_dir() or not machine.writable(folder):
            yield Problem(
                where, f"{str(file)!r} in {str(folder)!r}", "a file in a folder to write to", "another name"
            )


def postgres(url: str, where: str) -> Iterator[Problem]:
    """What stands against working in a PostgreSQL database; its server is asked, as the URL's user."""
    # A server at a socket on this machine has no host to be tried first.
    reason = address(url) if urlsplit(url).hostname else None
    if reason is not None:
        yield Problem(where, f"{masked(url)!r} ({reason})", "a PostgreSQL server that answers", "starting it")
        return
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    try:
        engine = create_engine(
            url.replace("postgresql://", "postgresql+psycopg://", 1), connect_args={"connect_timeout": 2}
        )
        with engine.connect():
            pass
        engine.dispose()
    except (SQLAlchemyError, ImportError) as error:
        lines = str(getattr(error, "orig", error)).strip().splitlines() or [type(error).__name__]
        got = f"{masked(url)!r} ({masked(lines[0])})"
        yield Problem(where, got, "a PostgreSQL database that can be opened", "its user, password and name")


def may_exist(url: str) -> bool:
    """Whether a store may already be there: a file that exists, or a server."""
    return not url.startswith("sqlite") or Path(url.partition(":///")[2].partition("?")[0]).is_file()
