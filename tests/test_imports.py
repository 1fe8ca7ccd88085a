"""Who may import whom: the folders and their walls, read from the syntax trees; and importing does nothing heavy.

A folder is written as its path, `sweeps/ledger/store`. The modules right under `tli/` and `sweeps/` are the ground, which
every folder of the same package, and of `sweeps` for `tli`, may import. Imports inside functions and under TYPE_CHECKING
count: they are knowledge too.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("tli", "sweeps")

TLI = {
    "tli/planning": set[str](),
    "tli/checkpoint": set[str](),
    "tli/architectures": {"tli/planning"},
    "tli/models": {"tli/planning", "tli/checkpoint", "tli/architectures"},
    "tli/initializers": {"tli/planning", "tli/checkpoint", "tli/architectures"},
    "tli/data": {"tli/checkpoint", "tli/models"},
    "tli/growth": {
        "tli/planning",
        "tli/checkpoint",
        "tli/architectures",
        "tli/models",
        "tli/initializers",
        "tli/data",
    },
    "tli/training": {"tli/checkpoint", "tli/architectures", "tli/models", "tli/data"},
    "tli/sharded": {
        "tli/planning",
        "tli/checkpoint",
        "tli/architectures",
        "tli/models",
        "tli/initializers",
        "tli/growth",
        "tli/training",
    },
    "tli/tasks": {"tli/models"},
    "tli/cli": {
        "tli/planning",
        "tli/checkpoint",
        "tli/architectures",
        "tli/models",
        "tli/growth",
        "tli/tasks",
    },
    "tli/builtin": {"tli/models", "tli/data", "tli/training"},
}
# The table, bottom first: what each folder may import beside itself and the ground.
MAY_IMPORT: dict[str, set[str]] = TLI | {
    "sweeps/spec": {"tli/planning", "tli/data", "tli/training", "tli/tasks"},
    "sweeps/worker": {"sweeps/spec", *TLI} - {"tli/cli"},
    "sweeps/checks": {"sweeps/spec", *TLI} - {"tli/cli"},
    "sweeps/ledger/store": {"sweeps/spec"},
    "sweeps/ledger/search": {"sweeps/spec", "sweeps/ledger/store"},
    "sweeps/ledger": {"sweeps/spec", "sweeps/ledger/store", "sweeps/ledger/search"},
    "sweeps/results": {"sweeps/spec", "sweeps/checks", "sweeps/ledger", *TLI} - {"tli/cli"},
    "sweeps/tracking": {"sweeps/checks", "sweeps/results"},
    "sweeps/report": {"sweeps/results"},
    "sweeps/report/page": {"sweeps/results", "sweeps/report"},
    "sweeps/ui": {"sweeps/ledger", "sweeps/tracking"},
    "sweeps/driver/schedule": {
        "sweeps/spec",
        "sweeps/checks",
        "sweeps/ledger",
        "sweeps/ledger/search",
        "sweeps/results",
        "sweeps/tracking",
    },
    "sweeps/driver/on_ray": {
        "sweeps/spec",
        "sweeps/worker",
        "sweeps/checks",
        "sweeps/results",
        "sweeps/driver/schedule",
        "tli/training",
        "tli/sharded",
    },
    "sweeps/driver": {
        "sweeps/spec",
        "sweeps/worker",
        "sweeps/checks",
        "sweeps/ledger",
        "sweeps/results",
        "sweeps/tracking",
        "sweeps/report/page",
        "sweeps/driver/schedule",
        "sweeps/driver/on_ray",
        "tli/models",
        "tli/data",
    },
    "sweeps/cli": {
        "sweeps/spec",
        "sweeps/checks",
        "sweeps/results",
        "sweeps/tracking",
        "sweeps/report",
        "sweeps/report/page",
        "sweeps/ui",
        "sweeps/driver",
        "sweeps/driver/schedule",
        "sweeps/driver/on_ray",
        "tli/cli",
    },
}
# Beside the ground: what a package offers, and how Python starts it.
ENTRIES = {"tli/__init__.py", "tli/__main__.py", "sweeps/__init__.py", "sweeps/__main__.py"}

# A third party that is in no row may be imported nowhere. `tli/*` is every folder of tli.
ONLY_IN = {
    "ray": {"sweeps/driver/on_ray"},
    "optuna": {"sweeps/ledger", "sweeps/ledger/store", "sweeps/ledger/search"},
    "sqlalchemy": {"sweeps/ledger/store", "sweeps/checks"},
    "mlflow": {"sweeps/tracking", "sweeps/ui"},
    "optuna_dashboard": {"sweeps/ui"},
    "uvicorn": {"sweeps/ui"},
    "starlette": {"sweeps/ui"},
    "pandas": {"sweeps/results"},
    "pydantic": {"sweeps/spec"},
    "yaml": {"sweeps/spec"},
    "rich": {"sweeps/report"},
    "torch": {"tli/*"},
    "transformers": {"tli/*"},
    "safetensors": {"tli/*"},
    "tokenizers": {"tli/*"},
    "huggingface_hub": {"tli/models", "tli/data"},
    "numpy": {"tli/*", "sweeps/ledger/search", "sweeps/results"},
    "threadpoolctl": {"sweeps/ledger/search"},
    "argcomplete": {"tli/cli"},
    "datasets": {"tli/data"},
    "pyarrow": {"tli/data"},
    "torchao": {"tli/training"},
    "lm_eval": {"tli/tasks"},
    "packaging": {"sweeps/cli"},
}
# Of these: imported by name at run time, where a reader of the source does not see it.
BY_NAME = {("datasets", "tli/data"), ("pyarrow", "tli/data")}
# Folders that a command line loads before it knows whether it will need a tensor: heavy imports there are made
# inside functions, or under TYPE_CHECKING.
LAZY = {
    "tli/cli",
    "tli/planning",
    "tli/checkpoint",
    "tli/architectures",
    "tli/models",
    "tli/growth",
    "tli/tasks",
}
# Files that may give a variable its default, because a third party has no other switch.
SETS_ENVIRONMENT = {"sweeps/driver/on_ray/tuner.py", "sweeps/ui/views.py"}
# Copies it for the programs that it starts, without secrets; nothing here depends on what is in it.
HANDS_ENVIRONMENT_ON = {"sweeps/environment.py"}
HEAVY = {
    "torch",
    "transformers",
    "safetensors",
    "tokenizers",
    "datasets",
    "pyarrow",
    "lm_eval",
    "ray",
    "mlflow",
    "optuna",
}


@dataclass(frozen=True)
class Import:
    """One imported module (dotted), the file and line it is imported at, and when it happens."""

    module: str
    file: str
    line: int
    at_load: bool  # when the file is imported, not inside a function
    typing_only: bool

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


@cache
def sources() -> list[Path]:
    return sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))


@cache
def known_modules() -> frozenset[str]:
    return frozenset(map(dotted, sources()))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def folder(path: Path) -> str:
    """Its folder, `sweeps/ledger/store`; `sweeps` for a module of the ground."""
    return path.parent.relative_to(ROOT).as_posix()


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> tuple[Import, ...]:
    reader = Reader(str(path.relative_to(ROOT)))
    reader.visit(tree(path))
    return tuple(reader.found)


class Reader(ast.NodeVisitor):
    """Collects imports, and knows whether it stands in a function or under TYPE_CHECKING."""

    def __init__(self, file: str) -> None:
        self.file, self.found = file, list[Import]()
        self.in_function = self.typing_only = False

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        for module in _modules(node):
            self.found.append(Import(module, self.file, node.lineno, not self.in_function, self.typing_only))

    visit_ImportFrom = visit_Import

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        outside, self.in_function = self.in_function, True
        self.generic_visit(node)
        self.in_function = outside

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_If(self, node: ast.If) -> None:
        outside = self.typing_only
        self.typing_only = outside or "TYPE_CHECKING" in ast.unparse(node.test)
        for child in node.body:
            self.visit(child)
        self.typing_only = outside
        for child in node.orelse:
            self.visit(child)


def _modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Dotted names; `from a import b` is `a.b` where that is one of our modules, else `a`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.level == 0, f"relative import at line {node.lineno}"
    assert node.module is not None
    names = [f"{node.module}.{alias.name}" for alias in node.names]
    known = known_modules()
    return [name if name in known else node.module for name in names]


def test_every_folder_imports_what_the_table_says() -> None:
    modules = {dotted(path): path for path in sources()}
    wrong = []
    for path in sources():
        own = folder(path)
        if name_of(path) in ENTRIES:
            continue
        allowed = (
            MAY_IMPORT.get(own, set()) | {own, "tli"} | ({"sweeps"} if own.startswith("sweeps") else set())
        )
        wrong += [
            f"{found.file}:{found.line}: {found.module} is in {folder(modules[found.module])}"
            for found in imports(path)
            if found.module in modules
            and (folder(modules[found.module]) not in allowed or name_of(modules[found.module]) in ENTRIES)
        ]
    assert wrong == []


def test_the_table_has_every_folder_and_no_other() -> None:
    folders = {folder(path) for path in sources()} - set(OURS)
    assert folders == set(MAY_IMPORT)
    named = set().union(*MAY_IMPORT.values(), LAZY)
    assert named - set(MAY_IMPORT) == set()


def test_no_permission_of_sweeps_is_unused() -> None:
    """Between its own folders; `tli` as a whole is open to those that run it."""
    modules = {dotted(path): path for path in sources()}
    used = {
        (folder(path), folder(modules[found.module]))
        for path in sources()
        for found in imports(path)
        if found.module in modules
    }
    allowed = {(own, other) for own, others in MAY_IMPORT.items() for other in others}
    stale = {
        pair for pair in allowed - used if not (pair[0].startswith("sweeps") and pair[1].startswith("tli"))
    }
    assert sorted(stale) == []


def test_every_third_party_is_known_only_where_the_table_says() -> None:
    wrong = [
        f"{found.file}:{found.line}: {found.top} may be imported in {sorted(ONLY_IN.get(found.top, []))} only"
        for path in sources()
        for found in imports(path)
        if found.top not in sys.stdlib_module_names | set(OURS)
        and not {folder(path), f"{folder(path).partition('/')[0]}/*"} & ONLY_IN.get(found.top, set())
    ]
    assert wrong == []


def test_the_table_names_folders_that_use_what_they_may() -> None:
    """A permission that nothing uses is stale: take it out of the table."""
    used = {(found.top, folder(path)) for path in sources() for found in imports(path)}
    allowed = {(party, name) for party, names in ONLY_IN.items() for name in names if not name.endswith("*")}
    assert sorted(allowed - used - BY_NAME) == []


def test_tli_has_never_heard_of_trials() -> None:
    wrong = [
        f"{found.file}:{found.line}: {found.module}"
        for path in sources()
        for found in imports(path)
        if path.is_relative_to(ROOT / "tli") and found.top in {"sweeps", "ray", "optuna", "mlflow"}
    ]
    assert wrong == []


def test_folders_the_command_line_loads_import_nothing_heavy_at_load() -> None:
    wrong = [
        f"{found.file}:{found.line}: {found.module}"
        for path in sources()
        for found in imports(path)
        if folder(path) in LAZY and found.top in HEAVY and found.at_load and not found.typing_only
    ]
    assert wrong == []


@pytest.mark.parametrize("named", [dotted, folder], ids=["modules", "folders"])
def test_no_import_circles(named: Callable[[Path], str]) -> None:
    """Of modules and of folders. Imports made late count, for a circle that is put off is still one, and so do
    those for type checkers. What Python starts, and what a package offers, is above everything.
    """
    modules = {dotted(path): path for path in sources()}
    graph: dict[str, set[str]] = {}
    for path in modules.values():
        own = f"{named(path)}, entry" if name_of(path) in ENTRIES else named(path)
        others = {named(modules[found.module]) for found in imports(path) if found.module in modules}
        graph.setdefault(own, set()).update(others - {own})
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))
    assert len(order) == len(graph)


def test_modules_are_short_and_do_something() -> None:
    """At most 300 lines; and none that only hands on what others define, but for what a folder offers."""
    long = {name_of(path): lines for path in sources() if (lines := len(path.read_text().splitlines())) > 300}
    assert long == {}
    forwarding = [
        name_of(path)
        for path in sources()
        if path.name not in ("__init__.py", "__main__.py")
        and all(isinstance(node, ast.Import | ast.ImportFrom | ast.Expr) for node in tree(path).body)
    ]
    assert forwarding == []


def test_importing_calls_nothing() -> None:
    """No bare call at the top of a module: no logging set-up, no registration, no probing of devices."""
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources()
        for node in tree(path).body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ]
    assert wrong == []


def test_the_environment_is_read_by_command_lines_alone() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sources()
        if path.name != "__main__.py" and name_of(path) not in HANDS_ENVIRONMENT_ON
        for line in environment_uses(tree(path), may_set=name_of(path) in SETS_ENVIRONMENT)
    ]
    assert wrong == []


def environment_uses(module: ast.Module, *, may_set: bool) -> list[int]:
    """Lines that name the environment, without those that only set a variable where that is allowed."""
    uses = [
        (node.lineno, node.col_offset)
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute | ast.Name)
        and (node.attr if isinstance(node, ast.Attribute) else node.id) in {"environ", "getenv", "environb"}
    ]
    set_at = {
        (node.lineno, node.col_offset)
        for node in ast.walk(module)
        if isinstance(node, ast.Expr | ast.Assign)
        and re.match(r"os\.environ(\.setdefault\(|\[[^\]]+\] = )", ast.unparse(node))
    }
    return [place[0] for place in uses if not (may_set and place in set_at)]


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ('os.environ.setdefault("A", "1")', []),
        ('os.environ["A"] = "1"', []),
        ('os.environ["A"] = os.environ["B"]', [1]),
        ('x = os.environ.setdefault("A", "1")', [1]),
        ('if "A" in os.environ: pass', [1]),
        ("import os\nos.getenv('A')", [2]),
    ],
)
def test_the_reader_of_the_environment_sees_reads(code: str, lines: list[int]) -> None:
    assert environment_uses(ast.parse(code), may_set=True) == lines


def loaded_by(code: str) -> set[str]:
    """Top-level names of all modules in a fresh interpreter after it ran `code`."""
    code += "\nimport json, sys\nprint('\\n' + json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def run_with_help(package: str) -> str:
    return f"""
import runpy, sys
sys.argv = [{package!r}, "-h"]
try:
    runpy.run_module({package!r}, run_name="__main__", alter_sys=True)
except SystemExit as stop:
    assert not stop.code, stop.code
"""


@pytest.mark.parametrize(
    "code",
    [
        "import tli.planning.plan",
        "import tli.errors",
        "import sweeps.results.selection, sweeps.report.summary",
    ],
)
def test_arithmetic_needs_no_third_party(code: str) -> None:
    assert loaded_by(code) & (set(ONLY_IN) - {"rich"}) == set()


@pytest.mark.parametrize("code", ["import sweeps.spec", run_with_help("sweeps"), run_with_help("tli")])
def test_checking_a_spec_and_asking_for_help_load_nothing_heavy(code: str) -> None:
    assert loaded_by(code) & {"torch", "transformers", "ray", "mlflow", "datasets"} == set()
