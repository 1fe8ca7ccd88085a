"""Commands that take a spec: validate, plan, run, submit."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.cli import documents
from sweeps.cli.output import Command, note, print_json, print_line, print_notes, print_text, step
from sweeps.cli.screen import elsewhere, places, screen_of
from sweeps.errors import SpecError
from tli.errors import InputError, Problem

if TYPE_CHECKING:
    from sweeps.checks.preflight import Preflight
    from sweeps.spec import Spec

_AMONG_WORDS = (
    "the shell's history and process lists may show the secret among this command's words;"
    " PGPASSWORD, ~/.pgpass or the spec's file keep it out"
)


def _spec(options: argparse.Namespace) -> Spec:
    from sweeps.spec import load_spec

    spec = load_spec(options.spec, overrides=options.set or (), runs=options.runs)
    step(f"spec {options.spec} read: sweep {spec.name!r}, hash {spec.hash[:12]}, study in {spec.study_url}")
    return spec


def _validate(options: argparse.Namespace) -> int:
    from sweeps.checks.budget import amount

    spec = _spec(options)
    _, notes = _checked(spec, options, weights=False, study=_study_problems)
    notes = [*notes, *_margin_notes(spec)]
    if options.json:
        shown = {"spec": spec.to_json(), "hash": spec.hash, "notes": notes}
        print_json({"sweep": spec.name, "valid": True, **shown})
    else:
        limits = "".join(f", at most {amount(*limit)}" for limit in spec.budget.limits.items())
        each = f"{spec.trial.recipe.tokens:,} tokens each"
        ladder = (
            f"; then {', '.join(f'{rung:,}' for rung in spec.budget.ladder)}" if spec.budget.ladder else ""
        )
        print_text(f"{options.spec}: fine; {spec.budget.trials} trials of {each}{limits}{ladder}")
        print_notes(notes, options)
    return 0


def _margin_notes(spec: Spec) -> list[str]:
    """What the trials that there are say of a margin; nothing before there are any."""
    from sweeps.results.caveats import margin_doubts
    from sweeps.results.finding import found
    from sweeps.results.winner import compared

    wanted = spec.finalists
    if wanted.margin is None:
        return []
    try:
        records = [record for record in found(spec).records if record.ours]
    except InputError:  # it was not run
        return []
    known = compared(
        records, top=wanted.top, seeds=wanted.seeds, per=wanted.per, depth=None, margin=wanted.margin
    )
    return list(margin_doubts(known))


def _checked(
    spec: Spec, options: argparse.Namespace, *, weights: bool, study: Callable[[Spec], Any] = lambda _: ()
) -> tuple[Preflight, Sequence[str]]:
    """What a check of everything found, with notes; what the sweep takes over from others is among them.

    A base that is described in the package needs no `weights` to be looked at.
    """
    from sweeps.checks.preflight import check

    placed = _placement_problems(spec, options.address)
    if not spec.warm_start:  # then nothing of the ledger is loaded
        with _beside(placed):
            found = check(spec, cluster=options.address, weights=weights, study=study)
        return found, found.notes
    from sweeps.driver.schedule.warm_start import WarmStart

    begins = WarmStart()
    with _beside(placed):
        found = check(spec, cluster=options.address, weights=weights, study=study, warm_start=begins.look)
    return found, (*found.notes, *begins.notes)


def _placement_problems(spec: Spec, address: str | None) -> list[Problem]:
    """What the nodes of a cluster that answers could never hold; the check says what does not answer."""
    from sweeps.checks import stores

    if address in (None, "local") or list(stores.cluster(str(address))):
        return []
    from sweeps.checks.placement import Node, placement_problem
    from sweeps.driver.on_ray.head_node import cluster_remedy, head_problem, joined
    from sweeps.wording import masked

    silent = None if address == "auto" or "://" in str(address) else head_problem(str(address))
    if silent is not None:
        return [silent]
    answer = joined(str(address)) or {"error": "it does not answer"}
    if "error" in answer:
        said = masked(str(answer["error"]))[:300]
        expected = "the address of a Ray cluster that runs"
        return [Problem("--address", f"{address!r} ({said})", expected, cluster_remedy(said))]
    problem = placement_problem(spec, [Node(cpus, gpus) for cpus, gpus in answer["each"]])
    return [problem] if problem is not None else []


@contextmanager
def _beside(problems: Sequence[Problem]) -> Iterator[None]:
    """Raises these problems with those that a check finds, or alone."""
    try:
        yield
    except SpecError as error:
        raise SpecError(*error.problems, *problems) from None
    if problems:
        raise SpecError(*problems)


def _study_problems(spec: Spec) -> Any:
    from sweeps.driver.existing_study import study_problems

    return study_problems(spec)


def _plan(options: argparse.Namespace) -> int:
    from sweeps.checks.checkpointing import settled
    from sweeps.checks.estimate import estimate
    from sweeps.checks.scoring import task_sizes

    spec = _spec(options)
    checked, notes = _checked(spec, options, weights=options.calibrate)
    from sweeps.report.left import left_lines
    from sweeps.results.left import begun

    left, more = begun(spec, _study_problems)
    chosen, speed = settled(spec, checked.checkpointing), None
    if options.calibrate:
        from sweeps.driver.single import calibrate

        note("three training steps of the baseline, to know this machine ...")
        speed = calibrate(chosen)
    plan = estimate(
        chosen,
        checked.base,
        flops_per_second=speed,
        heldout=checked.heldout,
        auto=checked.checkpointing is not None,
        tasks=task_sizes(spec, checked.base),
    )
    notes = [*notes, *more]
    if options.json:
        print_json(documents.planned(plan, notes, left))
    else:
        print_text("\n".join([plan.text(), *left_lines(left)]))
        print_notes(notes, options)
    return 0


def _run(options: argparse.Namespace) -> int:
    from sweeps.spec.source import name_budget

    extend = options.extend or name_budget(options.set or ())
    # With settings of the command line over it, the file alone means another sweep.
    return _run_spec(_spec(options), options, None if options.set else options.spec, extend=extend)


def _resume(options: argparse.Namespace) -> int:
    from sweeps.results.finding import resumed
    from sweeps.spec import LIMITS

    given = {f"budget.{name}": getattr(options, name) for name in ("trials", *LIMITS)}
    given |= {"finalists.seeds": options.seeds, "control.rates": options.control_rates}
    given["budget.ladder"] = options.ladder.split(",") if options.ladder is not None else None
    more = {path: value for path, value in given.items() if value is not None}
    places = {"runs": options.runs, "study": options.study, "tracking": options.tracking}
    spec = resumed(options.name, more=more, **places)
    return _run_spec(spec, options, None, extend=bool(more))


def _run_spec(spec: Spec, options: argparse.Namespace, reference: str | None, *, extend: bool) -> int:
    from sweeps.cli.interrupt import stopped, terminated_as_interrupted
    from sweeps.driver.watchers import CHECKING
    from sweeps.report.live import Display
    from sweeps.results.standing import aim_of, due_of
    from sweeps.results.unfinished import ended_before
    from sweeps.wording import masked

    given = [*(getattr(options, "set", None) or ()), getattr(options, "study", None) or ""]
    if any(masked(text) != text for text in given):
        note(_AMONG_WORDS)

    where = options.address or "this machine"
    step(f"running {spec.name!r} by {options.runner} on {where}; its folder is {spec.root / spec.name}")
    with ExitStack() as stack:
        stream = sys.stderr if options.json else sys.stdout
        if options.quiet:
            stream = stack.enter_context(Path(os.devnull).open("w"))
        terminated = stack.enter_context(terminated_as_interrupted())
        try:
            with Display(aim_of(spec), stream, due=due_of(spec)) as display:
                display.progress("reading the study", "", None)
                display.before(ended_before(spec))
                display.progress("reading the study", "", 1.0)
                display.progress(CHECKING, "", None)  # here, for what does it takes a second to load
                from sweeps.driver.service import run

                sweep = run(spec, display, runner=options.runner, address=options.address, extend=extend)
        except KeyboardInterrupt:
            return stopped(spec.name, terminated=bool(terminated), as_json=options.json)
    from sweeps.report.answer import answer_lines
    from sweeps.report.styled import show

    verdict = sweep.verdict
    if options.json:
        print_json(documents.ran(sweep, verdict, places(sweep)))
    else:
        runs, study = elsewhere(spec.root, options), getattr(options, "study", None)
        screen = screen_of(sweep, spec.name, spec=reference, runs=runs, study=study)
        show(answer_lines(verdict, sweep.records, screen), sys.stdout)
        if verdict.answer.grown is not None and sweep.folders.report.is_file():
            print_text(f"\nthe page with its figures: {sweep.folders.report}")
    return 0 if verdict.answer.grown is not None else 1


def _submit(options: argparse.Namespace) -> int:
    from sweeps.driver.on_ray.submit import submit

    _spec(options)
    more = [word for text in options.set or () for word in ("--set", text)]
    return submit(
        options.spec,
        address=options.address,
        runs=Path(options.runs or "runs").absolute(),
        working_dir=options.working_dir,
        submission_id=options.submission_id,
        wait=not options.no_wait,
        extra_args=more,
    )


def _trial(options: argparse.Namespace) -> int:
    from sweeps.checks import machine
    from sweeps.driver.single import run_one

    out = options.out or Path(f"trial-{options.number:04d}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(Problem("--out", f"{out}, which exists", "a new folder", f"--out {out}-2"))
    above = machine.existing(out)
    if not above.is_dir() or not machine.writable(above):
        raise InputError(Problem("--out", f"{out} in {above}", "a folder in one to write to", "another name"))
    where = "--study" if options.study else None
    spec = _spec_or_sweep(options)
    for points in run_one(spec, options.number, out, where=where):
        for point in points:
            if options.json:
                print_line(documents.measured(spec.name, options.number, point))
            else:
                speed = f"{point.tokens_per_second:,.0f} tokens/s" if point.step else "before training"
                print(f"step {point.step:>6}  held-out loss {point.eval_loss:.6f}  {speed}", flush=True)
    return 0


def _spec_or_sweep(options: argparse.Namespace) -> Spec:
    """A spec with the command line's settings over it; without any, the name of a sweep will do too."""
    from sweeps.results.finding import named
    from sweeps.spec import load_spec

    if options.set:
        study = [f"storage.study={options.study}"] if options.study else []
        return load_spec(options.spec, overrides=[*options.set, *study], runs=options.runs)

    return named(options.spec, runs=options.runs, study=options.study)


OF_SPECS: Mapping[str, Command] = {
    "validate": _validate,
    "plan": _plan,
    "run": _run,
    "trial": _trial,
    "submit": _submit,
    "resume": _resume,
}
