"""The delivering process, `python -m sweeps.tracking`: the tracker starts it and says where to deliver."""

from __future__ import annotations

import json
import os
import signal

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "GIT_PYTHON_REFRESH": "quiet",
    # MLflow's own retries send `runs/create` again when only the reply was lost: ours look for the run first.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}


def main() -> None:
    """Deliver until the driver closes the pipe or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(0, "rb", buffering=0, closefd=False) as pipe:  # unbuffered: what follows is for the delivery
        target = json.loads(pipe.readline())
    # MLflow reads its switches from the environment alone; this process is its own, so nobody else sees them.
    os.environ.update(QUIET)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.nice(5)  # training comes first

    from sweeps.tracking.delivery import deliver

    deliver(target)


if __name__ == "__main__":
    main()
