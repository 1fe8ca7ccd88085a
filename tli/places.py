"""Names of places as a user writes them: paths with a `~`, addresses that may hold a password."""

from __future__ import annotations

import re
from pathlib import Path

from tli.errors import InputError, Problem

_NULL_WORDS = frozenset({"none", "null", "nil", "false", "undefined", "n/a"})

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# Up to the last `@` before a blank or a quote: a password may hold any other character, `@` and `/` too.
_USERINFO = re.compile(r"(?<=://)[^\s'\"]*@")
_QUERY = re.compile(r"(?<=[?&;])([^=&;\s'\"]+)=[^&;\s'\"]+")


def expanded(path: str | Path, where: str) -> Path:
    """The path with `~` or `~user` at its beginning replaced by that home folder.

    Args:
        path: as the user wrote it.
        where: the setting or option that it came from.

    Raises:
        InputError: this system knows no such user, or no home folder.
    """
    if not str(path).startswith("~"):
        plain = Path(path)
        # `./~name` means a folder of that name, and goes on meaning it without the `./` that a Path drops.
        return Path.cwd() / plain if str(plain).startswith("~") else plain
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user = Path(path).parts[0]
        got = f"{str(path)!r}, of which {user!r} is no home folder here"
        raise InputError(Problem(where, got, "a path", f"./{path}, if that is its name")) from None


def means_null(text: str) -> bool:
    """Whether a text is a word for nothing, which YAML and a command line take for a name like any other.

    What really has such a name is written otherwise, a file as `./none`.
    """
    return text.strip().lower() in _NULL_WORDS


def is_address(text: str) -> bool:
    """Whether a text begins like an address: `scheme://`."""
    return _ADDRESS.match(text) is not None


def masked_userinfo(text: str) -> str:
    """The text without what may be secret in its addresses: user, password, and values of the query."""
    if is_address(text) and "@" in text:  # an address alone: also with blanks or quotes in its password
        scheme, _, rest = text.partition("://")
        text = f"{scheme}://***@{rest.rpartition('@')[2]}"
    text = _USERINFO.sub("***@", text)
    return _QUERY.sub(r"\1=***", text) if "://" in text else text
