"""The catalogue of a spec's settings: every dotted path, with what belongs there."""

from __future__ import annotations

from typing import Any, get_args, get_origin

from pydantic import BaseModel

from sweeps.spec.faults import ANY_NAME, Setting


def catalogue_of(model: type[BaseModel], prefix: str = "") -> dict[str, Setting]:
    """Every dotted path of a model, sections before what is in them."""
    found: dict[str, Setting] = {}
    for name, described in model.model_fields.items():
        inner = next((each for each in _alternatives(described.annotation) if _is_section(each)), None)
        extra = described.json_schema_extra
        names = extra.get("names", ()) if isinstance(extra, dict) else ()
        example = described.examples[0] if described.examples else None
        found[f"{prefix}{name}"] = Setting(
            expected=described.description or "",
            example=example,
            names=tuple(names),  # type: ignore[arg-type]
            section=inner is not None or get_origin(described.annotation) is dict,
            required=described.is_required(),
            optional=type(None) in _alternatives(described.annotation),
        )
        if inner is not None and get_origin(described.annotation) is dict:  # of sections that the user names
            section = f"{prefix}{name}.{ANY_NAME}"
            expected = f"a mapping of {', '.join(inner.model_fields)}, or a text"
            found[section] = Setting(expected, "builtin:stdlib", section=True)
            found.update(catalogue_of(inner, f"{section}."))
        elif inner is not None:
            found.update(catalogue_of(inner, f"{prefix}{name}."))
    return found


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) or (annotation,)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
