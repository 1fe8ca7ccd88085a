"""Environment variables of child processes: ours, without secrets that they have no use for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sweeps.addresses import holds_secret, secret_name

# Names begin so whose secrets a program needs.
FOR_MLFLOW = ("MLFLOW_", "PG", "MYSQL_")  # a server's login, a database's password
FOR_RAY = ("RAY_", "HF_", "HUGGING_FACE_", "HUGGINGFACE_")  # the cluster's token; workers open the base
# MLflow's own switches for logins by other programs' credentials, of any name.
_ANY_LOGIN = ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4")


def is_secret(name: str, value: str) -> bool:
    """Whether a variable holds a secret: by its name, or as an address with a password in it.

    A proxy's address is none, as without it nothing could be reached.
    """
    if name.lower().endswith("_proxy") or name in ("PWD", "OLDPWD"):
        return False
    return secret_name(name) or holds_secret(value)


def withheld(environment: Mapping[str, str], needed: tuple[str, ...]) -> list[str]:
    """Names of the secrets in an environment that a program does not need."""
    return [
        name for name, value in environment.items() if is_secret(name, value) and not name.startswith(needed)
    ]


def for_child(*needed: str) -> dict[str, str]:
    """A copy of this environment without secrets, but with those whose names begin as given."""
    given = dict(os.environ)
    if "MLFLOW_" in needed and any(given.get(name) for name in _ANY_LOGIN):
        return given
    for name in withheld(given, needed):
        del given[name]
    return given


@contextmanager
def without_secrets(*needed: str) -> Iterator[None]:
    """This environment without secrets for a while: for a library that starts programs with all of it."""
    taken = {name: os.environ.pop(name) for name in withheld(os.environ, needed)}
    try:
        yield
    finally:
        os.environ.update(taken)
