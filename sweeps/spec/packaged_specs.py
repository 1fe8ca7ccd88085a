"""The specs that come with the package, by name."""

from __future__ import annotations

from importlib import resources

_SUFFIX = ".yaml"


def packaged() -> tuple[str, ...]:
    """Their names, in order."""
    names = (file.name for file in (resources.files("sweeps") / "specs").iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)))


def packaged_text(name: str) -> bytes:
    """The YAML of one of them."""
    return (resources.files("sweeps") / "specs" / f"{name}{_SUFFIX}").read_bytes()
