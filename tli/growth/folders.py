"""From what a user names, a folder or a hub id, to a grown folder, and to the proof of one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, Unpack

from tli.architectures.mixtures import moe_problems
from tli.argument_types import FLAG, MODEL_NAME, PATH, STRING, require_types
from tli.checkpoint import atomic
from tli.checkpoint.writer import Progress
from tli.errors import InputError, PlanError, Problem
from tli.growth.on_disk import upscale_folder
from tli.growth.verify import verify_folder
from tli.growth.verify_report import Report
from tli.json_files import read_json, reason_of
from tli.models.base import Base, find
from tli.models.lineage import FILE, read_lineage
from tli.places import expanded
from tli.planning.checks import depth_problems, injection_problems
from tli.planning.injection import Injection
from tli.planning.keywords import InjectionKeywords, injection_from
from tli.planning.plan import Plan, plan_for

T = TypeVar("T")
TEXT = "builtin:stdlib"  # what the change of the hidden state is measured on, where no text is named


class PlanKeywords(InjectionKeywords, total=False):
    """What describes a plan for a given model: the settings, and the text that some of them measure on."""

    text: str


@dataclass(frozen=True)
class Upscaled:
    """A grown model on disk. It is path-like: what takes a path takes it.

    Attributes
    ----------
    folder : Path
        Where it was written.
    plan : Plan
        Which layer came from where.
    base : Base
        What it was made of.
    """

    folder: Path
    plan: Plan
    base: Base

    def __fspath__(self) -> str:
        return str(self.folder)

    def __str__(self) -> str:
        return str(self.folder)


def upscale(
    model: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    plan: Plan | str | os.PathLike[str] | None = None,
    seed: int = 0,
    revision: str | None = None,
    allow_remote_code: bool = False,
    progress: Progress | None = None,
    **settings: Unpack[PlanKeywords],
) -> Upscaled:
    """Write the grown model of a folder or a hub id to a new folder, without loading it.

    As the command `tli upscale`. Tensors that are kept move as ranges of bytes, at the speed of a file copy;
    tokenizer and generation settings are copied; `lineage.json` says what was done. The folder appears when
    it is complete.

    Parameters
    ----------
    model : str or path-like
        A folder, a hub id, or ``builtin:tiny-llama``.
    folder : str or path-like
        Where the grown model goes; it must not exist yet.
    plan : Plan or path-like, optional
        A plan for the model's number of layers, or a file that ``tli plan --save`` wrote; in place of
        `settings`.
    seed : int, default 0
        Of all that is drawn; the same seed gives the same bytes. At least 0.
    revision : str, optional
        Branch, tag or commit of a hub id.
    allow_remote_code : bool, default False
        Accept a model whose configuration asks for code of its own; it is copied, and not run here.
    progress : callable, optional
        Called with the bytes that are written and their total.
    **settings
        The fields of `Injection`, as in ``k=4, init="identity"``; and ``text``, on which
        ``least_important_sets`` measures.

    Returns
    -------
    Upscaled
        The folder, as something path-like, with its plan and its base.

    Raises
    ------
    InputError
        With every problem at once: of the model, of the folder, of the settings. Nothing was written.

    Examples
    --------
    >>> import tli
    >>> grown = tli.upscale("my-model/", "grown/", k=4, init="identity")
    >>> print(grown.plan)
    4 -> 5 layers: one new layer (identity) after every 4
    >>> tli.find(grown).facts.depth
    5
    """
    require_types(
        model=(model, MODEL_NAME),
        folder=(folder, PATH),
        revision=(revision, STRING.optional),
        allow_remote_code=(allow_remote_code, FLAG),
    )
    target = expanded(os.fspath(folder), "folder")
    problems = atomic.exists_problems(target)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        problems.append(Problem("seed", repr(seed), "a whole number of at least 0", "0"))
    base = tried(problems, lambda: find(model, revision=revision, allow_remote_code=allow_remote_code))
    if plan is None:
        decided = decide(settings, base, base.facts.depth if base else None, problems)
    else:
        decided = _given(plan, settings, problems)
    if problems or base is None or decided is None:
        raise InputError(*problems)
    upscale_folder(base, target, decided, seed=seed, progress=progress)
    return Upscaled(target, decided, base)


def verify(
    folder: str | os.PathLike[str],
    base: str | os.PathLike[str] | None = None,
    *,
    load: bool = True,
    revision: str | None = None,
    allow_remote_code: bool = False,
) -> Report:
    """Prove that a folder is what its ``lineage.json`` says, from its bytes and by running it.

    As the command `tli verify`. A model that was trained after the upscaling is checked for all that training
    keeps.

    Parameters
    ----------
    folder : str or path-like
        A folder that `upscale`, a training or an export wrote.
    base : str or path-like, optional
        The base model, a folder or a hub id; where left out, that of the lineage.
    load : bool, default True
        Run base and result too, one after the other, in float32; otherwise only bytes are compared.
    revision : str, optional
        Branch, tag or commit of a hub id.
    allow_remote_code : bool, default False
        Accept a base that brings code; it is not run.

    Returns
    -------
    Report
        All checks in order; true where every one of them is well. ``report.require()`` raises otherwise.

    Raises
    ------
    InputError
        There is no model, no lineage or no base to compare with.

    Examples
    --------
    >>> import tli
    >>> grown = tli.upscale("my-model/", "deeper/", k=2)
    >>> report = tli.verify(grown)
    >>> report.ok
    True
    >>> [check.name for check in report.checks][:3]
    ['base', 'depth', 'beside']
    """
    require_types(
        folder=(folder, PATH),
        base=(base, MODEL_NAME.optional),
        load=(load, FLAG),
        revision=(revision, STRING.optional),
        allow_remote_code=(allow_remote_code, FLAG),
    )
    place = expanded(os.fspath(folder), "folder")
    recorded = read_lineage(place)["base"]
    if base is None and revision is None:
        revision = recorded["revision"]
    try:
        found = find(
            recorded["name"] if base is None else base, revision=revision, allow_remote_code=allow_remote_code
        )
    except InputError as error:
        if base is not None:
            raise
        got = f"{recorded['name']!r}, which cannot be used from here"
        elsewhere = Problem(f"{place / FILE}: base", got, "the base model", "base=FOLDER")
        raise InputError(*error.problems, elsewhere) from None
    return verify_folder(place, found, load=load)


def decide(
    settings: Mapping[str, Any], base: Base | None, depth: int | None, problems: list[Problem]
) -> Plan | None:
    """The plan that settings describe for a model, or for a number of layers alone.

    Args:
        settings: those of `PlanKeywords`.
        base: the model, where there is one.
        depth: its number of layers; None where it is not known, as its model was not found.
        problems: what is wrong is added to them.

    Returns:
        None where there is any problem, now or before.
    """
    named = {name: value for name, value in settings.items() if name != "text"}
    injection = tried(problems, lambda: injection_from(named))
    if depth is not None and (wrong := depth_problems(depth)):
        problems += wrong
        depth = None
    if injection:
        problems += _settings_problems(injection, base, depth)
    influence = None
    if injection and injection.least_important_sets is not None and not problems:
        influence = tried(problems, lambda: _block_influence(base, settings.get("text")))
    if problems or depth is None or injection is None:
        return None
    return tried(problems, lambda: plan_for(injection, depth, block_influence=influence))


def tried(problems: list[Problem], step: Callable[[], T]) -> T | None:
    """The result of a step; its problems go to the others, so that all are reported at once."""
    try:
        return step()
    except InputError as error:
        problems.extend(error.problems)
        return None


def _settings_problems(injection: Injection, base: Base | None, depth: int | None) -> list[Problem]:
    """What is wrong with the settings, by themselves and for this model."""
    problems = injection_problems(injection, depth)
    if problems or base is None:
        return problems
    experts = injection.resolved().experts
    return moe_problems(base.config, experts) if experts.count is not None else []


def _block_influence(base: Base | None, text: str | None) -> tuple[float, ...]:
    """How much each layer changes the hidden state, for `least_important_sets`."""
    if base is None:
        raise InputError(Problem("injection.least_important_sets", "no model", "one to measure", "naming it"))
    from tli.data.dataset import Source
    from tli.data.sources import name_problems
    from tli.growth.importance import measure

    text = TEXT if text is None else text
    if problems := list(name_problems(text, "text")):
        raise InputError(*problems)
    return measure(base, Source(text, where="text"), where="text")


def _given(plan: object, settings: Mapping[str, Any], problems: list[Problem]) -> Plan | None:
    """The plan itself, or the one of a file. Settings beside it are problems."""
    if settings:
        got = f"{', '.join(settings)} too"
        problems.append(Problem("plan", got, "a plan, or settings for one"))
    if isinstance(plan, Plan):
        return plan
    if not isinstance(plan, str | os.PathLike):
        problems.append(Problem("plan", repr(plan)[:80], "a tli.Plan, or a file that holds one"))
        return None
    return tried(problems, lambda: read_plan(expanded(os.fspath(plan), "plan")))


def read_plan(path: Path) -> Plan:
    """A plan as `tli plan --save` writes it. Raises PlanError."""
    try:
        value = read_json(path)
    except (OSError, ValueError) as error:
        reason = f"no JSON ({reason_of(error)})"
        raise PlanError(Problem(str(path), reason, "a plan", "tli plan --save")) from None
    return Plan.from_json(value if isinstance(value, dict) else {}, str(path))
