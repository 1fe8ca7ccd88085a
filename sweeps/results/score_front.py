"""The front of test losses against scores on a task, under fresh seeds, and what of it is shown.

Neither is exact, so every two models are compared in both: losses by seed and block of the test text, scores
by seed and document (`sweeps.results.noise`), so that intervals speak of other seeds, other text and other
documents. They hold at 95 % for all of these differences together (Bonferroni). A model is on the front once
it is shown to be better than each other one in loss or in score; it is dominated where another is shown to be
better in both. Without what each document gave, or of a metric that is no mean over documents, nothing is
shown of scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sweeps.folders import Folders
from sweeps.records import TrialRecord
from sweeps.results.candidates import Candidate
from sweeps.results.claims import Claim, Claims
from sweeps.results.evaluated import scores_of
from sweeps.results.front import Front, FrontMember, Stands
from sweeps.results.noise import Table
from sweeps.results.scored_runs import Cell, ScoredRun, cell, fresh_runs
from sweeps.results.verdict import Verdict

if TYPE_CHECKING:
    from sweeps.ledger import LedgerView

_Claims = tuple[Claim | None, Claim | None]  # of losses, and of scores, where lower is better in both


def score_front(
    found: Verdict, folders: Folders, ledger: LedgerView, records: Sequence[TrialRecord]
) -> Front | None:
    """The front of a sweep; None where its objective is no such front.

    Args:
        found: its answer.
        folders: where what each document gave lies.
        ledger: its study.
        records: its trials.
    """
    spec = ledger.spec
    if spec.objective.front_task is None:
        return None
    task, metric = spec.objective.front_task
    everyone = (*found.finalists, found.baseline, found.control)
    candidates = list({each.number: each for each in everyone if each is not None}.values())
    runs = {
        each.number: [
            ScoredRun(folders, ledger, run.seed, scores_of(spec, run, records))
            for run in fresh_runs(records, each.number)
        ]
        for each in candidates
    }
    runs = {number: [run for run in those if run.scores(task)] for number, those in runs.items()}
    as_it_is = ScoredRun(folders, ledger, 0, scores_of(spec, None, records))
    base = cell([as_it_is] if as_it_is.scores(task) else [], task, metric)
    higher = next((r.front_score.higher_is_better for r in records if r.front_score is not None), True)
    return front_of_scores(
        candidates,
        found.control,
        {number: cell(those, task, metric) for number, those in runs.items()},
        _by_document(runs, task, metric, sign=-1.0 if higher else 1.0),
        Front(
            cost=None,
            score=f"{task}/{metric}",
            higher_is_better=higher,
            base=base.value if base else None,
            base_error=base.stderr if base else None,
        ),
        margin=found.margin.nats,
        look=found.look,
    )


def front_of_scores(
    candidates: Sequence[Candidate],
    control: Candidate | None,
    cells: Mapping[int, Cell | None],
    documents: Table,
    empty: Front,
    *,
    margin: float,
    look: int = 1,
) -> Front:
    """The front of what ran under fresh seeds for as many tokens.

    Args:
        candidates: finalists, baseline and control, with their difference to the control.
        control: the original, trained on.
        cells: mean scores, by number.
        documents: what is minimised of each document's result, by number and seed.
        empty: what the front is of.
        margin: below which a difference in loss does not matter, nats per token.
        look: at the answer, from 1.
    """
    ordered = sorted(candidates, key=lambda each: (_loss(each), each.number))
    compared = len(ordered) * (len(ordered) - 1)
    losses = Claims(list(candidates), margin, compared, look)
    scores = Claims(list(candidates), 0.0, compared, look, scores=documents)
    sign = -1.0 if empty.higher_is_better else 1.0
    points = {each.number: (_loss(each), _minimised(cells[each.number], sign)) for each in ordered}
    members = []
    for each in ordered:
        pairs = {
            other.number: (
                losses.of(each, other, "equal tokens"),
                scores.of(each, other, "equal tokens") if _both(documents, each, other) else None,
            )
            for other in ordered
            if other is not each
        }
        own, loss = cells[each.number], each.against_control
        score = pairs.get(control.number, (None, None))[1] if control is not None else None
        stands, than = _standing(pairs, points, each.number)
        members.append(
            FrontMember(
                number=each.number,
                original=control is not None and each.number == control.number,
                cost=None,
                times=None,
                loss=each.test_loss,
                mean=loss.mean if loss else None,
                half_width=loss.half_width if loss else None,
                stands=stands,
                than=than,
                score=own.value if own else None,
                score_error=own.stderr if own else None,
                score_mean=sign * score.mean + 0.0 if score else None,  # 0 has no sign
                score_half_width=score.half_width if score else None,
                by_means=not any(_ahead(points[other], points[each.number]) for other in pairs),
            )
        )
    return replace(empty, members=tuple(members), compared=compared)


def _by_document(runs: Mapping[int, Sequence[ScoredRun]], task: str, metric: str, sign: float) -> Table:
    """Results by number and seed; none where runs were scored on other documents."""
    known = [(run, scores) for those in runs.values() for run in those if (scores := run.scores(task))]
    if len({scores.data for _, scores in known}) > 1:
        return {number: {} for number in runs}
    return {
        number: {
            run.seed: tuple(sign * each for each in results)
            for run in those
            if (results := run.documents(task, metric))
        }
        for number, those in runs.items()
    }


def _both(documents: Table, *candidates: Candidate) -> bool:
    return all(documents.get(each.number) for each in candidates)


def _loss(each: Candidate) -> float:
    return each.test_loss if each.test_loss is not None else each.mean


def _minimised(own: Cell | None, sign: float) -> float:
    return sign * own.value if own is not None else float("inf")


def _ahead(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether one is as good or better in both, and not the same."""
    return one != other and one[0] <= other[0] and one[1] <= other[1]


def _standing(
    pairs: Mapping[int, _Claims], points: Mapping[int, tuple[float, float]], number: int
) -> tuple[Stands, int | None]:
    """By the worst of the comparisons: the one that it is dominated by, or that comes closest to that."""

    def says(claims: _Claims) -> list[str]:
        return [claim.says for claim in claims if claim is not None]

    def closeness(other: int) -> tuple[bool, float, int]:
        return not _ahead(points[other], points[number]), points[other][0], other

    worse = [other for other, claims in pairs.items() if says(claims) == ["worse", "worse"]]
    if worse:
        return "dominated", min(worse, key=closeness)
    unshown = [other for other, claims in pairs.items() if "better" not in says(claims)]
    if unshown:
        return "not shown to be on the front", min(unshown, key=closeness)
    return "on the front", None
