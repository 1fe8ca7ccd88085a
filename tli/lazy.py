"""What a package offers, imported when it is used: `import tli` must not wait for torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

_DISTRIBUTION = "tli-sweeps"


def lazy(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and the `__dir__` of a package whose names lie in modules of its folders.

    Args:
        package: its name; one that is in no other has the distribution's `__version__`, too.
        modules: by name, the module that has it.
    """
    offered = [*modules, "__version__"] if "." not in package else [*modules]

    def getattr_(name: str) -> Any:
        if name == "__version__" and name in offered:
            return _version()
        if name in modules:
            return getattr(import_module(modules[name]), name)
        import difflib

        near = difflib.get_close_matches(name, offered, n=1)
        meant = f"; did you mean {near[0]!r}?" if near and not name.startswith("__") else ""
        raise AttributeError(f"module {package!r} has no attribute {name!r}{meant}")

    def dir_() -> list[str]:
        return sorted([*offered, "__doc__", "__name__", "__path__"])

    return getattr_, dir_


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:  # a checkout on PYTHONPATH
        return "0+unknown"
