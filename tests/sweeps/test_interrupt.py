"""Ctrl-C and SIGTERM: what is said, what it exits with, and that none is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest

from sweeps.__main__ import main
from sweeps.cli.interrupt import terminated_as_interrupted
from tests.forked import Forked, command, forked
from tests.sweeps.conftest import WriteSpec

SPEC = "my-sweep.yaml"


@pytest.fixture
def place(write_spec: WriteSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the spec of a sweep that goes on for minutes."""
    write_spec("my-sweep", replace={"tokens: 512": "tokens: 1024000"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWEEPS_RUNS", raising=False)
    return tmp_path


@pytest.mark.parametrize(("number", "code", "times"), [(signal.SIGINT, 130, 2), (signal.SIGTERM, 143, 1)])
def test_a_run_that_is_stopped_says_that_it_goes_on(
    number: signal.Signals, code: int, times: int, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = 0
    for _ in range(times):
        with forked(command, "sweeps", "run", SPEC, "--runner", "inline", folder=place) as driver:
            wait_for_more_than(measured, place, driver)
            again = main(["run", SPEC, "--runner", "inline"])  # while it is driven
            driver.send_signal(number)
            _, err = driver.communicate(timeout=60)
        assert again == 1
        told = capsys.readouterr().err
        assert told.startswith(f"error: my-sweep is being driven by process {driver.pid} on ")
        assert driver.returncode == code, err
        assert err == "\nstopped; nothing is lost: the same command again goes on with my-sweep\n"
        measured = len(curve(place).read_text().splitlines())


def curve(place: Path) -> Path:
    return place / "runs/my-sweep/trials/0000/curve.jsonl"


def wait_for_more_than(measured: int, place: Path, driver: Forked | subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not curve(place).is_file() or len(curve(place).read_text().splitlines()) <= measured:
        assert driver.poll() is None, "it ended"
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_not_lost_where_nothing_can_be_raised(number: signal.Signals) -> None:
    """As in a callback of a weak reference, which Python calls from wherever the last strong one goes."""
    reached: list[str] = []

    def callback(_gone: object) -> None:
        reached.append("callback")
        signal.raise_signal(number)
        reached.append("never")

    def work() -> None:
        thing = type("Thing", (), {})()
        reference = weakref.ref(thing, callback)
        del thing
        assert reference() is None
        reached.append("went on")
        time.sleep(10)

    before, kept = sys.unraisablehook, signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with terminated_as_interrupted() as came, pytest.raises(KeyboardInterrupt):
            work()
    finally:
        signal.signal(signal.SIGINT, kept)
    assert reached == ["callback", "went on"]
    assert came == ([number] * 2 if number is signal.SIGTERM else [])
    assert sys.unraisablehook is before


@pytest.mark.slow
def test_sigterm_stops_what_a_script_started_in_the_background(place: Path) -> None:
    """A shell that is not interactive starts `command &` with SIGINT ignored."""
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); from sweeps.__main__ import main; "
    code += "raise SystemExit(main(['run', 'my-sweep.yaml', '--runner', 'inline']))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, text=True) as driver:
        wait_for_more_than(0, place, driver)
        driver.terminate()
        assert driver.wait(60) == 143


def test_a_trial_that_is_stopped(place: Path) -> None:
    with forked(command, "sweeps", "trial", SPEC, "1", folder=place) as driver:
        assert next(driver.lines()).startswith("step ")
        driver.send_signal(signal.SIGINT)
        _, err = driver.communicate(timeout=60)
    assert (driver.returncode, err) == (130, "\nstopped\n")
