"""Health checks of the stores and the cluster. Read-only."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import urllib.error
import urllib.request
from http.client import HTTPException
from importlib import metadata
from pathlib import Path

from sweeps import readonly_sqlite
from sweeps.addresses import file_of, may_exist, without_masks, without_userinfo
from sweeps.checks import stores
from sweeps.cli.findings import Finding, first_line
from sweeps.driver.on_ray.head_node import cluster_remedy, joined
from sweeps.errors import InputError
from sweeps.text import counted
from sweeps.wording import masked

_PATIENCE = 5.0  # seconds for a store to answer


def store(name: str, url: str, table: str) -> Finding:
    """Whether a store answers and holds what it should; `table` is one that it has once it is in use."""
    shown = masked(url)
    if url.startswith("sqlite:///"):
        return _file(name, file_of(url), table)
    if url.startswith(("http://", "https://")):
        return _server(name, url)
    try:
        made = stores.has_table(url, table, patience=_PATIENCE)
    except Exception as error:  # noqa: BLE001 - every driver has errors of its own
        said = masked(first_line(error))
        return Finding.wrong(name, f"{shown}: {said}", "the address, and whether it runs")
    return Finding.good(name, f"{shown}, {'in use' if made else 'empty so far'}")


def study(url: str) -> Finding:
    """Whether the study's store answers, and whether this Optuna can read what is in it."""
    url = without_masks(url)  # copied from a message: the client may have the password
    found = store("study", url, "studies")
    if not found.ok or not may_exist(url):
        return found
    from sweeps.results.listing import study_problems  # which loads Optuna

    if problems := study_problems(url, found.name):
        return Finding.wrong(found.name, problems[0].got, problems[0].remedy)
    return found


def _file(name: str, file: Path, table: str) -> Finding:
    if not file.exists():
        return Finding.good(name, f"{file} will be made by the first run")
    try:
        with contextlib.closing(readonly_sqlite.connect(file, patience=_PATIENCE)) as base:
            tables = {row[0] for row in base.execute("SELECT name FROM sqlite_master")}
            counted = f"SELECT COUNT(*) FROM {table}"  # noqa: S608 - a name of ours
            kept = base.execute(counted).fetchone()[0] if table in tables else None
    except (sqlite3.Error, OSError) as error:
        return Finding.wrong(name, f"{file}: {error}", "another file, or the last copy of this one")
    if not tables:
        return Finding.good(name, f"{file}, empty so far")
    if kept is None:
        return Finding.wrong(name, f"{file} holds something else (it has no table {table})", "another file")
    return Finding.good(name, f"{file}, {kept} {table}")


def _server(name: str, url: str) -> Finding:
    """A tracking server that is away stops no sweep: what it missed is delivered when it is back."""
    shown, remedy = masked(url), "to start it; a sweep runs without, and delivers later"
    try:
        address = f"{without_userinfo(url).rstrip('/')}/health"
        with urllib.request.urlopen(address, timeout=_PATIENCE):  # noqa: S310 - http, checked
            return Finding.good(name, f"{shown} answers")
    except urllib.error.HTTPError as error:
        return Finding.note(name, f"{shown} answers {error.code}", "its address and your login")
    except HTTPException as error:  # which may quote a piece of the address
        return Finding.note(name, f"{shown}: {type(error).__name__}", "its address")
    except (OSError, ValueError) as error:
        return Finding.note(name, f"{shown}: no answer ({getattr(error, 'reason', error)})", remedy)


def cluster(address: str) -> Finding:
    """Whether a cluster answers and runs the same Ray; HOST:PORT, or the URL of its jobs server."""
    if "://" in address and not address.startswith("ray://"):
        return _jobs_server(address)
    if "@" in address:
        return Finding.wrong("cluster", "an address with a user or a password in it", "HOST:PORT")
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "://" not in address:
        try:  # Ray tries for minutes where no process listens
            socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
        except (OSError, OverflowError) as error:
            return Finding.wrong("cluster", f"{address}: no answer ({error})", cluster_remedy(""))
    answer = joined(address)
    if answer is None:
        return Finding.wrong("cluster", f"{address} does not answer", "ray status on its head node")
    if "error" in answer:
        said = masked(str(answer["error"]))[:300]
        return Finding.wrong("cluster", f"{address}: {said}", cluster_remedy(said))
    has = answer["resources"]
    size = ", ".join(
        counted(number, word)
        for number, word in (
            (answer["nodes"], "node"),
            (has.get("CPU", 0), "CPU"),
            (has.get("GPU", 0), "GPU"),
        )
    )
    return Finding.good("cluster", f"{address}: {size}, Ray {answer['ray']}")


def _jobs_server(url: str) -> Finding:
    """The jobs server says which Ray it runs; asked by Ray's own client, which knows about tokens."""
    from sweeps.driver.on_ray.jobs_server import connect, ray_version

    try:
        client = connect(url)
    except InputError as error:
        first = error.problems[0]
        return Finding.wrong("cluster", f"got {first.got}; expected {first.expected}", first.remedy)
    own, found = metadata.version("ray"), ray_version(client) or "unknown"
    url = masked(url)
    if own != found:
        return Finding.wrong(
            "cluster", f"{url}: Ray {found}, and {own} here", cluster_remedy("version mismatch")
        )
    return Finding.good("cluster", f"{url}: Ray {found}, as here")
