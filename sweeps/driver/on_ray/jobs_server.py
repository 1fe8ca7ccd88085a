"""A client of Ray's jobs server, once it is known to answer and to take the token."""

from __future__ import annotations

import logging
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import TYPE_CHECKING

from sweeps.addresses import without_userinfo
from sweeps.errors import InputError, Problem
from sweeps.wording import masked

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient


_ANSWER_SECONDS = 10.0


def connect(address: str) -> JobSubmissionClient:
    """A client of the jobs server.

    Raises:
        InputError: no server answers there, another one does, or the token is missing or wrong.
    """
    url = (address if "://" in address else f"http://{address}").rstrip("/")
    if not url.startswith(("http://", "https://")):
        expected = "the address of a Ray jobs server, http://HOST:8265"
        raise InputError(Problem("--address", masked(address), expected, "http://127.0.0.1:8265"))
    _check_answer(url)
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    logging.getLogger("ray").setLevel(logging.WARNING)  # it tells of every package and socket otherwise
    try:
        return JobSubmissionClient(url)
    except AuthenticationError as error:
        raise InputError(_token_problem(url, str(error))) from None
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        expected = "a Ray jobs server"
        raise InputError(
            Problem("--address", f"{masked(url)}, which says: {_short(error)}", expected, _START)
        ) from None


def ray_version(client: JobSubmissionClient) -> str | None:
    """The version of Ray that the jobs server of a client runs; None where it did not say."""
    # Ray asks for it as a client connects, holds it against its own minimum, and keeps it to itself.
    version: str | None = client._server_ray_version
    return version


_START = "cluster/local.sh start, or the address of your cluster's dashboard"


def _check_answer(url: str) -> None:
    """Ray's client waits for ever on a server that accepts and says nothing; so ask first."""
    try:
        asked = f"{without_userinfo(url)}/api/version"
        with urllib.request.urlopen(asked, timeout=_ANSWER_SECONDS):  # noqa: S310 - http, checked
            return
    except urllib.error.HTTPError:
        return  # it speaks HTTP; what it means by this, Ray's client finds out
    except HTTPException as error:  # which may quote a piece of the address
        reason: object = type(error).__name__
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
    got = f"{masked(url)}, where no server answers ({reason})"
    raise InputError(Problem("--address", got, "a Ray jobs server", _START))


def _token_problem(url: str, said: str) -> Problem:
    """Ray's client sends a token only when RAY_AUTH_MODE says so; it looks in three places for it."""
    if "invalid" in said.lower():
        got, remedy = "a token that is not the cluster's", "the head node's own: ray get-auth-token"
    else:
        got = "no token"
        remedy = (
            "RAY_AUTH_MODE=token and the head node's token (ray get-auth-token) in ~/.ray/auth_token, "
            "RAY_AUTH_TOKEN or the file RAY_AUTH_TOKEN_PATH"
        )
    return Problem("--address", f"{masked(url)} with {got}", "the token of that cluster", remedy)


def _short(error: object) -> str:
    """The telling line of a server's answer, which may be a whole traceback."""
    lines = [line.strip() for line in masked(str(error)).splitlines() if line.strip()]
    return lines[-1][:300] if lines else repr(error)
