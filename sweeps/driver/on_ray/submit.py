"""Submits a sweep as a Ray job, once: `ray job submit` with the right arguments."""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from sweeps.addresses import holds_secret
from sweeps.driver.on_ray.jobs_server import _short, connect
from sweeps.driver.on_ray.packing import packing_problem
from sweeps.errors import InputError, Problem, SweepError
from sweeps.spec import Spec, load_spec
from sweeps.wording import masked
from tli.terminal import printable

# Never worth uploading; a .gitignore in the folder is respected besides.
EXCLUDES = (
    ".git",
    ".venv",
    "venv",
    "__pycache__",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    "*.egg-info",
    # Where logins stand: no job reads them there.
    ".env",
    ".netrc",
    ".pgpass",
)
_PATTERN, _LITERALLY = (
    re.compile(r"[\\\\*?!#\[\]]"),
    r"\\\g<0>",
)  # what means more than itself in a .gitignore
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
INTERRUPTED = 130
_TRIES = 50
_STATUS = re.compile(r"status code (4\d\d)\b")  # as Ray's client words a refusal for what was sent
_PASSING = (408, 409, 425, 429)  # of those: too slow, in the way of another, too early, too many


def submit(
    spec_argument: str,
    *,
    address: str,
    runs: Path,
    working_dir: str | Path = ".",
    submission_id: str | None = None,
    wait: bool = True,
    extra_args: Sequence[str] = (),
) -> int:
    """Submit `sweeps run SPEC` to the jobs server at `address`, or find the job that already runs it.

    Args:
        spec_argument: a packaged spec's name, or a file inside `working_dir`.
        address: of the jobs server, http://HOST:8265.
        runs: folder for everything the sweep writes; absolute, and the same place on every node.
        working_dir: uploaded to the cluster, without virtual environments and runs.
        submission_id: instead of `sweep-NAME`, `sweep-NAME-2`, ...; the first that has not ended is taken.
        wait: follow the log to the end of the job.
        extra_args: further words for `sweeps run`.

    Returns:
        0 when the job has been submitted or found (and, waited for, has succeeded), 1 when it failed.

    Raises:
        InputError: the spec, the folder, the address or the token is not right, or a secret stands in
            `extra_args`, which become words that all who may look at the cluster can see.
        SweepError: the server did not take the job, with its words.
    """
    overrides = [word for flag, word in pairwise(extra_args) if flag == "--set"]
    spec = load_spec(spec_argument, overrides=overrides, runs=str(runs))
    _refuse_secrets(spec)
    folder = Path(working_dir).absolute()
    words = [
        "python",
        "-m",
        "sweeps",
        "run",
        _inside(spec_argument, folder),
        "--runs",
        str(runs),
        *extra_args,
    ]
    client = connect(address)
    environment = {"working_dir": str(folder), "excludes": _excludes(folder, runs)}
    if (problem := packing_problem(folder, environment["excludes"])) is not None:
        raise InputError(problem)
    job, fresh = _claim(client, submission_id, f"sweep-{spec.name}", shlex.join(words), environment)
    print(f"{job}: {'submitted' if fresh else 'this sweep runs already'}")
    for label, command in look(client.get_address(), job).items():
        print(f"  {label:<7} {command}")
    if not wait:
        return 0
    try:
        return _follow(client, job)
    except KeyboardInterrupt:
        print(f"\n{job} goes on without you; the commands above follow or stop it")
        return INTERRUPTED


def _refuse_secrets(spec: Spec) -> None:
    """Refuse secrets in the words of the job; say what becomes of those in the spec's file.

    Raises:
        InputError: an option holds one.
    """
    addresses = {"storage.study": spec.study_url, "tracking.uri": spec.tracking_uri or ""}
    secret = {path: spec.where(path) for path, address in addresses.items() if holds_secret(address)}
    remedy = "PGPASSWORD or ~/.pgpass on the head node, or the address in the spec's file"
    problems = [
        Problem(where, "a secret", "none: process lists and the jobs server show the words of a job", remedy)
        for where in secret.values()
        if where.startswith("--set")
    ]
    if problems:
        raise InputError(*problems)
    for where in secret.values():
        print(
            f"note: {where}: the secret in it goes to the cluster with the file, for all who may use its jobs"
            " server to read; PGPASSWORD or ~/.pgpass on the head node keeps a password out",
            file=sys.stderr,
        )


def look(address: str, job: str) -> dict[str, str]:
    """Commands that show or end the job."""
    address = masked(address)
    command = f"ray job {{}} --address {address}"
    return {
        "log": f"{command.format('logs')} --follow {job}",
        "state": f"{command.format('status')} {job}",
        "stop": f"{command.format('stop')} {job}",
        "page": f"{address}/#/jobs/{job}",
    }


def _inside(spec_argument: str, folder: Path) -> str:
    """The spec as the job will find it: a packaged name stays, a file is named from the uploaded folder."""
    if not folder.is_dir():
        raise InputError(Problem("--working-dir", str(folder), "a folder", "--working-dir ."))
    file = Path(spec_argument)
    if not file.is_file():
        return spec_argument
    if not file.absolute().resolve().is_relative_to(folder.resolve()):
        expected = f"a file inside {folder}, which is what the job is given"
        raise InputError(Problem("SPEC", str(file), expected, f"--working-dir {file.absolute().parent}"))
    return str(file.absolute().resolve().relative_to(folder.resolve()))


def _excludes(folder: Path, runs: Path) -> list[str]:
    own = runs.absolute()
    inside = (
        [f"/{_PATTERN.sub(_LITERALLY, str(own.relative_to(folder)))}/"]
        if own.is_relative_to(folder) and own != folder
        else []
    )
    return [*EXCLUDES, "/runs/", *inside]


def _claim(
    client: Any, submission_id: str | None, name: str, entrypoint: str, environment: dict[str, Any]
) -> tuple[str, bool]:
    """The id of the one job that runs this sweep, and whether we started it.

    However many submit at once, the server takes an id once: a command that is refused finds the other's job.
    """
    wanted = submission_id or name
    refusal: Exception | None = None
    for attempt in range(_TRIES):
        jobs = {job.submission_id: str(job.status) for job in _told(client.list_jobs)}
        job = wanted if submission_id else _free(name, jobs)
        if job in jobs:
            if jobs[job] in ENDED:
                got = f"{job}, a job that has {jobs[job].lower()}"
                raise InputError(Problem("--submission-id", got, "an id that is not taken", f"{job}-2"))
            return job, False
        if refusal is not None and attempt > 5 and "already exists" not in str(refusal):
            raise SweepError(f"the jobs server did not take {job}: {_short(refusal)}")
        try:
            return _asked(
                client.submit_job, entrypoint=entrypoint, submission_id=job, runtime_env=environment
            ), True
        except RuntimeError as error:
            # Most often another command was faster; the list will show it. Else the server has a trouble.
            refusal = error
            if _is_permanent(str(error)):
                raise SweepError(f"the jobs server refused {job}: {_short(error)}") from None
            time.sleep(min(0.2 * (attempt + 1), 1.0))
    raise SweepError(f"the jobs server did not take {wanted}: {_short(refusal)}")


def _is_permanent(refusal: str) -> bool:
    """Whether a server's refusal would be the same at the next try, and is no id that was taken meanwhile."""
    said = _STATUS.search(refusal)
    return said is not None and int(said[1]) not in _PASSING and "already exists" not in refusal


def _free(name: str, jobs: dict[str | None, str]) -> str:
    """NAME, or NAME-2, ...: the first that has not ended; the same sweep run again is another job."""
    candidate, again = name, 1
    while jobs.get(candidate) in ENDED:
        again += 1
        candidate = f"{name}-{again}"
    return candidate


def _asked(method: Any, **arguments: Any) -> Any:
    """Call the server; what it says about tokens or a lost connection is told without a traceback."""
    from ray.exceptions import AuthenticationError

    try:
        return method(**arguments)
    except AuthenticationError as error:
        raise SweepError(f"the jobs server refused the token: {_short(error)}") from None
    except OSError as error:
        raise SweepError(f"the jobs server no longer answers: {_short(error)}") from None


def _told(method: Any, **arguments: Any) -> Any:
    """As `_asked`, of a question that the server can only answer or refuse."""
    try:
        return _asked(method, **arguments)
    except RuntimeError as error:
        raise SweepError(f"the jobs server does not say: {_short(error)}") from None


def _follow(client: Any, job: str) -> int:
    """Print the job's log as it grows; 0 when the job succeeds."""

    shown = 0

    async def tail() -> None:
        """Print from where an earlier connection broke off: the server begins at the beginning each time."""
        nonlocal shown
        seen = 0
        async for text in client.tail_job_logs(job):
            new = text[max(0, shown - seen) :]
            seen += len(text)
            shown = max(shown, seen)
            print(printable(new), end="", flush=True)

    while True:
        try:
            asyncio.run(tail())
        except BrokenPipeError:
            return INTERRUPTED  # the reader of the log is gone; the job goes on
        except (RuntimeError, OSError) as error:
            print(printable(f"(the log broke off: {_short(error)}; asking again)"))
        status = str(_told(client.get_job_info, job_id=job).status)
        if status in ENDED:
            print(f"{job}: {status.lower()}")
            return 0 if status == "SUCCEEDED" else 1
        time.sleep(1.0)
