"""Secrets that are recognised wherever they turn up: in the environment, in addresses, in words of processes."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from tests.bench.processes import descendants

MARK = "c4n4ry"  # in every one of them
# Under every name by which a library that may be installed beside this project looks for a secret.
ENVIRONMENT = {
    name: f"{MARK}0{name.replace('_', '0')}"
    for name in (
        "ANTHROPIC_API_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN",
        "AWS_SESSION_TOKEN", "AZURE_CLIENT_SECRET", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_KEY",
        "COMET_API_KEY", "DATABRICKS_TOKEN", "GITHUB_TOKEN", "GOOGLE_API_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN", "MYSQL_PWD", "NEPTUNE_API_TOKEN", "OPENAI_API_KEY", "PGPASSWORD",
        "RAY_AUTH_TOKEN", "RAY_REDIS_PASSWORD", "WANDB_API_KEY",
    )
} | {"DATABASE_URL": f"postgres://me:{MARK}0DATABASE@db/x", "MLFLOW_TRACKING_USERNAME": "me"}  # fmt: skip

# Every way in which a secret may stand in an address of a database (DB) or a server.
DATABASES = tuple(
    f"postgresql://{form}".replace("CANARY", MARK)
    for form in (
        "me:CANARY@127.0.0.1:1/db",
        "u@dom:CANARY@127.0.0.1:1/db",
        ":CANARY@127.0.0.1:1/db",
        'me:it\'s%20"CANARY"@127.0.0.1:1/db',
        'me:it\'s a "CANARY" b@127.0.0.1:1/db',
        "me:a/CANARY@127.0.0.1:1/db",
        "me:12/CANARY@127.0.0.1:1/db",
        "me:a?b#CANARY@127.0.0.1:1/db",
        "me:a@CANARY@127.0.0.1:1/db",
        "me@127.0.0.1:1/db?password=a@CANARY",
        "me@127.0.0.1:1/db?options=a@CANARY&sslmode=disable",
        "me:a://CANARY@127.0.0.1:1/db",
        "me@127.0.0.1:1/db?password=CANARY&sslmode=disable",
        "me@127.0.0.1:1/db?sslmode=disable&sslpassword=CANARY",
        "me@127.0.0.1:1/db?pass%77ord=CANARY",
        "me@127.0.0.1:1/db?PASSWORD=it's a CANARY",
        "me@127.0.0.1:1/db?sslmode=disable;password=CANARY",
        "me@127.0.0.1:1/db?options=-c%20password%3DCANARY",
        "me@127.0.0.1:1/db?CANARY",
        "me@127.0.0.1:1/db#CANARY",
    )
)
SERVERS = tuple(
    f"http://{form}".replace("CANARY", MARK)
    for form in (
        "me:CANARY@127.0.0.1:1",
        "me:CANARY@127.0.0.1",
        "CANARY@127.0.0.1:1/x",
        "CANARY:@127.0.0.1:1",
        "CANARY:x-oauth-basic@127.0.0.1:1",
        'me:it\'s a "CANARY"@127.0.0.1:1',
        "127.0.0.1:1/x?access_token=CANARY",
        "127.0.0.1:1/x?api%5Fkey=CANARY#top",
        "127.0.0.1:1/x#access_token=CANARY",
        "127.0.0.1:1/x?X-Amz-Signature=CANARY&X-Amz-Expires=60",
        "[::1:CANARY@127.0.0.1",
        "127.0.0.1:1/x?access_token=a@CANARY",
        "127.0.0.1:1/x?foo=***@CANARY&x=1",
        "127.0.0.1:1/x#a@CANARY",
    )
)
# Text in which libraries put them.
TEXTS = tuple(
    form.replace("CANARY", MARK)
    for form in (
        "host=db user=me password=CANARY dbname=x",
        "host=db password='it\\'s a CANARY' user=me",
        "connection failed: password = CANARY",
        "{'AWS_SECRET_ACCESS_KEY': 'CANARY', 'PL_DISABLE_FORK': '1'}",
        '{"token": "CANARY"}',
        "API request to http://me:CANARY@h:5000/api/2.0/x failed with exception HTTPConnectionPool(host='h')",
        "could not parse 'postgresql://me:it's a CANARY@h/db' (see https://example.org/x@y)",
        "Authorization: Basic CANARY",
        "headers={'Authorization': 'Bearer CANARY'}",
        "WANDB_API_KEY=CANARY python -m x",
        "403 Client Error for url: https://s3/x?X-Amz-Credential=CANARY&X-Amz-Signature=CANARY",
        "postgresql://me:CANARY@h/a -> postgresql://me:CANARY@h/b",
        "password: CANARY",
    )
)


def in_files(*folders: Path, but: Iterable[Path] = ()) -> list[str]:
    """Files below the folders that hold a canary, but those named, each with where it stands."""
    spared = set(but)
    return [
        found for folder in folders for path in _files(folder) if path not in spared for found in _in(path)
    ]


def _files(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def _in(path: Path) -> Iterator[str]:
    try:
        content = path.read_bytes()
    except OSError:  # it has just gone, or is a socket
        return
    at = content.find(MARK.encode())
    if at >= 0:
        yield f"{path}: {content[max(0, at - 60) : at + 60]!r}"


class Onlooker:
    """What every process below one was started with, and calls itself, for as long as it is entered."""

    def __init__(self, root: int) -> None:
        self._root, self._ended = root, threading.Event()
        self._seen: dict[tuple[int, bytes], bytes] = {}
        self.own = b""  # the words of the one, or its title, as last seen
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            self.own = own = _read(self._root, "cmdline") or self.own
            for pid in descendants(self._root):
                words, environment = _read(pid, "cmdline"), _read(pid, "environ")
                # A process that was forked and has not begun its program yet is its parent still.
                if words and words not in (own, _read(self._root, "cmdline")):
                    self._seen[pid, words] = environment

    @property
    def words(self) -> list[bytes]:
        """The words, or the title, of every process."""
        return [words for _, words in self._seen]

    def told(self, name: bytes = b"") -> set[str]:
        """Names of the variables with a canary that processes were given among whose words `name` is."""
        given = (environment for (_, words), environment in self._seen.items() if name in words)
        variables = (each for environment in given for each in environment.split(b"\0"))
        return {
            each.partition(b"=")[0].decode("utf-8", "replace") for each in variables if MARK.encode() in each
        }


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has just ended
        return b""
