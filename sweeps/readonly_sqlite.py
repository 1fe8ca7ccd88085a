"""Read-only SQLite connections that leave no trace: no byte, no journal, no change of mode."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

_TRIES = 20
_CAME_OR_WENT = ("SQLITE_CANTOPEN", "SQLITE_READONLY")  # a driver that started or ended between look and open
_AHEAD = 2  # what byte 18 of a file says that is written ahead (WAL)
_INDEX_HEADER = 96  # bytes: two copies, each with the count of commits
Mark = tuple[int, int, int]


def connect(file: Path, *, patience: float = 60.0) -> sqlite3.Connection:
    """A connection that reads a SQLite file and cannot write it.

    A file that is written ahead has two companions while it is open. SQLite makes them for every reader, and
    one that may not write cannot remove them again; so which way of opening leaves none depends on what lies
    there. A driver may go on writing meanwhile.

    Args:
        file: the database.
        patience: seconds to wait for a lock.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    for _ in range(_TRIES):
        try:
            return _connected(file.absolute(), patience)
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith(_CAME_OR_WENT):
                raise
        time.sleep(0.02)
    return _connected(file.absolute(), patience)


def _connected(file: Path, patience: float) -> sqlite3.Connection:
    ahead, shared = (file.with_name(f"{file.name}{end}") for end in ("-wal", "-shm"))
    if shared.exists():  # by a driver that lives, or one that was killed: SQLite rebuilds the index in memory
        return _opened(file, "mode=ro&readonly_shm=1", patience)
    if ahead.exists() and ahead.stat().st_size:
        return _copied(file, ahead)
    return _opened(file, "immutable=1" if _written_ahead(file) else "mode=ro", patience)


def mark(file: Path) -> Mark | None:
    """What changes with a file that nothing protects while `connect` reads it; None of one that is protected.

    Read between two equal marks, the file was the same all along.
    """
    try:
        if file.with_name(f"{file.name}-shm").exists():
            return None
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def version(file: Path) -> tuple[object, ...] | None:
    """What is different once a file holds something else, be it protected or not; None: not known.

    A writer that works ahead of the file counts its commits in the index beside it, where SQLite's readers
    look for them.
    """
    ahead, shared = (file.with_name(f"{file.name}{end}") for end in ("-wal", "-shm"))
    found: list[object] = []
    try:
        for each in (file, ahead):
            stat = each.stat() if each.exists() else None
            found.append(stat and (stat.st_ino, stat.st_size, stat.st_mtime_ns))
        if shared.exists():
            with shared.open("rb", buffering=0) as index:
                found.append(index.read(_INDEX_HEADER))
    except OSError:
        return None
    return tuple(found)


def _opened(file: Path, options: str, patience: float) -> sqlite3.Connection:
    # Quoted for SQLite's own URIs: a file's name may hold a question mark or a percent sign.
    name = f"file:{quote(str(file))}?{options}"
    opened = sqlite3.connect(name, uri=True, timeout=patience, check_same_thread=False)
    try:
        opened.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()  # only now are its companions opened
    except BaseException:
        opened.close()
        raise
    return opened


def _written_ahead(file: Path) -> bool:
    with file.open("rb") as opened:
        start = opened.read(20)
    return len(start) == 20 and start[18] == _AHEAD


def _copied(file: Path, ahead: Path) -> sqlite3.Connection:
    """The content of a file whose journal came without its index: a copy of a folder, most often."""
    with tempfile.TemporaryDirectory(prefix="sweeps-look-") as folder:
        for each in (file, ahead):
            shutil.copyfile(each, Path(folder) / each.name)
        kept = sqlite3.connect(":memory:", check_same_thread=False)
        with closing(sqlite3.connect(Path(folder) / file.name)) as copy:
            copy.backup(kept)
    return kept
