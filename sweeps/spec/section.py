"""What every section of a spec is: a frozen model whose fields say what belongs in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from sweeps.spec.ranges import LARGEST_INT
from tli.places import means_null


def setting(expected: str, default: Any = ..., *, example: Any = None, **limits: Any) -> Any:
    """A field with what belongs there in words, and an example of it."""
    shown_example = example if example is not None or default is ... else default
    return Field(default, description=expected, examples=[shown_example], **limits)


def name_of(names: Sequence[str], default: Any = ..., **limits: Any) -> Any:
    """A field that holds one of a few names."""
    return setting(f"one of {', '.join(names)}", default, json_schema_extra={"names": [*names]}, **limits)


def section(model: type[BaseModel], example: Any = None) -> Any:
    """A field that holds a section; with an example it must be there."""
    expected = f"a mapping of {', '.join(model.model_fields)}"
    if example is not None:
        return Field(..., description=expected, examples=[example])
    return Field(default_factory=model, description=expected, examples=[None])


class Settings(BaseModel):
    """A section of the spec: frozen, strict in its types, without unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*", mode="after")
    @classmethod
    def _known(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None, "every validated field has a name"
        extra = cls.model_fields[info.field_name].json_schema_extra
        names = extra.get("names") if isinstance(extra, dict) else None
        if isinstance(names, list) and value is not None and value not in names:
            raise ValueError("not a known name")
        if names is None and info.field_name != "name" and isinstance(value, str) and means_null(value):
            raise ValueError("null is meant")
        if isinstance(value, int) and abs(value) > LARGEST_INT:
            raise ValueError("too large a number")
        return value

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return self.model_dump()
