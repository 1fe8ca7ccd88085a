"""The learning curve of a trial on disk: one JSON line a measurement, appended by the worker."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sweeps.records import Point
from tli.files import lines, open_regular

CURVE = "curve.jsonl"  # in the trial's folder, written by the worker


_LINE = 1 << 26  # bytes of a point with its train losses, at the most


def append_curve(path: Path, point: Point, owner: str = "") -> None:
    """Add one point of its owner to a trial's curve.

    Raises:
        OSError: the file cannot be written, or is a link.
    """
    # The line before may have been cut short by a kill.
    line = "\n" + json.dumps({"owner": owner, **point.to_json()}) + "\n"
    with os.fdopen(open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666), "ab") as out:
        out.write(line.encode())


def read_curve(path: Path, owner: str | None = None) -> list[Point]:
    """Points of a trial by step, the first of each; see `measurements`."""
    points: dict[int, Point] = {}
    for point in measurements(path, owner):
        points.setdefault(point.step, point)
    return [points[step] for step in sorted(points)]


def measurements(path: Path, owner: str | None = None) -> Iterator[Point]:
    """All that a trial measured, in the order of writing; what is no point of it is passed over.

    One that was killed before its state was written measures some steps again. A line may have been cut short
    by a kill, or be of another study's trial of this number.

    Args:
        path: of the curve; one that is not there, or is no regular file, has no points.
        owner: whose points are read; None for all, for those who only look.
    """
    with suppress(OSError):
        for line, _ in lines(path, 0, _LINE):
            try:
                value = json.loads(line or b"null")
                if owner is None or value["owner"] == owner:
                    yield Point.from_json({key: value[key] for key in value if key != "owner"})
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
                continue
