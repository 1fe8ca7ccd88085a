"""How dense feed-forward parts become experts, as a user writes it. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tli.errors import Problem

MOST = 65_536  # experts of a layer: each of them is a few tensors that are listed


@dataclass(frozen=True)
class Experts:
    """Sparse upcycling [1]_: every feed-forward part becomes experts behind a new router.

    Attributes
    ----------
    count : int, optional
        Experts of a layer, before they are cut finer; where left out, the model stays dense.
    top_k : int
        Experts that a token goes through, before they are cut finer.
    router_scale : float
        Deviation of the router's first weights, relative to the model's initialiser. With 0 all tie, so equal
        experts stay equal for ever and parts of experts are not chosen together: then it is refused.
    drop : float
        Share of each expert's neurons that are drawn anew, from 0 to 1 (drop-upcycling [2]_).
    noise : float
        Deviation of normal noise on the experts' matrices, relative to that of each matrix.
    granularity : int
        Parts that each expert is cut into along its neurons; top_k grows with it, so that as much is computed
        (virtual groups [3]_).

    References
    ----------
    .. [1] Sparse Upcycling. arXiv 2212.05055.
    .. [2] Drop-Upcycling. arXiv 2502.19261.
    .. [3] Upcycling Large Language Models into Mixture of Experts. arXiv 2410.07524.

    Examples
    --------
    >>> import tli
    >>> print(tli.plan(8, method="moe", experts=tli.Experts(4, top_k=1)))
    8 layers, none injected; 4 experts, 1 a token
    """

    count: int | None = None
    top_k: int = 2
    router_scale: float = 1.0
    drop: float = 0.0
    noise: float = 0.0
    granularity: int = 1

    def resolved(self) -> Experts:
        """The same with defaults for all that a dense model does not read.

        Returns
        -------
        Experts
            Equal where two users mean the same.
        """
        if self.count is None:
            return Experts()
        scale, drop, noise = float(self.router_scale), float(self.drop), float(self.noise)
        return replace(self, router_scale=scale, drop=drop, noise=noise)

    @property
    def preserves(self) -> bool:
        """Whether experts are alike, so that the model computes what it did, up to rounding."""
        return self.drop == 0 and self.noise == 0

    def describe(self) -> str:
        """A few words, as ``8 experts, 2 a token``.

        Returns
        -------
        str
            Of experts that have a count.
        """
        assert self.count is not None
        text = f"{self.count * self.granularity} experts, {self.top_k * self.granularity} a token"
        if self.granularity > 1:
            text += f", each a part of {self.granularity}"
        return text


def expert_problems(experts: Experts, where: str = "experts") -> list[Problem]:
    """Everything wrong with the settings that does not depend on the model."""
    return list(_problems(experts, where))


def _problems(experts: Experts, where: str) -> Iterator[Problem]:
    count, top_k = experts.count, experts.top_k
    if count is not None and not _whole(count, 2):
        yield Problem(f"{where}.count", repr(count), "at least 2 experts, or null for none", "8")
    elif count is not None and count > MOST:
        yield Problem(f"{where}.count", repr(count), f"at most {MOST:,} experts", "8")
    if not _whole(top_k, 1):
        yield Problem(f"{where}.top_k", repr(top_k), "at least 1 expert a token", "2")
    elif count is not None and _whole(count, 2) and top_k > count:
        yield Problem(f"{where}.top_k", str(top_k), f"at most {count}, the number of experts", str(count))
    if not _whole(experts.granularity, 1):
        yield Problem(f"{where}.granularity", repr(experts.granularity), "at least 1 part", "1")
    for name, most in (("router_scale", math.inf), ("drop", 1.0), ("noise", math.inf)):
        value = getattr(experts, name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not 0 <= value <= most:
            expected = "a share from 0 to 1" if name == "drop" else "a number of at least 0"
            yield Problem(f"{where}.{name}", repr(value), expected, "0.5" if name == "drop" else "1")
    if count is not None and experts.router_scale == 0 and (experts.preserves or experts.granularity != 1):
        why = "equal experts stay equal" if experts.preserves else "parts of experts are not chosen together"
        yield Problem(f"{where}.router_scale", "0", f"more than 0, as behind a router of zeros {why}", "1")


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
