"""How a model is grown, as a user writes it. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from tli.planning.experts import Experts

Method = Literal["tli", "dus", "stack", "repeat", "moe", "none"]
Init = Literal["copy", "identity", "damped", "mean", "slerp", "aligned", "predicted", "random"]
Place = Literal["end", "start", "middle"]
Origin = Literal["previous", "next", "both"]
Rule = Literal["1/n", "1/sqrt(n)"]  # residual scales by how often a layer stands in the new stack
Identity = Literal["zero-output", "zero-gain"]
METHODS: tuple[Method, ...] = get_args(Method)
INITS: tuple[Init, ...] = get_args(Init)
PLACES: tuple[Place, ...] = get_args(Place)
SOURCES: tuple[Origin, ...] = get_args(Origin)
RULES: tuple[Rule, ...] = get_args(Rule)
IDENTITIES: tuple[Identity, ...] = get_args(Identity)

# The first weights that the papers of a method use, where the user names none.
_USUAL_INIT: dict[str, Init] = {"tli": "identity", "dus": "copy", "stack": "copy", "repeat": "copy"}
_USUAL_SCALE = {"identity": 0.0, "damped": 0.5}
_USUAL_EXPERTS = 8
# Which settings a method reads, besides those of first weights.
_READ = {
    "tli": ("k", "place", "layers", "after", "least_important_sets", "block"),
    "dus": ("m",),
    "stack": ("g",),
    "repeat": ("layers", "g"),
    "moe": (),
    "none": (),
}
UNSCALED = ("copy", "identity")  # first weights that do not read the residual scale
FROM_A_SOURCE = ("copy", "identity", "damped")  # that start from one old layer
_WEIGHTS = ("init", "scale", "source", "noise", "identity")
RANGE = re.compile(r"\s*(\d{0,6})\s*:\s*(\d{0,6})\s*")
LIST = re.compile(r"\s*\d{1,6}\s*(,\s*\d{1,6}\s*)*")


RENAMED = {"sets": "least_important_sets"}  # what a setting was called in earlier versions


def with_new_names(value: Mapping[str, Any], renamed: Mapping[str, str] = RENAMED) -> dict[str, Any]:
    """A mapping that an earlier version wrote, under the names of this one."""
    return {
        renamed[name] if name in renamed and renamed[name] not in value else name: item
        for name, item in value.items()
    }


@dataclass(frozen=True)
class Injection:
    """How a model is grown. What a method does not read is left alone, so a sweep may search over methods.

    Its values are judged by what uses them (`plan`, `upscale`, a spec), with all other problems at once.

    Attributes
    ----------
    method : {"tli", "dus", "stack", "repeat", "moe", "none"}
        tli: a new layer into every set of `k` layers. dus: two copies of the stack, the last `m` layers of
        the first and the first `m` of the second dropped [1]_. stack: the whole stack `g` times [2]_.
        repeat: each layer of the range `layers` `g` times in a row. moe: no new layers, but experts. none:
        the model as it is (the control).
    k : int
        Layers in a set; it need not divide the depth, the last set may be shorter.
    place : {"end", "start", "middle"}
        Where in its set a new layer goes.
    layers : str, optional
        Range ``start:stop`` of layers, from 0, the last one excluded; either end may be left out.
    after : str, optional
        Instead of `k`: the layers, as in ``3,7``, that a new one follows.
    least_important_sets : int, optional
        Only so many sets get a new layer: those whose layers change the hidden state least.
    block : int
        Layers injected together, as one block: for stacks that repeat a pattern of several layers.
    m : int, optional
        dus: layers dropped from the end of one copy and from the start of the other.
    g : int
        stack, repeat: how many times.
    init : str, optional
        First weights of a new layer: copy, identity, damped, mean, slerp, aligned, predicted or random
        (`tli.initializers.initial`). Where left out, identity for tli and copy for the others.
    scale : float or str, optional
        Residual scale: what a new layer adds to the stream is scaled by it. A number from 0 to 1, or
        ``1/n`` or ``1/sqrt(n)``, where the layer's source stands n times in the new stack. copy and identity
        are its ends and do not read it; where left out, 0.5 for damped and 1 for the others.
    source : {"previous", "next", "both"}
        Old layer that copy, identity and damped start from; both: the mean of the two.
    noise : float
        Deviation of normal noise on the matrices of a new layer, relative to that of each matrix.
    identity : {"zero-output", "zero-gain"}
        How identity is reached where a norm follows a sublayer: zero-output zeroes what is normed, zero-gain
        the gain of the norm. Elsewhere both are the same.
    experts : Experts
        The feed-forward parts become experts after the layers were injected, when it has a count.

    References
    ----------
    .. [1] SOLAR 10.7B: depth up-scaling. arXiv 2312.15166.
    .. [2] Stacking Your Transformers. arXiv 2405.15319.

    Examples
    --------
    >>> import tli
    >>> tli.Injection(k=2).resolved().init
    'identity'
    >>> tli.Injection("dus", m=8).resolved().label
    'dus m=8'
    """

    method: Method = "tli"
    k: int | None = 4
    place: Place = "end"
    layers: str | None = None
    after: str | None = None
    least_important_sets: int | None = None
    block: int = 1
    m: int | None = None
    g: int = 2
    init: Init | None = None
    scale: float | Rule | None = None
    source: Origin = "previous"
    noise: float = 0.0
    identity: Identity = "zero-output"
    experts: Experts = field(default_factory=Experts)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Injection:
        """The inverse of `dataclasses.asdict`; names of earlier versions, which kept files hold, are taken.

        Parameters
        ----------
        value : mapping
            Fields by name; what is left out has its default.

        Returns
        -------
        Injection
            Not yet checked: `plan` does.

        Raises
        ------
        TypeError
            Other names.
        """
        value = with_new_names(value)
        return cls(**{**value, "experts": Experts(**value.get("experts", {}))})

    @property
    def deepens(self) -> bool:
        """Whether the method adds layers."""
        return self.method not in ("moe", "none")

    def resolved(self) -> Injection:
        """The same with nothing left to a default that depends on another setting, and with defaults where
        the method reads nothing: what two users mean the same by is equal.

        Returns
        -------
        Injection
            A plan has one of these.
        """
        read = (*_READ[self.method], *(_WEIGHTS if self.deepens else ()))
        unread = {item.name: _DEFAULT[item.name] for item in fields(self) if item.name not in read}
        unread["experts"] = self.experts.resolved() if self.method != "none" else Experts()
        if self.method == "moe":
            unread["experts"] = counted(self).resolved()
        if self.method != "tli" or self.after is not None:
            unread |= {"k": None, "place": "end", "least_important_sets": None}
            if self.method == "tli":
                unread["layers"] = None
        del unread["method"]
        decided = replace(self, **unread)
        if not self.deepens:
            return decided
        init = self.init or _USUAL_INIT[self.method]
        scale = self.scale if self.scale is not None else _USUAL_SCALE.get(init, 1.0)
        if init in UNSCALED:
            scale = _USUAL_SCALE.get(init, 1.0)
        source = self.source if init in FROM_A_SOURCE else "previous"
        scale = scale if isinstance(scale, str) else float(scale)
        return replace(decided, init=init, scale=scale, source=source, noise=float(self.noise))

    @property
    def label(self) -> str:
        """What tells its shape from that of others, of a resolved one: `K=4`, `dus m=2`, `K=4 8 experts`."""
        parts = []
        if self.method == "tli":
            parts = [f"K={self.k}" if self.after is None else f"after {self.after}"]
        elif self.method != "moe":
            parts = [self.method]
        if self.method != "none":
            shown = {"m": self.m, "layers": self.layers, "sets": self.least_important_sets}
            shown |= {"g": self.g} if "g" in _READ[self.method] else {}
            shown |= {"block": self.block} if self.block != 1 else {}
            parts += [f"{name}={value}" for name, value in shown.items() if value is not None]
        if self.experts.count is not None:
            parts += [f"{self.experts.count} experts"]
        return " ".join(parts)

    def read_by_method(self, name: str) -> bool:
        """Whether a method reads a setting; `experts` and what is about first weights are read by all.

        Parameters
        ----------
        name : str
            Of a field.

        Returns
        -------
        bool
            False for an unknown method.
        """
        return name in ("method", "experts", *_WEIGHTS, *_READ.get(self.method, ()))


def counted(injection: Injection) -> Experts:
    """The experts, with the usual number where the method is of experts and names none."""
    experts = injection.experts
    usual = injection.method == "moe" and experts.count is None
    return replace(experts, count=_USUAL_EXPERTS) if usual else experts


_DEFAULT: dict[str, Any] = {name: getattr(Injection(), name) for name in Injection.__dataclass_fields__}


def read_range(text: str | None, depth: int) -> tuple[int, int]:
    """`start:stop` within a stack of `depth` layers; all of it for None."""
    if text is None:
        return 0, depth
    match = RANGE.fullmatch(text)
    assert match, "a range that is none is a problem, and problems were raised"
    return int(match[1] or 0), int(match[2] or depth)


def read_list(text: str) -> list[int]:
    """`3,7` as numbers."""
    return [int(part) for part in text.split(",")]
