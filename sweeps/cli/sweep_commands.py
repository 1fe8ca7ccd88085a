"""Commands that take a sweep that was run: status, best, compare, export, report; and doctor."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

from sweeps.cli import documents
from sweeps.cli.output import Command, note, print_json, print_notes, print_text
from sweeps.cli.promote_command import registrable
from sweeps.cli.screen import elsewhere, places, screen_of
from sweeps.commands import command
from sweeps.out_files import out_file_problems
from sweeps.text import counted, these
from tli.errors import InputError, Problem


def _status(options: argparse.Namespace) -> int:
    from sweeps.checks.budget import spent_in_words
    from sweeps.cli.following import board_of, follow
    from sweeps.driver.schedule.spending import spent
    from sweeps.report.overview import head
    from sweeps.report.status import status_text
    from sweeps.report.styled import show
    from sweeps.results.sentence import sentence

    sweep = _find(options)
    if options.follow:
        return follow(sweep, options)
    if options.json:
        print_json(documents.status(sweep, spent(sweep.ledger)))
        return 0
    driver, limits = sweep.ledger.driver, sweep.ledger.spec.budget.limits
    print_text(f"Driven by {driver}." if driver else "No process drives it now.")
    if sweep.ledger.finished:  # below stands the best of the search, under the seed that chose it
        records = sweep.records
        print_text(f"The answer: {sentence(sweep.answer(records), records)}")
    if limits:
        print_text(f"The search has spent {spent_in_words(spent(sweep.ledger), limits)}.")
    width = get_terminal_size().columns if sys.stdout.isatty() else None
    standing = board_of(sweep, time.time()).standing(time.time(), 1)
    show(head(standing, width, driven=driver is not None), sys.stdout)
    print_text(f"\n{status_text(sweep.records, driven=driver is not None, width=width)}")
    return 0


def _list(options: argparse.Namespace) -> int:
    from sweeps.report.status import Line, list_text
    from sweeps.results.listing import sweeps_in

    listed = sweeps_in(Path(options.runs or "runs"))
    unread = {name: each.reason for name, each in listed.items() if each.reason is not None}
    if options.json:
        print_json(documents.listed(listed))
    else:
        found = ((name, each) for name, each in listed.items() if name not in unread)
        read = {name: Line(each.records, each.driver is not None, each.best) for name, each in found}
        print_text(list_text(read, unread))
    return 0


def _best(options: argparse.Namespace) -> int:
    from sweeps.report.styled import show
    from sweeps.report.summary import best_lines

    sweep = _find(options)
    progress, records = _told_progress(sweep, options), sweep.records
    verdict = sweep.answer(records)
    if options.json:
        print_json(documents.best(sweep, verdict, records, progress))
    else:
        runs = elsewhere(sweep.folders.artifacts, options)
        screen = screen_of(sweep, options.name, runs=runs, study=options.study)
        show(best_lines(verdict, records, screen, places(sweep)), sys.stdout)
    return 0 if verdict.answer.grown is not None else 1


def _results(options: argparse.Namespace) -> int:
    from sweeps.report.delimited import csv_text
    from sweeps.results.tables import CURVE_COLUMNS, TRIAL_COLUMNS, plain

    if options.csv == options.json:
        got = "both --csv and --json" if options.csv else "neither --csv nor --json"
        again = command("results", options.name, "--csv", runs=options.runs, study=options.study)
        raise InputError(Problem("results", got, "one of them", again))
    sweep = _find(options)
    rows = [plain(row) for row in (sweep.curve_rows() if options.curves else sweep.rows())]
    if options.json:
        print_json(documents.results(sweep.spec.name, rows, curves=options.curves))
    else:
        columns = rows[0] if rows else CURVE_COLUMNS if options.curves else TRIAL_COLUMNS
        print(csv_text(rows, list(columns)), end="")
    return 0


def _compare(options: argparse.Namespace) -> int:
    from sweeps.report.comparison import comparison_text
    from sweeps.report.method_table import FORMATS
    from sweeps.results.compare import compare

    found = compare(options.names, by=options.by, runs=options.runs, study=options.study)
    if options.json:
        print_json(documents.compared(found))
    elif options.format == "text":
        print_text(comparison_text(found))
    else:
        print(FORMATS[options.format](found), end="")
        if options.format == "csv":
            for warning in found.warnings:
                note(warning)
    return 0


def _export(options: argparse.Namespace) -> int:
    from sweeps.results.at_most import described, within_cost
    from sweeps.tracking.registry import register, registered_text

    limit = _multiple(options.at_most)
    sweep = registrable(_find(options), options)
    number = sweep.export(options.out, trial=options.trial, grown=options.grown, at_most=limit)
    progress, records = _told_progress(sweep, options), sweep.records
    verdict = sweep.answer(records)
    record = next(record for record in records if record.number == number)
    within = None
    if limit is not None:
        within = within_cost(verdict, records, limit, cost=sweep.spec.cost, grown=options.grown)
    what = described(verdict, records, number, within)
    name = sweep.spec.name if options.register is True else options.register
    if not options.json:
        print_text(what)
        print_text(
            f"it is in {options.out}; its validation loss is {record.value:.6f} under seed {record.seed}"
        )
        print_text(f'load it: AutoModelForCausalLM.from_pretrained("{options.out}")')
    if name and not options.json:
        print_text(f"registering it in MLflow as {name}: a minute at least, where its server is away")
    version = register(sweep, record, name) if name else None
    if options.json:
        given = {"what": what, "best": number == verdict.answer.trial, "test_loss": record.test_loss}
        given |= {"registered": {"name": name, "version": version} if name else None}
        print_json(documents.exported(sweep.spec.name, number, options.out, record.value, given, progress))
    elif name:
        print_text(registered_text(sweep, name, version))
    return 0


def _multiple(text: str | None) -> float | None:
    """The number of `1.3x`, or of `1.3`."""
    if text is None:
        return None
    try:
        number = float(text.strip().removesuffix("x"))
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        expected = "a multiple of the original's cost, above 0"
        raise InputError(Problem("--at-most", repr(text), expected, "--at-most 1.3x"))
    return number


def _report(options: argparse.Namespace) -> int:
    import webbrowser

    from sweeps.report.page.writing import write_report

    sweep = _find(options)
    written = write_report(sweep, options.name, out=options.out, force=options.force)
    if options.json:
        print_json({"sweep": sweep.spec.name, "out": str(written)})
    else:
        print_text(str(written))
    if options.open:
        webbrowser.open(written.absolute().as_uri())
    return 0


def _transfer(options: argparse.Namespace) -> int:
    from sweeps.results.transfer import transfer
    from tli.files import replace_file

    sweep = _find(options)
    made = transfer(sweep, options.base)
    out = options.out or Path(f"{made.spec.name}.yaml")
    usual = f"{made.spec.name}.yaml"
    if problems := [*out_file_problems(out, force=options.force, usual=usual, what="spec", is_one=_is_spec)]:
        raise InputError(*problems)
    replace_file(out, made.text.encode())
    if options.json:
        ranges = {path: each.to_json() for path, each in made.spec.search.items()}
        about = {"name": made.spec.name, "base": made.spec.base.model, "rate_factor": made.factor}
        print_json({"sweep": sweep.spec.name, "out": str(out), **about, "search": ranges})
    else:
        print_text(
            f"{out}: {made.spec.name}, over {made.spec.base.model}; learning rates by {made.factor:.3g}"
        )
        print_text(f"next: {command('plan', str(out))}")
    return 0


def _is_spec(head: bytes) -> bool:
    """Whether a file begins as a spec: with the names of its first sections at the beginning of lines."""
    return all(f"\n{name}:".encode() in b"\n" + head for name in ("name", "base"))


def _ui(options: argparse.Namespace) -> int:
    from sweeps.results.kept import unasked_tracking
    from sweeps.tracking import store_uri
    from sweeps.ui.login import Door
    from sweeps.ui.server import serve

    sweep = _find(options)
    root = sweep.folders.artifacts.absolute()
    tracking = sweep.spec.tracking
    uri = store_uri(tracking.uri, root) if tracking else None
    unasked = unasked_tracking(sweep.spec, None) if sweep.kept else None
    if uri is not None and not uri.startswith("http") and unasked is not None:
        print_notes([f"without MLflow; {unasked}"], options)
        uri = None
    names = [name.strip() for name in options.allowed_hosts.split(",") if name.strip()]
    return serve(
        sweep.spec.study_url,
        uri,
        door=Door(options.host, options.port, options.dashboard_port, names),
        open_browser=options.open,
        study=sweep.spec.name,
        ranked=sweep.ledger.finished,
    )


def _sync(options: argparse.Namespace) -> int:
    from sweeps.tracking.sync import sync

    sweep = _find(options)
    synced = sync(sweep, options.tracking)
    if options.json:
        print_json(documents.synced(sweep.spec.name, synced))
    else:
        measured = counted(synced.points, "measurement")
        print_text(f"{synced.uri} shows all of {counted(synced.trials, 'trial')}, {measured}")
        if synced.lost:
            lost = f"not whole on disk, so not rebuilt in full: curves of {these('trial', synced.lost)}"
            print_notes([lost], options)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from sweeps.cli.doctor import examine, text

    findings = examine(
        Path(options.runs or "runs"),
        study_url=options.study,
        address=options.address,
        threads=options.threads,
    )
    if options.json:
        print_json({"findings": [finding.to_json() for finding in findings]})
    else:
        print_text(text(findings))
    return 1 if any(finding.ok is False for finding in findings) else 0


def _find(options: argparse.Namespace) -> Any:
    from sweeps.results.finding import find

    return find(options.name, runs=options.runs, study=options.study)


def _told_progress(sweep: Any, options: argparse.Namespace) -> Any:
    """How far a sweep is; on standard error where its answer may change."""
    from sweeps.results.unfinished import progress_of

    progress = progress_of(sweep, options.name)
    if progress.note:
        note(progress.note)
    return progress


OF_SWEEPS: Mapping[str, Command] = {
    "status": _status,
    "list": _list,
    "best": _best,
    "results": _results,
    "compare": _compare,
    "export": _export,
    "report": _report,
    "transfer": _transfer,
    "ui": _ui,
    "sync": _sync,
    "doctor": _doctor,
}
