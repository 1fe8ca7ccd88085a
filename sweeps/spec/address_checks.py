"""Checks of the stores' addresses in a spec: their form, before any is opened."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from sweeps.errors import InputError
from sweeps.spec.checks import _homeless
from sweeps.spec.settings import (
    StorageSettings,
    TrackingSettings,
)
from sweeps.wording import Fault, formatted
from tli.places import expanded


def address_faults(storage: StorageSettings, tracking: TrackingSettings | None) -> Iterator[Fault]:
    """Addresses of stores that no part of this project can open."""
    study = "sqlite, or an address sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"
    if not _is_store(storage.study, ("sqlite", "postgresql")):
        yield Fault("storage.study", _none(storage.study), study, _address_remedy(storage.study))
    yield from _homeless("storage.study", storage.study)
    if tracking is not None:
        yield from _homeless("tracking.uri", tracking.uri)
    try:
        expanded(storage.artifacts, "storage.artifacts")
    except InputError as error:
        (problem,) = error.problems
        yield Fault(problem.where, problem.got, problem.expected, problem.remedy)
    if "://" in storage.artifacts:
        expected = "a folder that all trials can reach"
        yield Fault("storage.artifacts", formatted(storage.artifacts), expected, "runs")
    if tracking is not None and not _is_store(tracking.uri, ("sqlite", "postgresql", "http", "https")):
        expected = "sqlite, null, or an address http(s)://HOST or sqlite:///FILE"
        yield Fault("tracking.uri", _none(tracking.uri), expected, _address_remedy(tracking.uri))


def _none(address: str) -> str:
    """What is no address as a message shows it: a mistyped one may hold a password before its @."""
    before, at, host = address.rpartition("@")
    return formatted(f"***@{host}" if at and "://" not in before else address)


def _is_store(address: str, schemes: tuple[str, ...]) -> bool:
    if address == "sqlite":
        return True
    if not re.match(r"^[a-z][a-z0-9+]*://", address):
        return False
    try:
        parts = urlsplit(address)
        host = parts.hostname
        _ = parts.port  # raises when it is no number
    except ValueError:
        return False
    scheme = parts.scheme.partition("+")[0]
    if scheme not in schemes:
        return False
    if scheme == "sqlite":  # a study in memory could not be resumed
        return len(parts.path) > 1 and parts.path != "/:memory:"
    # A PostgreSQL on this machine may be named by the folder of its socket: postgresql://user:@/base?host=/run/pg
    return bool(host) or (scheme == "postgresql" and "host=" in parts.query)


def _address_remedy(address: str) -> str:
    if address.startswith("postgres://"):
        return "postgresql:// in place of postgres://"
    return (
        "sqlite:///FILE for a file"
        if address.endswith((".db", ".sqlite")) and "://" not in address
        else "sqlite"
    )
