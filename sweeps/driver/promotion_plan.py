"""Plans a promotion: which trial, from which state, what it takes. Makes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sweeps.checks.machine import existing, writable
from sweeps.checks.preflight import Preflight, check
from sweeps.checks.promotion import Expected, expected, promoted_spec
from sweeps.driver.run_arguments import Runner
from sweeps.errors import InputError, Problem, SpecError
from sweeps.records import Role, State, TrialRecord
from sweeps.results.at_most import refuse_several
from sweeps.results.export import is_model_of, out_problems
from sweeps.results.finding import found, resumed
from sweeps.results.promotions import LongRun, chosen_trial, control_run, long_run
from sweeps.results.sentence import handed_over
from sweeps.results.sweep import Sweep
from sweeps.spec import Spec
from sweeps.tracking.registry import name_problems, tracking_problems_of
from tli.models.base import Base
from tli.places import expanded

_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


@dataclass(frozen=True)
class Wish:
    """What is asked for.

    Attributes:
        name: of the sweep, or its spec file.
        tokens: all that the model is trained on, as `tokens_of` reads them.
        trial: its number; None for what the answer names.
        grown: the best grown model, also where the answer is the original, trained on.
        control: whether the best control is trained beside it, with as many FLOPs.
        ranks: processes that train it together; None for as many as the sweep's trials.
        out: a new folder that the model is copied to; None for its own folder alone.
        register: the name of a model in MLflow's registry, of which it becomes a version; empty for that of
            the sweep, None for none.
    """

    name: str
    tokens: int | str
    trial: int | None = None
    grown: bool = False
    control: bool = False
    ranks: int | None = None
    out: Path | None = None
    register: str | None = None


@dataclass(frozen=True)
class Where:
    """Where the sweep is, and where its long runs train: as for `find` and `run`."""

    runs: str | None = None
    study: str | None = None
    tracking: str | None = None
    address: str | None = None
    runner: Runner = "ray"


@dataclass(frozen=True)
class Planned:
    """A promotion that can be run: what it is, and what each of its runs takes.

    `what` says of the trial what the answer says of it; `takes` are the long run and the control beside it,
    each with what it is expected to take.
    """

    sweep: Sweep
    wish: Wish
    what: str
    takes: tuple[tuple[LongRun, Expected], ...]
    base: Base
    ranks: int
    checkpointing: int | None = None  # layers of which one is calculated again, where that was to be chosen

    @property
    def long_runs(self) -> list[LongRun]:
        """The promotion, then its control if there is one."""
        return [run for run, _ in self.takes]

    @property
    def finished(self) -> bool:
        """Whether all of it was trained before."""
        return all(run.record is not None and run.record.state is State.COMPLETE for run in self.long_runs)


def tokens_of(given: int | str) -> int:
    """A number of tokens: 2000000, 1_000_000, 500M or 2B.

    Raises:
        SpecError: it is none, or not a whole one.
    """
    text = str(given).strip().lower().replace("_", "").replace(",", "")
    digits, suffix = (text[:-1], text[-1]) if text[-1:] in ("k", "m", "b", "t") else (text, "")
    whole, _, part = digits.partition(".")
    plain = whole.isascii() and whole.isdecimal() and (not part or (part.isascii() and part.isdecimal()))
    plain = plain and len(digits) < 30
    number, rest = divmod(int(whole + part) * _SUFFIXES[suffix], 10 ** len(part)) if plain else (0, 0)
    if not plain or rest or not 0 < number < 2**53:
        expected = "a whole number of tokens above 0, as 2B, 500M or 1_000_000"
        raise SpecError(Problem("tokens", repr(given), expected, "2B"))
    return number


def plan_promotion(wish: Wish, where: Where) -> Planned:
    """What a promotion would be, or is, and what is left of it takes.

    Raises:
        InputError: it cannot be run, with every problem of the first kind that there is one of: the number of
            tokens, the sweep, the trial, what the run needs.
    """
    refuse_several(trial=wish.trial, grown=wish.grown, at_most=None)
    tokens = tokens_of(wish.tokens)
    spec = resumed(wish.name, runs=where.runs, study=where.study, tracking=where.tracking)
    sweep = found(spec, wish.name, where="study" if where.study else None)
    wish = replace(wish, register=spec.name) if wish.register == "" else wish
    records, folders = sweep.records, sweep.folders
    verdict = sweep.answer(records)
    record = chosen_trial(spec, verdict, records, trial=wish.trial, grown=wish.grown, runs=folders.artifacts)
    ranks = spec.resources.workers if wish.ranks is None else wish.ranks
    long_runs = [long_run(Role.PROMOTION, record, tokens, records, folders)]
    if wish.control:
        long_runs.append(control_run(long_runs[0], record, records, folders))
    if problems := [*_failed_before(long_runs), *_handing_problems(sweep, wish, long_runs[0].record)]:
        raise SpecError(*problems)
    checked = [_checked(sweep, run, ranks, where, len(long_runs)) for run in long_runs]
    takes = [
        (run, _expected(records, run, found.spec, found.base))
        for run, found in zip(long_runs, checked, strict=True)
    ]
    said = handed_over(verdict, records, record.number)
    base, every = checked[0].base, checked[0].checkpointing
    return Planned(sweep, wish, said, tuple(takes), base, ranks, every)


# -- inside ---------------------------------------------------------------------------------------


def _failed_before(long_runs: Sequence[LongRun]) -> Iterator[Problem]:
    """Long runs that diverged: the same settings on the same batches would again."""
    for run in long_runs:
        if run.record is not None and run.record.state is State.FAIL:
            where = "tokens" if run.role is Role.PROMOTION else "control"
            got = f"{run.tokens:,}, with which trial {run.record.number} {run.record.reason}"
            yield Problem(where, got, "a long run that ends otherwise", "another trial, by --trial N")


def _handing_problems(sweep: Sweep, wish: Wish, standing: TrialRecord | None) -> Iterator[Problem]:
    """Why the model could not be handed over at the end: an `out` that is there, and is not this model, or
    that cannot be made.
    """
    if wish.out is not None and not (standing is not None and is_model_of(sweep, standing, wish.out)):
        yield from out_problems(wish.out)
        above = existing(expanded(str(wish.out), "out").parent)
        if not above.is_dir() or not writable(above):
            got = f"{wish.out} in {above}, which cannot be written to"
            yield Problem("--out", got, "a folder in one to write to", "another place")
    if wish.register is not None:
        yield from name_problems(wish.register)
        yield from tracking_problems_of(sweep)


def _checked(sweep: Sweep, run: LongRun, ranks: int, where: Where, at_once: int) -> Preflight:
    """One long run, once all that it needs is known to be there."""
    if ranks < 1 or (where.runner == "inline" and ranks > 1):
        wanted = "1, as it runs in this process" if ranks > 1 else "a whole number of at least 1"
        raise SpecError(Problem("ranks", str(ranks), wanted, "--runner ray" if ranks > 1 else "1"))
    rows = run.settings["recipe"]["batch_tokens"] // sweep.spec.data.sequence_length
    if rows % ranks:
        shares = [each for each in range(1, rows + 1) if not rows % each]
        wanted = f"a number by which the {rows} sequences of a batch can be shared"
        raise SpecError(Problem("ranks", str(ranks), wanted, str(max(n for n in shares if n <= ranks))))
    try:
        spec = promoted_spec(sweep.spec, run.settings, ranks)
        at_once = 1 if where.runner == "inline" else at_once
        return check(spec, cluster=where.address, at_once=at_once)
    except InputError as error:
        raise SpecError(*(_of_the_ranks(problem) for problem in error.problems)) from None


def _of_the_ranks(problem: Problem) -> Problem:
    """A problem with `resources.workers` is one with the option that stands for it."""
    if not problem.where.endswith("resources.workers"):
        return problem
    return Problem("ranks", problem.got, problem.expected, problem.remedy)


def _expected(records: Sequence[TrialRecord], run: LongRun, spec: Spec, base: Base) -> Expected:
    """Of what is left of a long run, at the speed of its trial."""
    record = next(each for each in records if each.number == run.promotion.of)
    speed = record.tokens / record.seconds if record.tokens and record.seconds else None
    done = max(run.first_step, run.record.step if run.record is not None else 0)
    return expected(spec, base, done=min(done, run.steps), tokens_per_second=speed)
