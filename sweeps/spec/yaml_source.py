"""A strict YAML reader: plain values, with the line and column of each.

Stricter than PyYAML's own reading, because what it reads in silence costs a night on a cluster: `1e-4` is a
number here, `no` and `1:30` are texts, a name given twice is refused, and so are tags, anchors, aliases and
invisible characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from sweeps.errors import Problem, SpecError
from sweeps.spec.written import Source
from sweeps.wording import formatted, masked
from tli.json_files import read_bounded

LARGEST_FILE = 1_000_000  # bytes
DEEPEST = 20  # levels of mappings and lists
MOST_VALUES = 10_000  # a parser in Python reads no more than this in a second or two

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)")
_FLOAT = re.compile(r"[-+]?([0-9]+(_[0-9]+)*(\.[0-9_]*)?|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")
_SPECIAL = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}
_MOST_DIGITS = 100


def read_file(path: Path, name: str | None = None) -> Source:
    """Read one YAML file whose root is a mapping.

    Raises:
        SpecError: with every problem of the text that can be seen at once.
    """
    name = name or str(path)
    if path.is_dir():
        raise SpecError(Problem(name, "a folder", "a YAML file", "naming the file in it"))
    try:
        raw = read_bounded(path, LARGEST_FILE)
    except ValueError as error:
        expected = f"a YAML file of at most {LARGEST_FILE:,} bytes"
        raise SpecError(Problem(name, str(error), expected)) from None
    except OSError as error:
        raise SpecError(
            Problem(name, f"a file that cannot be read ({error.strerror})", "a YAML file")
        ) from None
    return read_bytes(raw, name)


def read_bytes(raw: bytes, name: str) -> Source:
    """Read YAML bytes whose root is a mapping; `name` is what messages call them. Raises SpecError."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        got = f"the byte 0x{raw[error.start]:02x}, which is not UTF-8"
        problem = Problem(f"{name}:{line}:{column}", got, "UTF-8 text", "saving the file as UTF-8")
        raise SpecError(problem) from None
    problems = [*_unseen(text, name)]
    if problems:
        raise SpecError(*problems)
    reader = _Reader(text, name)
    values = reader.document()
    if reader.problems:
        raise SpecError(*reader.problems)
    if values is None:
        raise SpecError(
            Problem(name, "an empty file", "a spec in YAML", "`sweeps run quickstart` for one that works")
        )
    if not isinstance(values, dict):
        kind = "a list" if isinstance(values, list) else formatted(values)
        where = f"{name}:{reader.start[0]}:{reader.start[1]}"
        raise SpecError(Problem(where, f"{kind} at the root", "a mapping", "lines such as `name: my-sweep`"))
    return Source(name, values, reader.places)


def parse_value(text: str, where: str) -> Any:
    """One value written in YAML on a command line, such as `3`, `1e-4`, `[1, 2]` or `{log: [1e-4, 1e-2]}`.

    Raises:
        SpecError: placed at `where`.
    """
    reader = _Reader(text, "")
    value = reader.document()
    if reader.problems:
        problems = (Problem(where, each.got, each.expected, each.remedy) for each in reader.problems)
        raise SpecError(*problems)
    return value


def _unseen(text: str, name: str) -> Iterator[Problem]:
    """Characters that look like nothing or like a space, and tabs where YAML counts columns."""
    for number, line in enumerate(text.split("\n"), start=1):
        body = _without_comment(line)
        if not body.strip(" \t\r"):
            continue
        indent = body[: len(body) - len(body.lstrip(" \t"))]
        if "\t" in indent:
            where = f"{name}:{number}:{indent.index(chr(9)) + 1}"
            yield Problem(where, "a tab in the indentation", "spaces", "two spaces for each level")
        for column, character in enumerate(body, start=1):
            category = unicodedata.category(character)
            odd_space = category == "Zs" and character != " "
            if odd_space or category in ("Cf", "Zl", "Zp") or (category == "Cc" and character not in "\t\r"):
                label = unicodedata.name(character, "control character").lower()
                got = f"the invisible character U+{ord(character):04X} ({label})"
                expected = "a plain space" if odd_space else "text that can be seen"
                yield Problem(f"{name}:{number}:{column}", got, expected, "typing the line again")


def _without_comment(line: str) -> str:
    match = re.match(r"^[^'\"]*?(?:^|\s)#", line)
    return line[: match.end() - 1] if match else line


class _Reader:
    """Builds values from the parser's events, one by one: nothing is expanded, nothing recurses far."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.problems: list[Problem] = []
        self.places: dict[str, tuple[int, int]] = {}
        self.start = (1, 1)
        self.values = 0
        self._text = text
        self._events = yaml.parse(text, Loader=yaml.SafeLoader)

    def document(self) -> Any:
        """The value of the only document; problems found on the way are in `problems`."""
        value = None
        try:
            for event in self._events:
                if isinstance(event, yaml.DocumentStartEvent):
                    first = next(self._events)
                    self.start = _place(first)
                    value = self._value(first, "", 1)
                    break
            for event in self._events:
                if isinstance(event, yaml.DocumentStartEvent):
                    remedy = "one file for each spec"
                    self._add(event, "a second document", "one document", remedy)
                    break
        except _TooMuchError:
            pass
        except yaml.MarkedYAMLError as error:
            self.problems.append(_syntax_problem(error, self.name))
        except yaml.reader.ReaderError as error:
            before, number = self._text[: error.position], error.character
            where = f"{self.name}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
            got = f"the control character U+{number if isinstance(number, int) else ord(number):04X}"
            self.problems.append(Problem(where, got, "text that can be seen"))
        return value

    def _value(self, event: yaml.Event, path: str, depth: int) -> Any:
        self.values += 1
        if self.values > MOST_VALUES:
            self._add(event, f"more than {MOST_VALUES:,} values", "a spec as one is written by hand")
            raise _TooMuchError
        if depth > DEEPEST:
            self._add(event, f"more than {DEEPEST} levels of nesting", "at most three or four")
            raise _TooMuchError
        self._refuse_marks(event)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path, depth)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(path, depth)
        if isinstance(event, yaml.ScalarEvent):
            return scalar(event.value) if event.style is None else event.value
        return None

    def _mapping(self, path: str, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if isinstance(event, yaml.ScalarEvent):
                self._refuse_marks(event)
                key = str(event.value)
            else:
                self._add(event, "a name that is itself a mapping, a list or an alias", "a plain name")
                self._value(event, path, depth + 1)
                key = ""
            inner = f"{path}.{key}" if path else key
            if key and key in result:
                first = self.places[inner][0]
                remedy = f"deleting this one or the one on line {first}"
                self._add(event, f"{formatted(key)} a second time", "every name once", remedy)
            else:
                self.places[inner] = _place(event)
            result[key] = self._value(next(self._events), inner, depth + 1)
        return result

    def _list(self, path: str, depth: int) -> list[Any]:
        result: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            inner = f"{path}[{len(result)}]"
            self.places[inner] = _place(event)
            result.append(self._value(event, inner, depth + 1))
        return result

    def _refuse_marks(self, event: yaml.Event) -> None:
        remedy = "writing the value out"
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        if isinstance(event, yaml.AliasEvent):
            self._add(event, f"the alias *{anchor}", "no aliases", remedy)
        elif anchor:
            self._add(event, f"the anchor &{anchor}", "no anchors", remedy)
        if tag is not None:
            self._add(event, f"the tag {tag}", "no tags", "the plain value")

    def _add(self, event: yaml.Event, got: str, expected: str, remedy: str = "") -> None:
        line, column = _place(event)
        self.problems.append(Problem(f"{self.name}:{line}:{column}", masked(got), expected, remedy))


class _TooMuchError(Exception):
    """Reading stops here; the problem is already noted."""


def _place(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    assert mark is not None, "events that the parser makes have marks"
    return mark.line + 1, mark.column + 1


def _syntax_problem(error: yaml.MarkedYAMLError, name: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
    reason = error.problem or "text that cannot be read"
    if error.context and error.context_mark:
        reason += f", {error.context} from line {error.context_mark.line + 1}"
    remedy = "closing every bracket and quote, and a space after every colon"
    return Problem(where, f"broken YAML ({masked(reason)})", "YAML", remedy)


def scalar(text: str) -> Any:
    """The value of an unquoted scalar: null, a boolean, a number or the text itself (YAML 1.2, and 1e-4)."""
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if len(text) > _MOST_DIGITS or _LEADING_ZERO.fullmatch(text):
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    if text.lower() in _SPECIAL:
        return float(_SPECIAL[text.lower()])
    return float(text.replace("_", "")) if _FLOAT.fullmatch(text) else text
