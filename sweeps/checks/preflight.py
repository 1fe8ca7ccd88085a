"""All checks before a run that need more than the spec: base, text, machine, stores. Read-only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from sweeps import addresses
from sweeps.checks import machine, shapes, stores
from sweeps.checks.checkpointing import checkpointing, choice_note, is_auto, settled
from sweeps.checks.data import Text
from sweeps.checks.evaluation import evaluation_notes, evaluation_problems
from sweeps.checks.memory import room_problems
from sweeps.checks.placement import fitting, slots, this_machine
from sweeps.checks.recipe import recipe_problems
from sweeps.checks.usual_values import habit_notes
from sweeps.errors import InputError, Problem, SpecError
from sweeps.folders import Folders
from sweeps.spec import Spec
from sweeps.text import in_bytes
from sweeps.wording import formatted, masked
from tli.architectures.config import section_of
from tli.architectures.lengths import length_problems
from tli.architectures.lookup import family_of, loading_problems, refusals
from tli.data.tokenizer_check import tokenizer_problems
from tli.growth.attention_sizes import scans
from tli.growth.on_disk import growth_problems
from tli.models import base as bases
from tli.models.base import Base
from tli.models.descriptions import Description, find_or_described
from tli.models.quantised import training_problems
from tli.planning.checks import injection_problems

_TOKEN_BYTES = 4  # of a token file, at most


@dataclass(frozen=True)
class Preflight:
    """A sweep that can start: its base was found, and `notes` say what may be worth knowing first."""

    spec: Spec
    base: Base
    notes: tuple[str, ...]
    heldout: int | None = None  # tokens of held-out text that are there, where that is known
    checkpointing: int | None = None  # layers of which one is calculated again, where that was to be chosen


def check(
    spec: Spec,
    *,
    cluster: str | None = None,
    at_once: int | None = None,
    allow_remote_code: bool = False,
    weights: bool = True,
    study: Callable[[Spec], Iterable[Problem]] = lambda _spec: (),
    warm_start: Callable[[Spec], Iterable[Problem]] = lambda _spec: (),
) -> Preflight:
    """Look at everything that a sweep will need, and create nothing.

    Args:
        spec: a checked spec.
        cluster: address of a Ray cluster; with one, this machine's cores and GPUs say nothing, and its port
            must answer.
        at_once: trials; None takes what the spec allows and this machine has.
        allow_remote_code: take a base that brings code of its own.
        weights: whether they must be there; without, a model that has a packaged description is taken by
            that, where its weights are not on this machine. What this machine lacks is a note then.
        study: what the ledger has against this spec, asked last and only of a store that is there.
        warm_start: what the sweeps that it begins with have against it.

    Raises:
        SpecError: with every problem.
    """
    problems: list[Problem] = []
    notes: list[str] = []
    base = _base(spec, problems, weights=weights, allow_remote_code=allow_remote_code)
    described = isinstance(base, Description)
    if base is not None:
        problems += [*_model_problems(spec, base), *recipe_problems(spec, base)]
        notes += [*_depth_notes(spec, base), *_cost_notes(base)]
    text = Text(spec)
    unread = described and text.from_the_hub  # for sizes alone nothing is asked of another machine
    wrong = [] if unread else list(text.problems())
    problems += [*wrong, *evaluation_problems(spec)]
    if base is not None and not wrong and not unread:
        every = (each.settings for each in spec.data.portions())
        foreign = list(
            dict.fromkeys(each for settings in every for each in tokenizer_problems(base, settings))
        )
        problems += foreign or text.shortages(base)
    local = cluster is None or cluster == "local"
    if local and described:
        notes += [f"not on this machine: {problem}" for problem in _machine_problems(spec)]
    elif local:
        problems += _machine_problems(spec)
        notes += _machine_notes(spec)
    elif cluster is not None:
        problems += stores.cluster(cluster)
    folder = list(_folder_problems(spec))
    unusable = [*folder, *_store_problems(spec, own=not folder)]
    problems += unusable
    chosen = None
    if base is not None and not problems:
        if is_auto(spec):
            chosen = checkpointing(spec, base, local=local, at_once=at_once)
            notes.append(choice_note(spec, chosen))
        lacking = room_problems(settled(spec, chosen), base, local=local, at_once=at_once)
        if described:
            notes += [f"not on this machine: {problem}" for problem in lacking]
        else:
            problems += lacking
    if not unusable and addresses.may_exist(spec.study_url):
        with stores.readable(spec.study_url, spec.where("storage.study")):
            problems += study(spec)
    if not unusable:
        problems += warm_start(spec)
    if problems:
        raise SpecError(*problems)
    assert base is not None, "a base that was not found is a problem"
    heldout = None if unread else text.heldout(base)
    notes += habit_notes(spec, base, local=local and not described, heldout=heldout)
    notes += [f"the text, {spec.data.shown}, was not looked at either"] if unread else text.notes(base)
    told = [_described(base)] if described else []
    notes += [*_search_notes(spec), *_tracking_notes(spec), *evaluation_notes(spec)]
    return Preflight(spec, base, (*told, *notes), heldout, chosen)


def _placed(spec: Spec, problem: Problem, names: Mapping[str, str]) -> Problem:
    """The problem at its line and column, where another part named it by a setting and not by a file."""
    where = spec.where(names[problem.where]) if problem.where in names else problem.where
    return Problem(where, masked(problem.got), problem.expected, problem.remedy)


def _described(base: Base) -> str:
    terms = "accepting the terms that its page may ask for, and `hf auth login`, come first"
    return (
        f"no weight of {base.name} was looked at: sizes are those of its packaged description, at "
        f"{base.revision}; sweeps run downloads {in_bytes(base.checkpoint.nbytes)}; {terms}"
    )


def _base(spec: Spec, problems: list[Problem], *, weights: bool, allow_remote_code: bool) -> Base | None:
    names = {"base.model": "base.model", "revision": "base.revision"}
    find = bases.find if weights else find_or_described
    try:
        return find(
            spec.base.model,
            revision=spec.base.revision,
            allow_remote_code=allow_remote_code,
            where="base.model",
        )
    except InputError as error:
        problems += [_placed(spec, problem, names) for problem in error.problems]
        return None


def _model_problems(spec: Spec, base: Base) -> Iterator[Problem]:
    """What in the spec the base cannot do: its family, its depth, its context."""
    place = f"{spec.where('base.model')} ({base.folder.name}/config.json)"
    try:
        family = family_of(base.config.get("model_type"), place)
        yield from refusals(family, section_of(base.config), place)
        yield from loading_problems(family, place)
        yield from training_problems(base)
        facts = base.facts
    except InputError as error:
        yield from error.problems
        return
    problems = [*_depth_problems(spec, facts.depth)]
    yield from problems
    if not problems:
        yield from _growth_problems(spec, base)
    place = spec.where("data.sequence_length")
    yield from length_problems(base.config, spec.data.sequence_length, place, base.name)


def _depth_problems(spec: Spec, depth: int) -> Iterator[Problem]:
    """Settings of the injection that the model has not layers enough for."""
    for problem in injection_problems(spec.trial.to_injection(), depth, "trial.injection"):
        yield Problem(spec.where(problem.where), problem.got, problem.expected, problem.remedy)
    wanted = spec.search.get("injection.k")
    for index, k in enumerate(wanted.ends if wanted is not None else ()):
        if k is not None and k > depth:
            place = spec.where(f"search.injection.k.{wanted.kind}[{index}]")  # type: ignore[union-attr]
            yield Problem(place, str(k), f"at most {depth}, the model's number of layers", str(depth))


def _growth_problems(spec: Spec, base: Base) -> Iterator[Problem]:
    """Injections in play that the architecture does not allow, each problem once."""
    own = spec.trial.to_injection()
    wanted = spec.search.get("injection.init")
    choices = wanted.choice if wanted is not None and wanted.choice else ()
    inits = [replace(own, init=init) for init in choices]
    seen = set()
    for injection in (own, *shapes.searched_shapes(spec), *inits):
        if injection_problems(injection, base.facts.depth):
            continue  # a combination of ranges that no trial runs with
        for problem in growth_problems(base, shapes.plan_of(injection, base.facts.depth)):
            if problem not in seen:
                seen.add(problem)
                section = "trial" if injection == own else "search"
                setting = problem.where.startswith("injection.")
                place = spec.where(f"{section}.{problem.where}") if setting else problem.where
                yield replace(problem, where=place)


def _machine_problems(spec: Spec) -> Iterator[Problem]:
    wanted, cores = spec.resources, machine.cores()
    if wanted.cpus > cores:
        expected = f"at most {cores}, the cores of this machine"
        yield Problem(spec.where("resources.cpus"), str(wanted.cpus), expected, str(cores))
    if wanted.gpus and not machine.gpus():
        yield Problem(spec.where("resources.gpus"), f"{wanted.gpus:g}", "0: this machine has no GPU", "0")
    elif wanted.workers > 1 and wanted.cpus <= cores:
        ranks = fitting([this_machine()], wanted.cpus, wanted.gpus)
        if ranks < wanted.workers:
            each = f"{wanted.cpus} CPUs and {wanted.gpus:g} GPUs"
            expected = f"at most {ranks}, the ranks of {each} that this machine holds"
            yield Problem(spec.where("resources.workers"), str(wanted.workers), expected, str(ranks))
        elif wanted.gpus:
            yield from _between_gpus(spec)
    compiled = spec.trial.recipe.compile or "recipe.compile" in spec.search
    if compiled and (missing := machine.missing_compiler(gpu=wanted.gpus > 0)):
        got = f"true, and {missing} on this machine"
        expected = "Triton and a C compiler" if wanted.gpus else "a C++ compiler"
        yield Problem(spec.where("trial.recipe.compile"), got, expected, "false")


def _between_gpus(spec: Spec) -> Iterator[Problem]:
    """Why ranks on this machine's GPUs could not speak with each other; torch is asked, and loaded for it."""
    from tli.sharded.processes import device_problem

    if (problem := device_problem("cuda")) is not None:
        got = f"{spec.resources.gpus:g} for each of {spec.resources.workers} ranks; here {problem.got}"
        yield Problem(spec.where("resources.gpus"), got, problem.expected, "0, or resources.workers: 1")


def _machine_notes(spec: Spec) -> Iterator[str]:
    fitting = slots(spec, [this_machine()])
    if spec.resources.parallel is not None and fitting < spec.resources.parallel:
        yield f"resources.parallel is {spec.resources.parallel}; {fitting} at once fit on this machine"


def _depth_notes(spec: Spec, base: Base) -> Iterator[str]:
    depth = base.facts.depth
    for injection in shapes.searched_shapes(spec):
        k = injection.k
        whole = injection.layers is None and k is not None and k <= depth
        if k is not None and whole and depth % k:
            yield f"K={k} does not divide the {depth} layers: the last set has {depth % k}"


def _cost_notes(base: Base) -> Iterator[str]:
    if scans(base.checkpoint.tensors):
        yield "FLOPs are told without the recurrence of the base's state-space or linear-attention layers"


def _search_notes(spec: Spec) -> Iterator[str]:
    for path, wanted in spec.search.items():
        value = spec.value(path)
        active = all(spec.value(other) in allowed for other, allowed in wanted.when.items())
        if active and not wanted.allows(value):
            own = f"the baseline's {path} ({formatted(value)})"
            yield f"{own} is outside its range: the sampler learns less from it"


def _tracking_notes(spec: Spec) -> Iterator[str]:
    uri = spec.tracking_uri
    if uri is not None and uri.startswith("http") and (reason := stores.address(uri)):
        yield f"MLflow cannot be reached now ({reason}); the sweep runs, and delivers when it can"


def _folder_problems(spec: Spec) -> Iterator[Problem]:
    """Whether the artifacts folder is there or can be made, and leads nowhere else."""
    where = spec.where("storage.artifacts")
    yield from Folders(spec.root, spec.name).links()
    folder = spec.root / spec.name
    place = machine.existing(folder)
    if not place.is_dir():
        yield Problem(where, f"{str(place)!r}, a file", "a folder", "another folder")
    elif not machine.writable(place):
        yield Problem(
            where, f"{str(place)!r}, which cannot be written to", "a folder to write to", "another folder"
        )


def _store_problems(spec: Spec, *, own: bool) -> Iterator[Problem]:
    """Whether the stores can be opened; `own`: also those that are kept in the artifacts folder."""
    kept = [("storage.study", spec.storage.study, spec.study_url, "studies")]
    if spec.tracking is not None:
        kept.append(("tracking.uri", spec.tracking.uri, spec.tracking_uri or "", "experiments"))
        if addresses.driven(spec.study_url) == addresses.driven(spec.tracking_uri or ""):
            got = f"{masked(spec.study_url)!r}, the study's own store"
            expected = "a store of its own: Optuna and MLflow would take each other's tables for theirs"
            yield Problem(spec.where("tracking.uri"), got, expected, "another database, or sqlite")
            return
    for path, written, url, table in kept:
        if url.startswith("http") or (written == "sqlite" and not own):
            continue  # an MLflow server that is away costs nothing but freshness
        yield from stores.store(url, spec.where(path), table=table)
