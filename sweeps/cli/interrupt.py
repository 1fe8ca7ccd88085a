"""Ctrl-C and SIGTERM: stop a sweep at the next safe point."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sweeps.cli.output import print_json

_AGAIN_SECONDS = 0.05


STOPPED, TERMINATED = 130, 143  # what a shell gives for Ctrl-C and for SIGTERM


def stopped(what: str, *, terminated: bool, as_json: bool) -> int:
    """Say that nothing is lost; the exit code."""
    again = f"nothing is lost: the same command again goes on with {what}"
    print(f"\nstopped; {again}", file=sys.stderr)
    if as_json:
        print_json({"error": f"stopped; {again}", "problems": []})
    return TERMINATED if terminated else STOPPED


@contextmanager
def terminated_as_interrupted() -> Iterator[list[int]]:
    """Let SIGTERM, which schedulers of clusters send, stop a sweep as Ctrl-C does; gives those that came.

    In the main thread alone, where signals arrive; in another one nothing is changed.
    """
    came: list[int] = []

    def stop(number: int, _frame: object) -> None:
        came.append(number)
        raise KeyboardInterrupt  # and not by SIGINT, which a shell has ignored in what it starts by `&`

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with _raised_again(came):
            yield came
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _raised_again(came: list[int]) -> Iterator[None]:
    """Raise a KeyboardInterrupt again, a moment later, that met code from which nothing can be raised.

    Such are the callbacks of weak references, which databases and models have many of: the sweep would go on.
    """
    before, timers = sys.unraisablehook, list[threading.Timer]()

    def told(unraisable: sys.UnraisableHookArgs) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            before(unraisable)
            return
        number = signal.SIGTERM if came else signal.SIGINT
        timers.append(threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), number)))
        timers[-1].daemon = True
        timers[-1].start()

    sys.unraisablehook = told
    try:
        yield
    finally:
        sys.unraisablehook = before
        for timer in timers:
            timer.cancel()
