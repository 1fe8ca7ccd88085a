"""The command `sweeps`: check, plan, run, resume, look at, and take home a sweep."""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.arguments import parser
from tli.errors import InputError, Problem, TliError

if TYPE_CHECKING:
    from sweeps.records import TrialRecord
    from sweeps.spec import Spec

MISSING_EXTRA = "sweeps: the parts that run sweeps are not installed; pip install 'tli-sweeps[sweeps]'"
STOPPED, TERMINATED = 130, 143  # what a shell gives for Ctrl-C and for SIGTERM


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 done, 1 failed, 2 bad input, 130 stopped by hand."""
    options = parser(os.environ).parse_args(arguments)
    try:
        result = COMMANDS[options.command](options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return STOPPED
    except InputError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return 2
    except TliError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _OF_THE_EXTRA:
            raise
        print(MISSING_EXTRA, file=sys.stderr)
        return 2
    except BrokenPipeError:
        _close_output()  # the reader of a pipe has seen enough
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        if error.errno == errno.ENOSPC:
            _close_output()
        return 1
    return result


def _close_output() -> None:
    """Let go of what could not be printed, or Python would complain once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_OF_THE_EXTRA = frozenset(
    {"ray", "optuna", "mlflow", "pydantic", "yaml", "rich", "sqlalchemy", "optuna_dashboard"}
)


# -- commands that read a spec --------------------------------------------------------------------


def _spec(options: argparse.Namespace) -> Spec:
    from sweeps.spec import load_spec

    return load_spec(options.spec, overrides=options.set or (), runs=options.runs)


def _validate(options: argparse.Namespace) -> int:
    from sweeps.budget import amount
    from sweeps.preflight import check

    spec = _spec(options)
    checked = check(spec, cluster=options.address, study=_study_problems)
    if options.json:
        _print_json({"valid": True, "spec": spec.to_json(), "hash": spec.hash, "notes": list(checked.notes)})
    else:
        limits = "".join(f", at most {amount(*limit)}" for limit in spec.budget.limits.items())
        each = f"{spec.trial.recipe.tokens:,} tokens each"
        print(f"{options.spec}: fine; {spec.budget.trials} trials of {each}{limits}")
    return 0


def _study_problems(spec: Spec) -> Any:
    from sweeps.service import study_problems

    return study_problems(spec)


def _plan(options: argparse.Namespace) -> int:
    from sweeps.estimate import estimate
    from sweeps.preflight import check

    spec = _spec(options)
    checked = check(spec, cluster=options.address)
    speed = None
    if options.calibrate:
        from sweeps.single import calibrate

        print("three training steps of the baseline, to know this machine ...", file=sys.stderr)
        speed = calibrate(spec)
    plan = estimate(spec, checked.base, flops_per_second=speed)
    if options.json:
        _print_json(plan.to_json())
    else:
        print(plan.text())
        for note in checked.notes:
            print(f"note: {note}")
    return 0


def _run(options: argparse.Namespace) -> int:
    extend = options.extend or any(text.startswith("budget.") for text in options.set or ())
    return _run_spec(_spec(options), options, options.spec, extend=extend)


def _resume(options: argparse.Namespace) -> int:
    from sweeps.results import resumed
    from sweeps.spec import LIMITS

    given = {name: getattr(options, name) for name in ("trials", *LIMITS)}
    budget = {name: value for name, value in given.items() if value is not None}
    spec = resumed(options.name, runs=options.runs, study=options.study, budget=budget)
    return _run_spec(spec, options, None, extend=bool(budget))


def _run_spec(spec: Spec, options: argparse.Namespace, reference: str | None, *, extend: bool) -> int:
    from sweeps.display import Display
    from sweeps.interrupt import terminated_as_interrupted
    from sweeps.results import places
    from sweeps.selection import replicates_due
    from sweeps.service import run
    from sweeps.summary import summary_text

    def due(records: Sequence[TrialRecord]) -> int:
        chosen = spec.finalists
        return len(replicates_due(records, chosen.top, chosen.seeds, chosen.per))

    total = spec.budget.trials + spec.replicates
    stream = sys.stderr if options.json else sys.stdout
    with terminated_as_interrupted() as terminated:
        try:
            with Display(spec.name, total, stream, due=due) as display:
                sweep = run(spec, display, runner=options.runner, address=options.address, extend=extend)
        except KeyboardInterrupt:
            again = f"nothing is lost: the same command again goes on with {spec.name}"
            print(f"\nstopped; {again}", file=sys.stderr)
            return TERMINATED if terminated else STOPPED
    if options.json:
        answer = {"verdict": sweep.verdict.to_json(), "ended_by": sweep.ended_by, "places": places(sweep)}
        _print_json({"name": spec.name, **answer})
    else:
        elsewhere = spec.root.absolute() != Path(os.environ.get("SWEEPS_RUNS", "runs")).absolute()
        print(
            summary_text(
                sweep.verdict,
                sweep.records,
                name=spec.name,
                places=places(sweep),
                spec=reference,
                runs=str(spec.root) if elsewhere else None,
                ended=sweep.used_up,
            )
        )
    return 0 if sweep.verdict.best is not None else 1


def _submit(options: argparse.Namespace) -> int:
    from sweeps.submit import submit

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
    from sweeps import machine
    from sweeps.single import run_one

    out = options.out or Path(f"trial-{options.number:04d}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(Problem("--out", f"{out}, which exists", "a new folder", f"--out {out}-2"))
    above = machine.existing(out)
    if not above.is_dir() or not machine.writable(above):
        raise InputError(Problem("--out", f"{out} in {above}", "a folder in one to write to", "another name"))
    where = "--study" if options.study else None
    for points in run_one(_spec_or_sweep(options), options.number, out, where=where):
        for point in points:
            if options.json:
                print(json.dumps(point.to_json()), flush=True)
            else:
                speed = f"{point.tokens_per_second:,.0f} tokens/s" if point.step else "before training"
                print(f"step {point.step:>6}  held-out loss {point.eval_loss:.6f}  {speed}", flush=True)
    return 0


def _spec_or_sweep(options: argparse.Namespace) -> Spec:
    """A spec with the command line's settings over it; without any, the name of a sweep will do too."""
    from sweeps.results import named
    from sweeps.spec import load_spec

    if options.set:
        study = [f"storage.study={options.study}"] if options.study else []
        return load_spec(options.spec, overrides=[*options.set, *study], runs=options.runs)

    return named(options.spec, runs=options.runs, study=options.study)


# -- commands that read a sweep -------------------------------------------------------------------


def _status(options: argparse.Namespace) -> int:
    from sweeps.budget import Spending, spent_in_words
    from sweeps.summary import status_text

    sweep = _find(options)
    spent = Spending(sweep.ledger).spent
    if options.json:
        _print_json(
            {
                "name": sweep.spec.name,
                "finished": sweep.ledger.finished,
                "driver": sweep.ledger.driver,
                "spent": spent,
                "trials": [_row(r) for r in sweep.records],
            }
        )
    else:
        driver = sweep.ledger.driver
        print(f"Driven by {driver}." if driver else "Nobody drives it now.")
        if limits := sweep.ledger.spec.budget.limits:
            print(f"The search has spent {spent_in_words(spent, limits)}.")
        print(status_text(sweep.records))
    return 0


def _list(options: argparse.Namespace) -> int:
    from sweeps.results import sweeps_in
    from sweeps.summary import list_text

    listed = sweeps_in(Path(options.runs or "runs"))
    unread = {name: each.reason for name, each in listed.items() if each.reason is not None}
    if options.json:
        _print_json(
            {
                name: {"unreadable": each.reason}
                if name in unread
                else {"trials": len(each.records), "finished": each.finished}
                for name, each in listed.items()
            }
        )
    else:
        print(list_text({name: each.records for name, each in listed.items() if name not in unread}, unread))
    return 0


def _best(options: argparse.Namespace) -> int:
    from sweeps.summary import best_text

    verdict = _find(options).verdict
    if options.json:
        _print_json(verdict.to_json())
    else:
        print(best_text(verdict))
    return 0 if verdict.best is not None else 1


def _compare(options: argparse.Namespace) -> int:
    from sweeps.compare import compare
    from sweeps.side_by_side import comparison_text

    found = compare(options.names, by=options.by, runs=options.runs, study=options.study)
    if options.json:
        _print_json(found.to_json())
    else:
        print(comparison_text(found))
    return 0


def _export(options: argparse.Namespace) -> int:
    from sweeps.results import export

    sweep = _find(options)
    number = export(sweep, options.out, number=options.trial)
    loss = next(record.value for record in sweep.records if record.number == number)
    if options.json:
        _print_json({"trial": number, "out": str(options.out), "heldout_loss": loss})
    else:
        print(f"trial {number} is in {options.out}; its held-out loss is {loss:.6f}")
        print(f'load it: AutoModelForCausalLM.from_pretrained("{options.out}")')
    return 0


def _ui(options: argparse.Namespace) -> int:
    from sweeps.tracking import store_uri
    from sweeps.ui import serve

    sweep = _find(options)
    root = sweep.folders.artifacts.absolute()
    tracking = sweep.spec.tracking
    return serve(
        sweep.spec.study_url,
        store_uri(tracking.uri, root) if tracking else None,
        host=options.host,
        port=options.port,
        dashboard_port=options.dashboard_port,
        open_browser=options.open,
        study=sweep.spec.name,
    )


def _sync(options: argparse.Namespace) -> int:
    from sweeps.sync import sync

    synced = sync(_find(options), options.tracking)
    if options.json:
        _print_json(synced.to_json())
    else:
        print(f"{synced.uri} shows all of {synced.trials} trials, {synced.points:,} measurements")
        if synced.lost:
            numbers = ", ".join(map(str, synced.lost))
            print(f"note: not whole on disk, so not rebuilt in full: the curves of trials {numbers}")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from sweeps.doctor import examine, text

    findings = examine(
        Path(options.runs or "runs"),
        study_url=options.study,
        address=options.address,
        threads=os.environ.get("OMP_NUM_THREADS"),
    )
    if options.json:
        _print_json([finding.to_json() for finding in findings])
    else:
        print(text(findings))
    return 1 if any(finding.ok is False for finding in findings) else 0


def _find(options: argparse.Namespace) -> Any:
    from sweeps.results import find

    return find(options.name, runs=options.runs, study=options.study)


def _row(record: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(record), "step": record.step, "loss": record.loss}


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, default=str))


COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "validate": _validate,
    "plan": _plan,
    "run": _run,
    "trial": _trial,
    "submit": _submit,
    "resume": _resume,
    "status": _status,
    "list": _list,
    "best": _best,
    "compare": _compare,
    "export": _export,
    "ui": _ui,
    "sync": _sync,
    "doctor": _doctor,
}


if __name__ == "__main__":
    sys.exit(main())
