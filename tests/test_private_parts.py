"""Private parts of Optuna and of Ray are touched in one folder each: read from the syntax trees of what reaches them.

Private is a name that begins with an underscore: a module, an attribute, an argument, a method that is overridden.
What is behind a folder's door may change with every version; `make compat` tries the oldest and the newest.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from tests.test_imports import MAY_IMPORT, ONLY_IN, folder, name_of, sources, tree

# By third party: the one folder that may use its private parts.
PRIVATE_IN = {"optuna": "sweeps/ledger/store", "ray": "sweeps/driver/on_ray"}
# Named tuples begin these with an underscore so that they are no fields; they are public.
PUBLIC = {"_replace", "_asdict", "_fields", "_make"}
BY_STRING = {"getattr", "setattr", "hasattr", "delattr"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_" and name not in PUBLIC


@dataclass
class Own:
    """A class of ours: the names of its bases as written, and the private names that it defines."""

    bases: list[str] = field(default_factory=list)
    private: set[str] = field(default_factory=set)


def classes(module: ast.Module) -> dict[str, Own]:
    found: dict[str, Own] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef):
            own = found.setdefault(node.name, Own())
            own.bases += [ast.unparse(base).partition("[")[0] for base in node.bases]
            own.private |= {name for name in defined(node) if is_private(name)}
    return found


def defined(node: ast.ClassDef) -> Iterator[str]:
    """Methods, names of the class body, and attributes that its methods set on `self` or `cls`."""
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield child.name
        elif isinstance(child, ast.Assign | ast.AnnAssign):
            targets = child.targets if isinstance(child, ast.Assign) else [child.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store) and is_self(inner.value):
            yield inner.attr


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"self", "cls"}


@cache
def our_classes() -> dict[str, Own]:
    """All of ours by name; those of one name are taken for one."""
    found: dict[str, Own] = {}
    for path in sources():
        for name, own in classes(tree(path)).items():
            known = found.setdefault(name, Own())
            known.bases += own.bases
            known.private |= own.private
    return found


def private_of(name: str, known: Mapping[str, Own]) -> set[str]:
    """The private names that a class of ours and the bases of ours that it has define."""
    if name not in known:
        return set()
    return known[name].private.union(*(private_of(base, known) for base in known[name].bases))


class Reader(ast.NodeVisitor):
    """Collects the private names that are used of what is not ours, with their lines."""

    def __init__(self, known: Mapping[str, Own]) -> None:
        self.known, self.found = known, list[tuple[int, str]]()
        self.inside: str | None = None  # the class
        self.made: set[str] = set()  # local names of objects of that class

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        outside, self.inside = self.inside, node.name
        self.generic_visit(node)
        self.inside = outside

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        outside = self.made
        self.made = outside | {
            target.id
            for each in ast.walk(node)
            if isinstance(each, ast.Assign) and isinstance(each.value, ast.Call) and made_here(each.value)
            for target in each.targets
            if isinstance(target, ast.Name)
        }
        self.generic_visit(node)
        self.made = outside

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.use(node, node.value, node.attr)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        self.found += [
            (node.lineno, f"{each.arg}=") for each in node.keywords if each.arg and is_private(each.arg)
        ]
        if isinstance(node.func, ast.Name) and node.func.id in BY_STRING and len(node.args) > 1:
            name = node.args[1]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                self.use(node, node.args[0], name.value)
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.found += [(node.lineno, each.name) for each in node.names if of_a_party(each.name)]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        names = [f"{node.module}.{each.name}" for each in node.names]
        self.found += [(node.lineno, name) for name in names if of_a_party(name)]

    def use(self, node: ast.expr, of: ast.expr, name: str) -> None:
        own = is_self(of) or (isinstance(of, ast.Name) and of.id in self.made)
        allowed = private_of(self.inside, self.known) if own and self.inside is not None else set[str]()
        if is_private(name) and name not in allowed:
            self.found.append((node.lineno, name))


def made_here(call: ast.Call) -> bool:
    """Whether a call is `cls(...)` or `cls.made_so(...)`."""
    made = call.func.value if isinstance(call.func, ast.Attribute) else call.func
    return isinstance(made, ast.Name) and made.id == "cls"


def of_a_party(name: str) -> bool:
    """Whether a dotted name has a private part of one of the third parties."""
    top, *parts = name.split(".")
    return top in PRIVATE_IN and any(map(is_private, parts))


def touches(module: ast.Module) -> list[tuple[int, str]]:
    reader = Reader({**our_classes(), **classes(module)})
    reader.visit(module)
    return [*reader.found, *overridden(module)]


def overridden(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Private names of classes of the third parties that classes of this module define again."""
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef):
            mine = {name for name in defined(node) if is_private(name)}
            theirs = {
                name
                for base in resolved(node.bases, module)
                for each in base.__mro__
                if each.__module__.partition(".")[0] in PRIVATE_IN
                for name in vars(each)
            }
            yield from ((node.lineno, f"{node.name}.{name}") for name in sorted(mine & theirs))


def resolved(bases: Iterable[ast.expr], module: ast.Module) -> Iterator[type]:
    """The classes that bases are, of those imported from a third party or from the folder that wraps it."""
    doors = tuple(place.replace("/", ".") for place in PRIVATE_IN.values())
    known: dict[str, tuple[str, str]] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and node.module:
            known |= {each.asname or each.name: (node.module, each.name) for each in node.names}
    for base in bases:
        place, name = known.get(ast.unparse(base), ("", ""))
        dotted = ast.unparse(base).split(".")
        if dotted[0] in PRIVATE_IN and len(dotted) > 1:
            place, name = ".".join(dotted[:-1]), dotted[-1]
        if place.partition(".")[0] in PRIVATE_IN or place.startswith(doors):
            found = getattr(importlib.import_module(place), name)
            assert isinstance(found, type)
            yield found


@cache
def reaching() -> tuple[Path, ...]:
    """The files that may import one of the third parties, or what does: its objects come through there."""
    reached = set(ONLY_IN["optuna"] | ONLY_IN["ray"])
    while more := {own for own, others in MAY_IMPORT.items() if others & reached} - reached:
        reached |= more
    return tuple(path for path in sources() if folder(path) in reached | {"sweeps"})


def test_private_parts_of_optuna_and_of_ray_are_touched_in_one_folder_each() -> None:
    wrong = [
        f"{name_of(path)}:{line}: {name} is private; it belongs in one of {sorted(PRIVATE_IN.values())}"
        for path in reaching()
        if folder(path) not in PRIVATE_IN.values()
        for line, name in touches(tree(path))
    ]
    assert wrong == []


def test_each_of_the_folders_touches_the_private_parts_of_its_own_party_alone() -> None:
    for party, place in PRIVATE_IN.items():
        paths = [path for path in sources() if folder(path) == place]
        assert any(touches(tree(path)) for path in paths), place
        others = set(PRIVATE_IN) - {party}
        code = "\n".join(path.read_text(encoding="utf-8") for path in paths)
        imported = {
            name.partition(".")[0]
            for node in ast.walk(ast.parse(code.replace("from __future__ import annotations\n", "")))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (
                [node.module or ""] if isinstance(node, ast.ImportFrom) else [n.name for n in node.names]
            )
        }
        assert not imported & others, place


def test_the_folders_that_reach_them_are_known() -> None:
    found = {folder(path) for path in reaching()}
    assert {"sweeps/ledger", "sweeps/ledger/search", "sweeps/cli", "sweeps/results", "sweeps/ui"} <= found
    assert not {"sweeps/spec", "sweeps/worker", "tli/growth"} & found


DOOR = "from sweeps.ledger.store.internals import MemoryStudy\n"
STUDY = "import optuna\nfrom optuna.pruners import HyperbandPruner\n"


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("study._storage.get_trial(trial._trial_id)", {"_storage", "_trial_id"}),
        ("import optuna.storages._rdb.models", {"optuna.storages._rdb.models"}),
        ("from optuna.storages._rdb import models", {"optuna.storages._rdb.models"}),
        ("def late():\n    from ray import _raylet", {"ray._raylet"}),
        ("x = optuna.storages._rdb.models", {"_rdb"}),
        ("getattr(client, '_server_ray_version', None)", {"_server_ray_version"}),
        ("ray.init(_temp_dir='r')", {"_temp_dir="}),
        # Ours have attributes of this name, which makes it no better.
        ("class Ledger:\n    def a(self, study): return self._study_id, study._study_id", {"_study_id"}),
        # What a base from outside has is not ours, through `self` too.
        ("class H(HyperbandPruner):\n    def n(self): return len(self._pruners)", {"_pruners"}),
        ("class S(optuna.Study):\n    def _get_trials(self): ...", {"S._get_trials"}),
        (
            f"{DOOR}class S(MemoryStudy):\n    def _get_trials(self): return super()._get_trials()",
            {"S._get_trials", "_get_trials"},
        ),
        ("class L:\n    @classmethod\n    def of(cls):\n        made = cls()\n        made._storage = 1", {"_storage"}),
        # These are ours, or public.
        ("class A:\n    def __init__(self): self._x = 1\nclass B(A):\n    def y(self): return self._x", set()),
        ("class A:\n    _x = 1\n    @classmethod\n    def of(cls):\n        made = cls()\n        return made._x", set()),
        ("parts._replace(netloc='')", set()),
        ("for _ in type(error).__mro__: pass", set()),
        ("class H(HyperbandPruner):\n    def _ours(self): return self._ours", set()),
    ],
)  # fmt: skip
def test_the_reader_sees_private_parts(code: str, found: set[str]) -> None:
    assert {name for _, name in touches(ast.parse(STUDY + code))} == found
