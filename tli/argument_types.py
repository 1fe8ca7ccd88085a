"""Types of the arguments of public functions: what is of another type is an InputError before any work."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

from tli.errors import InputError, Problem

_LONGEST = 60  # characters of a value in a message
_WRITTEN = (str, bytes, bool, int, float, type(None))  # values that a message shows; of others, the type


@dataclass(frozen=True)
class Kind:
    """What an argument may be.

    Attributes
    ----------
    expected : str
        In words.
    remedy : str
        What to write instead.
    types : tuple of type
        Of one of which it is; a bool is none of the numbers.
    attributes : tuple of str
        Where no type says it: all of these it has.
    """

    expected: str
    remedy: str = ""
    types: tuple[type, ...] = ()
    attributes: tuple[str, ...] = ()

    @property
    def optional(self) -> Kind:
        """The same, or None."""
        return replace(self, expected=f"{self.expected}, or None", types=(*self.types, type(None)))

    def accepts(self, value: object) -> bool:
        """Whether a value is of this kind."""
        if isinstance(value, bool) and bool not in self.types:
            return False
        if isinstance(value, self.types):
            return True
        # A class has the methods of its instances.
        named = self.attributes and not isinstance(value, type)
        return bool(named) and all(hasattr(value, name) for name in self.attributes)


def instance_of(kind: type, expected: str, remedy: str = "") -> Kind:
    """Of one class alone."""
    return Kind(expected, remedy, (kind,))


STRING = Kind("a text", types=(str,))
PATH = Kind("a path, as text or pathlib.Path", '"my-folder/"', (str, os.PathLike))
MODEL_NAME = Kind("a folder or a hub id, as text or pathlib.Path", '"my-model/"', (str, os.PathLike))
FLAG = Kind("True or False", types=(bool,))
WHOLE = Kind("a whole number", "0", (Integral,))
NUMBER = Kind("a number", types=(Real,))


def type_problems(given: Mapping[str, tuple[Any, Kind]], where: str = "") -> list[Problem]:
    """A problem for each value, by its name below `where`, that is of another kind than the one beside it."""
    return [
        Problem(f"{where}{name}", _described(value), kind.expected, kind.remedy)
        for name, (value, kind) in given.items()
        if not kind.accepts(value)
    ]


def require_types(**given: tuple[Any, Kind]) -> None:
    """Raises InputError with what `type_problems` finds."""
    if problems := type_problems(given):
        raise InputError(*problems)


def _described(value: object) -> str:
    """A short value as it is, of anything else its type: a model as text is pages long."""
    if isinstance(value, _WRITTEN):
        text = ascii(value)
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"a value of type {type(value).__name__}"
