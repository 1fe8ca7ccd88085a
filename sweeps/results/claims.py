"""Claims on test loss under fresh seeds: each finalist against the control, and the winner at equal compute.

Multiplicity is paid for by Bonferroni's correction over all grown models that ran under fresh seeds, the
finalists and the baseline, in both comparisons: the winner was chosen among them, under these same seeds. It
is the first step of Holm's procedure, so nothing is lost for the first claim; and being of one step it has
simultaneous intervals that agree with every decision, which Holm's later steps have not. Dunnett's test is
7 % sharper with equal variances, and they are not equal. Looks at the answer are paid for, too: see `looks`.

One interval decides: "better" is that all of it is below 0 (one-sided 2.5 % for all grown models together),
"worse" that all is above, "as good" that all is below the margin, which is non-inferiority. "As good" can be
said of the other side, too, by the other end of the same interval. At equal compute "better" is tested only
once it is shown at equal tokens, a fixed sequence for each finalist (Bretz et al. 2009, Statistics in
Medicine 28), so that all "better" of one sweep together err in at most 2.5 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sweeps.results.candidates import Candidate
from sweeps.results.looks import adjusted, tail_of
from sweeps.results.noise import Noisy, Table, paired, pool
from sweeps.student import t_below

At = Literal["equal tokens", "equal compute"]
Says = Literal["better", "as good", "worse", "not shown"]
Measure = Literal["test", "validation", "score"]


@dataclass(frozen=True)
class Claim:
    """What is claimed of one trial against another; losses in nats per token, negative is better.

    P values are of one side each, with all comparisons and looks paid for.
    """

    trial: int
    against: int
    at: At
    loss: Measure
    mean: float  # loss of `trial` minus that of `against`, over the fresh seeds of both
    # Of the interval, 95 % for all models and looks; None with one seed, or where nothing varies.
    half_width: float | None
    n: int  # seeds
    margin: float
    compared: int  # grown models that are paid for
    look: int  # at the answer, from 1
    noise: Noisy | None
    first_shown: bool  # whether "better" is shown in the claim that comes first; True where none does
    p_better: float | None  # of "not better"; not below that of the claim which comes first
    p_worse: float | None  # of "not worse"
    p_as_good: float | None  # of "worse by the margin or more"
    p_other_as_good: float | None  # of "better by the margin or more"

    @property
    def low(self) -> float | None:
        """The lower end of the interval."""
        return None if self.half_width is None else self.mean - self.half_width

    @property
    def high(self) -> float | None:
        """The upper end of the interval."""
        return None if self.half_width is None else self.mean + self.half_width

    @property
    def says(self) -> Says:
        """What is shown of `trial`."""
        if self.low is None or self.high is None:
            return "not shown"
        if self.high < 0 and self.first_shown:
            return "better"
        if self.low > 0:
            return "worse"
        return "as good" if self.high < self.margin else "not shown"

    @property
    def other_as_good(self) -> bool:
        """Whether `against` is shown to be as good as `trial`, within the margin, or better."""
        return self.low is not None and self.low > -self.margin

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        noise = self.noise
        names = (
            "trial",
            "against",
            "at",
            "loss",
            "mean",
            "half_width",
            "low",
            "high",
            "n",
            "compared",
            "look",
        )
        tests = ("p_better", "p_worse", "p_as_good", "p_other_as_good", "margin", "says", "other_as_good")
        return {name: getattr(self, name) for name in (*names, *tests)} | {
            "error": noise.error() if noise else None,
            "degrees": noise.degrees() if noise else None,
            "text_error": noise.text_variance**0.5 if noise and noise.text_degrees else None,
        }


def measure_of(candidates: Sequence[Candidate]) -> Measure:
    """Test loss, once any has it; else validation loss, as sweeps had before there was a test side."""
    return "test" if any(each.test_blocks for each in candidates) else "validation"


def table_of(candidates: Sequence[Candidate], measure: Measure) -> Table:
    """The losses under fresh seeds, by number."""
    if measure == "test":
        return {each.number: each.test_blocks for each in candidates}
    return {each.number: {seed: (loss,) for seed, loss in each.fresh.items()} for each in candidates}


class Claims:
    """Claims over one table of losses, with one variance pooled from all of it."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        margin: float,
        compared: int,
        look: int = 1,
        *,
        scores: Table | None = None,
    ) -> None:
        """`candidates` are all that ran under fresh seeds; so many of them are `compared` and paid for, and
        the `look` at them is from 1. Of `scores` on a task, in place of losses, each document is a block, and
        lower is better.
        """
        self.measure: Measure = "score" if scores is not None else measure_of(candidates)
        self.table = table_of(candidates, self.measure) if scores is None else scores
        self._pool = pool(self.table)
        self._margin, self._paid, self._look = margin, max(1, compared), look

    def knows_text_error(self, *compared: Candidate) -> bool:
        """Whether test losses come in blocks that tell the text's own error: two or more, as many for all."""
        counts = {len(blocks) for each in compared for blocks in self.table[each.number].values()}
        return self.measure == "validation" or (len(counts) == 1 and min(counts) > 1)

    def _alike(self, noise: Noisy) -> bool:
        """Whether two have the same difference of scores on each document, which says nothing of others."""
        return self.measure == "score" and noise.text_variance == 0

    def of(
        self, trial: Candidate | None, against: Candidate | None, at: At, *, first: Claim | None = None
    ) -> Claim | None:
        """The claim about one pair; None where one is missing, or they share no fresh seed.

        `first` is the claim in which "better" has to be shown before it is tested in this one.
        """
        if trial is None or against is None or trial.number == against.number:
            return None
        pair = paired(self.table[trial.number], self.table[against.number], self._pool)
        if pair is None:
            return None
        mean, n, noise = pair
        if not self.knows_text_error(trial, against) or (noise is not None and self._alike(noise)):
            noise = None
        width = noise.half_width(tail_of(self._look, self._paid)) if noise else None

        def p(beyond: float, least: float | None = None) -> float | None:
            if noise is None:
                return None
            return max(adjusted(_tail(noise, beyond), self._look, self._paid), least or 0.0)

        return Claim(
            trial=trial.number,
            against=against.number,
            at=at,
            loss=self.measure,
            mean=mean,
            half_width=width,
            n=n,
            margin=self._margin,
            compared=self._paid,
            look=self._look,
            noise=noise,
            first_shown=first is None or first.says == "better",
            p_better=p(mean, first.p_better if first else None),
            p_worse=p(-mean),
            p_as_good=p(mean - self._margin),
            p_other_as_good=p(-mean - self._margin),
        )


def _tail(noise: Noisy, beyond: float) -> float:
    """P(T <= beyond / error)."""
    return t_below(beyond / noise.error(), noise.degrees())
