"""The delivery process, `python -m sweeps.tracking`, which the tracker starts."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TextIO

from sweeps.wording import masked

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "GIT_PYTHON_REFRESH": "quiet",
    # MLflow's own retries send `runs/create` again when only the reply was lost: ours look for the run first.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}


class Masking:
    """The log of this process: what libraries and errors write into it, without secrets."""

    def __init__(self, log: TextIO) -> None:
        self._log, self._begun = log, ""

    def write(self, text: str) -> int:
        """Write whole lines, with secrets masked: a traceback comes in pieces."""
        *lines, self._begun = f"{self._begun}{text}".split("\n")
        self._log.writelines(f"{masked(line)}\n" for line in lines)
        return len(text)

    def flush(self) -> None:
        """Write what is there of the last line."""
        self._log.write(masked(self._begun))
        self._begun = ""
        self._log.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)


def main() -> None:
    """Deliver until the driver closes the pipe or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout = sys.stderr = Masking(sys.stderr)
    with open(0, "rb", buffering=0, closefd=False) as pipe:  # unbuffered: what follows is for the delivery
        target = json.loads(pipe.readline())
    # MLflow reads its switches from the environment alone; this process is its own, so no other sees them.
    os.environ.update(QUIET)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.nice(5)  # training comes first

    from sweeps.tracking.delivery import deliver

    deliver(target)


if __name__ == "__main__":
    main()
