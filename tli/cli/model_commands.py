"""The commands that look: `tli verify`, `tli inspect` and `tli families`."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any

from tli.architectures.lookup import table
from tli.architectures.table import FAMILIES
from tli.cli.console import print_json
from tli.cli.models import at_options, found, obstacles, verified
from tli.errors import InputError, Problem
from tli.growth.folders import verify
from tli.growth.verify_report import Report
from tli.models.lineage import FILE, read_lineage
from tli.planning.plan import Plan
from tli.terminal import printable


def _verify(options: argparse.Namespace) -> int:
    def report() -> Report:
        return verify(
            options.folder,
            options.base,
            load=not options.no_load,
            revision=options.revision,
            allow_remote_code=options.allow_remote_code,
        )

    return verified(lambda: at_options(report), as_json=options.json)


def _inspect(options: argparse.Namespace) -> int:
    base = found(options, options.model)
    value: dict[str, Any] = {"name": base.name, "folder": str(base.folder), "revision": base.revision}
    value |= dataclasses.asdict(base.facts)
    value |= {"bytes": base.checkpoint.nbytes, "files": len(base.checkpoint.shards)}
    value["upscaling"] = "; ".join(map(str, obstacles(base))) or "yes"
    if (base.folder / FILE).is_file():
        lineage = read_lineage(base.folder)
        value["lineage"] = f"{lineage['base']['name']}, {Plan.from_json(lineage['plan'])}"
    if options.fingerprint:
        value["fingerprint"] = base.fingerprint
    if options.json:
        print_json(value)
    else:
        for name, item in value.items():
            text = f"{item:,}" if isinstance(item, int) else printable(str(item or "-"))
            print(f"{name:12} {text}")
    return 0


def _families(options: argparse.Namespace) -> int:
    unknown = [name for name in options.model_type if name not in FAMILIES]
    if unknown:
        raise InputError(
            *[
                Problem(
                    "model_type",
                    repr(name),
                    "one that `tli families` lists",
                    next(iter(difflib.get_close_matches(name, FAMILIES, n=1)), ""),
                )
                for name in unknown
            ]
        )
    rows = [row for row in table() if not options.model_type or row["model_type"] in options.model_type]
    if options.json:
        print_json({"architectures": rows})
        return 0
    title = "architecture"
    width = max(len(title), *(len(str(row["model_type"])) for row in rows))
    print(f"{title:{width}}  grows  {'identity':22}  notes")
    for row in rows:
        grows = "yes" if row["grows"] else "no"
        print(f"{row['model_type']:{width}}  {grows:5}  {row['identity']:22}  {row['reason']}".rstrip())
    if not options.model_type:
        exact = sum(row["identity"] not in ("-", "no") for row in rows)
        grown = sum(bool(row["grows"]) for row in rows)
        print(f"\n{len(rows)} architectures: {grown} can be grown, {exact} of them by identity")
    return 0


RUNS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "verify": _verify,
    "inspect": _inspect,
    "families": _families,
}
