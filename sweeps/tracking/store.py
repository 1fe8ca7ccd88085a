"""Tracking addresses: what `tracking.uri` may be, and the URI that MLflow is given for it."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from sweeps.addresses import file_of, url_of
from sweeps.errors import Problem
from sweeps.wording import formatted as show

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SERVERS = ("http", "https")
_EXPECTED = '"sqlite", the address of a server (http://HOST:PORT) or of a database (postgresql://...)'


def tracking_problems(uri: str, where: str = "tracking.uri") -> list[Problem]:
    """What is wrong with the address as it is written; no server is asked whether it answers.

    A server that does not answer is no problem of a run: what it missed is delivered when it is back.
    """
    if uri == "sqlite":
        return []
    parts, port = _split(uri)
    if parts is None:
        return [Problem(where, show(uri), _EXPECTED, "http://127.0.0.1:5000")]
    formatted, scheme = show(uri), parts.scheme.partition("+")[0]
    if scheme in SERVERS:
        if not parts.hostname:
            return [Problem(where, formatted, "a host name after ://", f"{scheme}://127.0.0.1:5000")]
        if port == 0:
            return [
                Problem(where, formatted, "a port between 1 and 65535", f"{scheme}://{parts.hostname}:5000")
            ]
        return []
    if scheme in DATABASES:
        return (
            [] if "://" in uri else [Problem(where, formatted, f"{scheme}://...", _database_remedy(scheme))]
        )
    if scheme in ("", "file"):
        return [
            Problem(where, formatted, _EXPECTED, '"sqlite" (MLflow no longer keeps runs in plain folders)')
        ]
    host_and_port = "://" not in uri and parts.path.isdecimal()
    return [
        Problem(where, formatted, _EXPECTED, f"http://{uri}" if host_and_port else "http://127.0.0.1:5000")
    ]


def _split(uri: str) -> tuple[SplitResult | None, int | None]:
    """The address in parts and its port, 0 for one that is no port; (None, None) for what is no address."""
    if not uri.strip() or any(character.isspace() for character in uri):
        return None, None
    try:
        parts = urlsplit(uri)
    except ValueError:
        return None, None
    try:
        port = parts.port
    except ValueError:
        port = 0
    return parts, port


def _database_remedy(scheme: str) -> str:
    return "sqlite:///mlflow.db" if scheme == "sqlite" else f"{scheme}://USER@HOST/DATABASE"


def store_uri(uri: str, artifacts: Path) -> str:
    """The address for MLflow: "sqlite" is a file in the artifacts folder; relative files become absolute."""
    if uri == "sqlite":
        return url_of(artifacts.resolve() / "mlflow.db")
    in_a_file = uri.startswith("sqlite:///") and uri != "sqlite:///:memory:"
    if in_a_file and not file_of(uri).is_absolute():
        return url_of(file_of(uri).resolve(), query=uri.partition("?")[2])
    return uri


def from_within(uri: str) -> str:
    """The address with which MLflow is opened in this process, which may go to another folder for it.

    MLflow makes the folder of a SQLite file, and takes an escaped letter in its address for its name.
    """
    if not uri.startswith("sqlite:///") or "%" not in uri:
        return uri
    file = file_of(uri).absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    os.chdir(file.parent)
    return url_of(Path(file.name), query=uri.partition("?")[2])


def artifact_root(uri: str, artifacts: Path) -> Path | None:
    """Where runs put their artifacts; None when that is the server's business.

    Of a database that the client opens by itself MLflow would take `mlruns` in the working folder.
    """
    served = uri.partition(":")[0] in ("http", "https", "databricks")
    return None if served else artifacts.resolve() / "mlartifacts"
