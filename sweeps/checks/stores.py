"""Checks that a store or a cluster can be reached, without creating anything."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from sweeps import readonly_sqlite
from sweeps.addresses import driven, file_of, url_of
from sweeps.checks import machine
from sweeps.errors import Problem, SpecError
from sweeps.wording import formatted, masked

_SECONDS = 1.5
_MAGIC = b"SQLite format 3\x00"
_PORTS = {"http": 80, "https": 443, "postgresql": 5432}
_NEARBY = ("auto", "local")  # cluster addresses for which Ray looks on this machine
_DRIVERS = ("sqlalchemy", "sqlite3", "psycopg", "optuna")  # whose errors say something about a store


def address(url: str) -> str | None:
    """Why nothing answers at a URL's host and port, or None when something does."""
    parts = urlsplit(url)
    port = parts.port or _PORTS[parts.scheme.partition("+")[0]]
    return _silence(parts.hostname or "", port)


def _silence(host: str, port: int) -> str | None:
    try:
        with socket.create_connection((host, port), timeout=_SECONDS):
            return None
    except (OSError, OverflowError, UnicodeError) as error:  # UnicodeError: a host that is no name
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return f"{host}:{port}: {reason}"


def cluster(address: str, where: str = "address") -> Iterator[Problem]:
    """What stands against joining a Ray cluster at an address, as far as its port can tell."""
    if address in _NEARBY:
        return
    expected = "HOST:PORT of its head node, ray://HOST:PORT, or auto"
    if address.startswith(("http://", "https://")):
        got = f"{formatted(address)}, the address of a jobs server"
        yield Problem(where, got, expected, "sweeps submit, which takes that address")
        return
    host, port = _host_and_port(address)
    if "@" in address:
        yield Problem(where, "an address with a user or a password in it", expected, "127.0.0.1:6379")
        return
    if host is None or port is None:
        yield Problem(where, formatted(address), expected, "127.0.0.1:6379")
        return
    if reason := _silence(host, port):
        expected = "the address of a Ray cluster that runs"
        yield Problem(where, f"{formatted(address)} ({reason})", expected, "`ray status` on its head node")


def _host_and_port(address: str) -> tuple[str | None, int | None]:
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        known = parts.scheme in ("", "ray")
        return (parts.hostname, parts.port) if known else (None, None)
    except ValueError:  # a port that is no number
        return None, None


def store(url: str, where: str, *, table: str | None = None, written: bool = True) -> Iterator[Problem]:
    """What stands against opening the store at a URL; see `sqlite` and `postgres`."""
    if url.startswith("sqlite"):
        yield from sqlite(url, where, table=table, written=written)
    else:
        yield from postgres(url, where)


def sqlite(url: str, where: str, *, table: str | None = None, written: bool = True) -> Iterator[Problem]:
    """What stands against opening, or making, the file of a `sqlite:///` URL.

    Args:
        url: of the store.
        where: the setting or option that it came from.
        table: one that the file has, if it has any; a file without it belongs to another program.
        written: whether it is to be written to, and not only read.
    """
    file = file_of(url)
    if file.is_symlink():  # in a folder that was received, it would lead what is written to a file elsewhere
        expected = "a file of its own: what is written to it would be so elsewhere"
        yield Problem(
            where, f"{str(file)!r}, a link", expected, f"moving what it names here, or {_target(file)}"
        )
    elif file.is_dir():
        yield Problem(where, f"{str(file)!r}, a folder", "a file for SQLite", str(file / "study.db"))
    elif file.is_file():
        yield from _file_problems(file, where, table, written=written)
    elif file.exists():  # a pipe would be waited for
        yield Problem(where, f"{str(file)!r}, which is no file", "a SQLite file or a new one", "another name")
    else:
        folder = machine.existing(file.parent)
        if not folder.is_dir() or not machine.writable(folder):
            yield Problem(
                where, f"{str(file)!r} in {str(folder)!r}", "a file in a folder to write to", "another name"
            )


def _target(link: Path) -> str:
    """The address of the file that a link leads to."""
    return url_of(Path(os.path.realpath(link)))


def _file_problems(file: Path, where: str, table: str | None, *, written: bool) -> Iterator[Problem]:
    expected = "a SQLite file or a new one"
    try:
        with file.open("rb") as opened:
            start = opened.read(len(_MAGIC))
    except OSError as error:
        yield Problem(where, f"{str(file)!r}, which cannot be read ({error.strerror})", expected)
        return
    if start not in (_MAGIC, b""):
        yield Problem(where, f"{str(file)!r}, which is no SQLite file", expected, "another name")
        return
    if written and not machine.writable(file):
        yield Problem(where, f"{str(file)!r}, which cannot be written to", "a SQLite file to write to")
        return
    try:
        tables = _tables(file)
    except sqlite3.OperationalError:
        return  # locked, say, by a driver that writes: it will be waited for
    except sqlite3.DatabaseError as error:
        yield Problem(where, f"{str(file)!r}, which is broken ({error})", "a SQLite file", "its last copy")
        return
    if table is not None and tables and table not in tables:
        got = f"{str(file)!r}, which holds something else (no table {table!r})"
        yield Problem(where, got, expected, "another name")


def _tables(file: Path) -> set[str]:
    with contextlib.closing(readonly_sqlite.connect(file, patience=_SECONDS)) as opened:
        return {row[0] for row in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


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
        engine = create_engine(driven(url), connect_args={"connect_timeout": 2})
        with engine.connect():
            pass
        engine.dispose()
    except (SQLAlchemyError, ImportError) as error:
        said = _first_line(getattr(error, "orig", error))
        remedy = "its user, password and name"
        if "no password" in said:
            remedy = "a password in the address, in PGPASSWORD or in ~/.pgpass"
        elif "authentication method requirement" in said:
            remedy = "scram-sha-256 on the server, or, trusting it, ?require_auth=password in the address"
        got = f"{masked(url)!r} ({said})"
        yield Problem(where, got, "a PostgreSQL database that can be opened", remedy)


def has_table(url: str, table: str, *, patience: float) -> bool:
    """Whether the database of a server holds a table.

    Args:
        url: of the store, as SQLAlchemy reads it.
        table: its name.
        patience: seconds for a PostgreSQL server to let us in.

    Raises:
        Exception: it cannot be asked; every driver has errors of its own.
    """
    from sqlalchemy import create_engine, inspect

    waits = {"connect_timeout": int(patience)} if url.startswith("postgresql") else {}
    engine = create_engine(driven(url), connect_args=waits)
    try:
        with engine.connect() as connection:
            return inspect(connection).has_table(table)
    finally:
        engine.dispose()


@contextmanager
def readable(url: str, where: str) -> Iterator[None]:
    """Turn what a store's drivers raise while it is read into one problem at `where`.

    Raises:
        SpecError: the store cannot be read, with what its driver said.
    """
    try:
        yield
    except Exception as error:
        # RuntimeError: Optuna's word for tables of another version.
        outdated = type(error) is RuntimeError
        if type(error).__module__.partition(".")[0] not in _DRIVERS and not outdated:
            raise
        said = _first_line(getattr(error, "orig", None) or error)
        remedy = _newer(url, said) if outdated else f"sweeps doctor --study {shlex.quote(masked(url))}"
        raise SpecError(
            Problem(where, f"{masked(url)!r} ({said})", "a study that can be read", remedy)
        ) from error


def _newer(url: str, said: str) -> str:
    """The command that brings a store of another Optuna and this one together."""
    if "storage upgrade" in said:
        return f"optuna storage upgrade --storage {shlex.quote(masked(url))}, once its sweeps have ended"
    return "pip install --upgrade optuna"


def _first_line(error: BaseException) -> str:
    lines = masked(str(error)).strip().splitlines() or [type(error).__name__]
    return lines[0]
