"""The kinds of events in the tracking outbox, and their validation when they are read back.

The file lies in a folder that a stranger may have written, and the delivering process trusts what it reads:
an event that is not as the driver writes it is none, whatever else is in its line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from sweeps.records import Point, State

OPENINGS = ("sweep", "trial")  # kinds of event that begin something which an "end" ends
REQUEST = (
    "sweeps.request"  # the tag with the key under which a trial was created: a number may be given again
)
LARGEST_REPORT = 1 << 26  # bytes of the sweep's page
MODEL = "sweeps.model"  # the tag that tells a registered version from every other
_LATEST = 1e11  # seconds since the epoch; no time is later
_MOST = 2**31  # above every trial's number

Event = dict[str, Any]


def parse(line: bytes) -> Event | None:
    """The event of a line; None where it is none."""
    try:
        event = json.loads(line)
        json.dumps(event, ensure_ascii=False).encode()  # half a surrogate pair could be sent nowhere
        named = (event.get("number") is None or _is_number(event["number"])) and _is_text(
            event.get("request", "")
        )
        return event if named and _KINDS[event["kind"]](event) and _is_time(event.get("time", 0)) else None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _is_points(event: Event) -> bool:
    for evaluation in event["evals"]:
        point = Point.from_json(evaluation)
        if not _is_time(evaluation["time"]) or max(point.step, point.tokens) >= 2**53:
            return False
    return _is_number(event["number"]) and all(
        _is_whole(step) and _is_loss(loss) and _is_time(when) for step, loss, when in event["train"]
    ) and bool(event["evals"] or event["train"])  # fmt: skip


def _is_trial(event: Event) -> bool:
    named = _is_text(event["name"]) and _is_number(event["number"])
    return named and _are_texts(event["params"]) and _are_texts(event["tags"]) and "time" in event


def _is_sweep(event: Event) -> bool:
    of_it = event.get("number") is None and "time" in event
    return of_it and _are_texts(event["params"]) and _are_texts(event["tags"])


def _is_end(event: Event) -> bool:
    metrics = event.get("metrics", {})
    objectives = event.get("objectives", [])
    return (
        "time" in event
        and event["status"] in (State.COMPLETE, State.PRUNED, State.FAIL)
        and _are_texts(event.get("tags", {}))
        and isinstance(metrics, dict)
        and all(map(_is_loss, metrics.values()))
        and all(_is_whole(n) and _is_loss(value) and _is_time(when) for n, value, when in objectives)
    )


def _is_rank(event: Event) -> bool:
    requests = event.get("requests", {})
    numbers = [*event["numbers"], *event.get("first", [])]
    return "time" in event and all(map(_is_number, numbers)) and _are_texts(requests)


def _is_gaps(event: Event) -> bool:
    told = all(_is_whole(step) and _is_loss(gap) and _is_time(when) for step, gap, when in event["gaps"])
    final = event.get("final")
    return (
        "time" in event
        and _is_number(event["number"])
        and _is_number(event["against"])
        and told
        and (final is None or _is_loss(final))
    )


def _is_mark(event: Event) -> bool:
    return "time" in event and _are_texts(event["tags"])


def _is_register(event: Event) -> bool:
    names = event["names"]
    plain = isinstance(names, list) and bool(names) and all(map(_is_model_name, names))
    whole = _is_number(event["number"]) and _is_number(event["attempt"])
    return plain and whole and _are_texts(event["tags"]) and MODEL in event["tags"] and "time" in event


def _is_model_name(value: Any) -> bool:
    return _is_text(value) and not name_problem(value)


def name_problem(name: str) -> str | None:
    """Why a registry takes no model of this name; None where it does."""
    if not name.strip() or name != name.strip():
        return "empty, or with spaces around it"
    if any(each in name for each in "/:'\"\\") or not name.isprintable():
        return "with a slash, a colon, a quote, a backslash or a control character in it"
    return "longer than 200 characters" if len(name) > 200 else "dots alone" if not name.strip(".") else None


def _is_report(event: Event) -> bool:
    return event.get("number") is None and "time" in event and _is_text(event["sha256"])


_KINDS: Mapping[str, Callable[[Event], bool]] = {
    "sweep": _is_sweep,
    "trial": _is_trial,
    "points": _is_points,
    "end": _is_end,
    "rank": _is_rank,
    "gaps": _is_gaps,
    "mark": _is_mark,
    "experiment": lambda event: event.get("number") is None and _is_mark(event),
    "register": _is_register,
    "report": _is_report,
}


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_number(value: Any) -> bool:
    return _is_whole(value) and value < _MOST


def _is_loss(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (abs(value) < 1e300 or not math.isfinite(value))
    )


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LATEST


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))
