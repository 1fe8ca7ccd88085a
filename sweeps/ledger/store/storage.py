"""Opens the ledger's database, and reads what is in it before a study is opened."""

from __future__ import annotations

import json
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from sqlalchemy import Engine

from sweeps.addresses import absolute, driven, file_of
from sweeps.errors import Problem, SpecError
from sweeps.ledger.store.loading import legible
from sweeps.ledger.store.marks import IDENTITY, INPUT_DIGESTS, SPEC, WARM_START
from sweeps.ledger.store.retrying import FileStorage, ServerStorage, as_sweep_error
from sweeps.ledger.store.trials import REPLICATE_OF, ROLE, SEED
from sweeps.records import Role
from sweeps.spec import Spec, changed_amounts, difference


def open_storage(url: str) -> BaseStorage:
    """An Optuna storage for a URL of SQLite or PostgreSQL, one a process and database.

    SQLite writes ahead and syncs at checkpoints: five times faster, and a power cut may cost the last
    moments but never the database's integrity. PostgreSQL connections are tried before use.

    Raises:
        SweepError: it cannot be used, now or in any later call: the disk is full, the server is away.
    """
    # By the file's place and not its name, which means another file in another working folder.
    return _opened(absolute(url))


@lru_cache(maxsize=8)
def _opened(url: str) -> BaseStorage:
    from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    opened = _sqlite if url.startswith("sqlite") else _postgresql
    for wait in (0.5, 1.0, 2.0, 4.0):
        try:
            return get_storage(opened(url))
        except (IntegrityError, OperationalError, ProgrammingError):
            # Two sweeps that make a new database at once meet at its tables; the second finds them made.
            time.sleep(wait)
    with as_sweep_error():
        return get_storage(opened(url))


def _postgresql(url: str) -> RDBStorage:
    return ServerStorage(driven(url), engine_kwargs={"pool_pre_ping": True})


def _sqlite(url: str) -> RDBStorage:
    from sqlalchemy import event

    file_of(url).absolute().parent.mkdir(parents=True, exist_ok=True)
    storage = FileStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})

    def set_up(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.close()

    event.listen(storage.engine, "connect", set_up)
    storage.engine.dispose()  # the pool's first connection was made before the listener
    return storage


def engine_of(storage: BaseStorage) -> Engine:
    """The connection pool of a storage that `open_storage` gave."""
    engine: Engine = storage._backend.engine  # type: ignore[attr-defined] # under Optuna's cache
    return engine


def storage_names(storage: BaseStorage) -> list[str]:
    """Names of the sweeps in a storage; other people's studies are left out."""
    return [study.study_name for study in _studies(storage) if SPEC in study.user_attrs]


def refuse_foreign(storage: BaseStorage, name: str) -> None:
    """Refuse a study of this name that this program did not make and that holds something.

    Raises:
        SpecError: there is one.
    """
    for study in _studies(storage):
        if study.study_name != name or SPEC in study.user_attrs:
            continue
        if set(study.user_attrs) - {IDENTITY, INPUT_DIGESTS, WARM_START} or storage.get_n_trials(
            study._study_id
        ):
            got = "a study that was not made by sweeps"
            raise SpecError(Problem(f"study {name!r}", got, "a name of its own", f"name: {name}-2"))


def no_such_study(storage: BaseStorage | None, name: str) -> SpecError:
    """Why a study is not there to be read; it may be another program's."""
    known: list[str] = []
    if storage is not None:
        refuse_foreign(storage, name)
        known = sorted(storage_names(storage))
    expected = f"one of: {', '.join(known) or 'none'}"
    return SpecError(Problem(f"study {name!r}", "no such study", expected, "".join(known[:1])))


def unused_study(storage: BaseStorage, name: str) -> int:
    """The unused study of this name, left by a kill while it was made, or a new one."""
    for study in _studies(storage):
        if study.study_name == name:
            return int(study._study_id)
    try:
        return int(storage.create_new_study([StudyDirection.MINIMIZE], name))
    except DuplicatedStudyError:  # another driver has made it meanwhile; who drives it, the lease decides
        return int(storage.get_study_id_from_name(name))


def make(
    storage: BaseStorage,
    spec: Spec,
    input_digests: Mapping[str, str],
    warm_start: Sequence[Mapping[str, Any]] = (),
) -> None:
    """See that the study of this spec exists, and is this spec's.

    Args:
        storage: where it is, or is to be.
        spec: what the study is for.
        input_digests: digests of what the spec only names.
        warm_start: what a study that is made now takes over from other sweeps, as JSON values.

    Raises:
        SpecError: the study belongs to another spec, or to other inputs; every difference is shown.
    """
    stored = stored_spec(storage, spec.name)
    if stored is None:
        refuse_foreign(storage, spec.name)
        study_id = unused_study(storage, spec.name)
        storage.set_study_user_attr(study_id, IDENTITY, uuid.uuid4().hex)
    else:
        study_id = storage.get_study_id_from_name(spec.name)
    known = storage.get_study_user_attrs(study_id).get(INPUT_DIGESTS, {})
    problems = [
        *(spec_conflicts(stored, spec, fresh_seeds(storage, spec.name)) if stored else ()),
        *input_conflicts(spec.name, known, input_digests),
    ]
    if problems:
        raise SpecError(*problems)
    if input_digests and known != input_digests:
        storage.set_study_user_attr(study_id, INPUT_DIGESTS, dict(input_digests))
    if stored is None and warm_start:
        storage.set_study_user_attr(study_id, WARM_START, list(warm_start))
    if stored is None or stored.to_json() != spec.to_json():
        # Last: a study without its spec is one that was killed while it was made, and is made again.
        storage.set_study_user_attr(study_id, SPEC, json.dumps(spec.to_json()))


def input_conflicts(name: str, known: Mapping[str, str], now: Mapping[str, str]) -> list[Problem]:
    """What the spec names as before, and what is no longer the same."""
    return [
        Problem(
            f"study {name!r}",
            f"another {what} than its trials had (digest {now[what][:12]}, theirs {known[what][:12]})",
            "the same base and text for every trial",
            f"name: {name}-2, or the old {what}",
        )
        for what in known
        if now.get(what, known[what]) != known[what]
    ]


def fresh_seeds(storage: BaseStorage, name: str) -> int:
    """The most fresh seeds that any configuration of a study was begun under; 0 before the first one."""
    trials = storage.get_all_trials(storage.get_study_id_from_name(name), deepcopy=False)
    fresh = [t.user_attrs for t in trials if t.user_attrs.get(ROLE) not in (Role.RUNG, Role.EVALUATION)]
    return most_fresh_seeds((each.get(REPLICATE_OF), each.get(SEED)) for each in fresh)


def most_fresh_seeds(begun: Iterable[tuple[int | None, int | None]]) -> int:
    """The same of pairs: the trial whose settings a run has, None for a trial of the search, and its seed."""
    seeds = defaultdict(set)
    for original, seed in begun:
        if original is not None:
            seeds[original].add(seed)
    return max(map(len, seeds.values()), default=0)


def spec_conflicts(stored: Spec, spec: Spec, ran: int) -> list[Problem]:
    """Why a study that was run with one spec, or under earlier rules, cannot go on with another.

    Args:
        stored: what it was last run with.
        spec: what is to be run.
        ran: fresh seeds that were begun; a number that was only asked for may be taken back.
    """
    if stored.before_fresh_seeds:
        got = "made by an earlier version, whose replicates were measured on the text of the search"
        expected = "a study whose runs under fresh seeds have a loss on the test text"
        remedy = f"name: {spec.name}-2; the commands that only read go on with {spec.name!r} as it is"
        return [Problem(f"study {spec.name!r}", got, expected, remedy)]
    fewer = changed_amounts(stored, spec, raised=False)
    problems = [
        Problem(
            spec.where(path),
            f"{want}, fewer than the {ran} of the study",
            "as many or more, as the answer was read with what ran",
            f"{path}={ran}",
        )
        for path, (_, want) in fewer.items()
        if path == "finalists.seeds" and want < ran  # the control's rates are its own; those that ran stay
    ]
    if stored.hash == spec.hash:
        return problems
    return problems + [
        Problem(
            f"study {spec.name!r}",
            f"another spec ({line})",
            "the spec that the study was made with",
            f"name: {spec.name}-2, or the old value",
        )
        for line in difference(stored, spec)
    ]


def stored_spec(storage: BaseStorage, name: str) -> Spec | None:
    """The spec that a study was last run with; None when there is no such study of ours."""
    for study in _studies(storage):
        if study.study_name == name and SPEC in study.user_attrs:
            try:
                return Spec.from_json(json.loads(study.user_attrs[SPEC]), name=f"study {name!r}")
            except SpecError:
                raise
            except (TypeError, ValueError, RecursionError):
                got = f"an attribute {SPEC!r} that is no spec"
                remedy = "the last copy of the store"
                raise SpecError(Problem(f"study {name!r}", got, "what sweeps writes", remedy)) from None
    return None


def _studies(storage: BaseStorage) -> list[FrozenStudy]:
    """Every study of a store.

    Raises:
        SpecError: Optuna cannot read one of them.
    """
    with legible("the study's store"):
        return storage.get_all_studies()
