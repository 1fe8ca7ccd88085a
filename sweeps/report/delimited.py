"""Rows as comma-separated values (RFC 4180), safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tli.terminal import printable

_FORMULA = tuple("=+-@\t\r＝＋－＠")  # what a spreadsheet takes a text for a formula by


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    r"""The rows under a header, lines ended by ``\r\n``.

    Numbers have all their digits; a loss that is no number is ``nan`` or ``inf``; true and false are so
    written; what is missing is empty. A text that a spreadsheet would run as a formula begins with an
    apostrophe, and characters that steer a terminal are escapes: only texts from elsewhere have either.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow([_cell(name) for name in columns])
    writer.writerows([_cell(row[name]) for name in columns] for row in rows)
    return out.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    text = str(value)
    return printable(f"'{text}" if text.startswith(_FORMULA) else text)
