"""The command `sweeps promote`: a trial of a sweep is trained on a larger budget."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.cli import documents
from sweeps.cli.interrupt import stopped, terminated_as_interrupted
from sweeps.cli.output import note, print_json, print_text
from sweeps.records import State
from tli.errors import InputError

if TYPE_CHECKING:
    from sweeps.checks.promotion import ExpectedScoring
    from sweeps.driver.promotion_plan import Planned
    from sweeps.records import TrialRecord
    from sweeps.results.sweep import Sweep


def promote_command(options: argparse.Namespace) -> int:
    """Plan, show the plan, train what is left, hand over. Returns the exit code."""
    from sweeps.driver.promoting import promote
    from sweeps.driver.promotion_plan import Where, Wish, plan_promotion
    from sweeps.report.live import Display
    from sweeps.results.standing import Aim
    from sweeps.tracking.registry import name_problems

    if options.register == "":  # an unset variable of a shell, and no wish for the sweep's own name
        raise InputError(*name_problems("", "--register"))
    wish = Wish(
        options.name,
        options.tokens,
        trial=options.trial,
        grown=options.grown,
        control=options.control,
        ranks=options.ranks,
        out=options.out,
        register="" if options.register is True else options.register,
    )
    where = Where(options.runs, options.study, options.tracking, options.address, options.runner)
    planned = plan_promotion(wish, where)
    if options.plan:
        _show_plan(planned, options)
        return 0
    for line in _plan_lines(planned):
        note(line)
    name = planned.sweep.spec.name
    with ExitStack() as stack:
        stream = sys.stderr if options.json else sys.stdout
        if options.quiet:
            stream = stack.enter_context(Path(os.devnull).open("w"))
        terminated = stack.enter_context(terminated_as_interrupted())
        try:
            with Display(Aim(name, 0, len(planned.takes), long=True), stream) as display:
                sweep = promote(planned, where, display)
        except KeyboardInterrupt:
            return stopped(f"the promotion of {name}", terminated=bool(terminated), as_json=options.json)
    _show_end(planned, sweep, options)
    return 0


def registrable(sweep: Sweep, options: argparse.Namespace) -> Sweep:
    """The sweep with an MLflow that a registration may go to, where one is asked for.

    Raises:
        InputError: it has none, only a kept spec names it, or the name is none of a model.
    """
    if options.register is None:
        return sweep
    from sweeps.tracking.registry import name_problems, with_tracking

    tracked = with_tracking(sweep, options.tracking)
    if problems := name_problems(sweep.spec.name if options.register is True else options.register):
        raise InputError(*problems)
    return tracked


# -- inside ----------------------------------------------------------------------------------------


def _scoring(planned: Planned) -> list[ExpectedScoring | None]:
    """What scoring each long run's model on the sweep's tasks takes; the harness is loaded for it."""
    from sweeps.checks.promotion import expected_scoring
    from sweeps.checks.scoring import task_sizes

    spec, base = planned.sweep.spec, planned.base
    tasks = task_sizes(spec, base)
    return [expected_scoring(spec, base, run.role, run.settings, tasks) for run in planned.long_runs]


def _plan_lines(planned: Planned, scoring: Sequence[ExpectedScoring | None] = ()) -> list[str]:
    from sweeps.report.promotions import planned_lines, scoring_line

    records = {record.number: record for record in planned.sweep.records}
    others = planned.ranks != planned.sweep.spec.resources.workers
    lines = [planned.what]
    for place, (run, expected) in enumerate(planned.takes):
        takes = {**asdict(expected), "other_ranks": others}
        lines += planned_lines(run, records[run.promotion.of], takes, ranks=planned.ranks)
        done = run.record is not None and run.record.state is State.COMPLETE
        if scoring and not done and (scored := scoring[place]) is not None:
            lines.append(scoring_line(asdict(scored)))
    return lines


def _show_plan(planned: Planned, options: argparse.Namespace) -> None:
    scoring = _scoring(planned)
    if options.json:
        found = documents.promoted(planned, planned.sweep, out=None, registered=None)
        for row, scored in zip(found["plan"], scoring, strict=True):
            row["scoring"] = scored and asdict(scored)
        print_json(found)
    else:
        print_text("\n".join(_plan_lines(planned, scoring)))


def _show_end(planned: Planned, sweep: Sweep, options: argparse.Namespace) -> None:
    """Where the model is, and how the long run stands."""
    from sweeps.report.promotions import promotion_text
    from sweeps.tracking.registry import registered_text, version_of

    record = _promotion(planned, sweep)
    wish, model = planned.wish, sweep.model_of(record)
    version = version_of(sweep, record, wish.register) if wish.register else None
    registered = {"name": wish.register, "version": version} if wish.register else None
    if options.json:
        out = str(wish.out) if wish.out is not None else None
        print_json(documents.promoted(planned, sweep, out=out, registered=registered))
        return
    if planned.finished:
        print_text(f"it was finished before, as trial {record.number}")
    print_text(promotion_text(record, sweep.records))
    place = wish.out or model
    print_text(f"it is in {place}")
    print_text(f'load it: AutoModelForCausalLM.from_pretrained("{place}")')
    if wish.register:
        print_text(registered_text(sweep, wish.register, version))


def _promotion(planned: Planned, sweep: Sweep) -> TrialRecord:
    """The trial that the promotion is."""
    run = planned.long_runs[0]
    return next(
        each for each in sweep.records[::-1] if each.role is run.role and each.settings == run.settings
    )
