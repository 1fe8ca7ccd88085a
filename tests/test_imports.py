"""Who may know what: the table of imports, held by reading the source; and importing does nothing heavy.

A room is a module or a package right under `tli/` or `sweeps/`, written `sweeps/spec`. Imports inside functions
and under TYPE_CHECKING count: they are knowledge too.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("tli", "sweeps")

# The table. A third party that is in no row may be imported nowhere. `tli/*` is every room of tli.
ONLY_IN = {
    "ray": {"sweeps/tuner", "sweeps/searcher", "sweeps/submit", "sweeps/packing"},
    "optuna": {"sweeps/space", "sweeps/ledger"},
    "sqlalchemy": {"sweeps/ledger", "sweeps/reach", "sweeps/backends"},
    "mlflow": {"sweeps/tracking", "sweeps/views"},
    "optuna_dashboard": {"sweeps/views"},
    "uvicorn": {"sweeps/views"},
    "starlette": {"sweeps/views"},
    "pydantic": {"sweeps/spec"},
    "yaml": {"sweeps/spec"},
    "rich": {"sweeps/display", "sweeps/summary"},
    "torch": {"tli/*"},
    "transformers": {"tli/*"},
    "safetensors": {"tli/*"},
    "tokenizers": {"tli/*"},
    "huggingface_hub": {"tli/hub", "tli/base", "tli/dataset"},
    "numpy": {"tli/*"},
    "datasets": {"tli/dataset"},
    "pyarrow": {"tli/corpus"},
    "packaging": {"sweeps/doctor"},
}
# Of these: may import, need not.
OPTIONAL = {
    ("rich", "sweeps/summary"),
    ("ray", "sweeps/submit"),
    ("huggingface_hub", "tli/base"),
    ("datasets", "tli/dataset"),
    ("pyarrow", "tli/corpus"),
}
# Rooms of tli that a command line loads before it knows whether it will need a tensor: heavy imports there are
# made inside functions, or under TYPE_CHECKING.
LAZY = {
    "tli/__main__",
    "tli/arguments",
    "tli/injection",
    "tli/experts",
    "tli/moe",
    "tli/plan",
    "tli/config",
    "tli/checkpoint_io",
    "tli/base",
    "tli/bounded",
    "tli/config_checks",
    "tli/model_files",
    "tli/references",
    "tli/cost",
    "tli/recipe",
}
# Rooms that may give a variable its default, because a third party has no other switch.
SETS_ENVIRONMENT = {"sweeps/tuner", "sweeps/views"}
# Copies it for the programs that it starts, without secrets; nothing here depends on what is in it.
HANDS_ENVIRONMENT_ON = {"sweeps/environment"}
HEAVY = {
    "torch",
    "transformers",
    "safetensors",
    "tokenizers",
    "datasets",
    "pyarrow",
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


def sources() -> list[Path]:
    return sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))


def room(path: Path) -> str:
    package, first = path.relative_to(ROOT).parts[:2]
    return f"{package}/{first.removesuffix('.py')}"


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
    known = {dotted(path) for path in sources()}
    return [name if name in known else node.module for name in names]


def test_every_third_party_is_known_only_where_the_table_says() -> None:
    wrong = [
        f"{found.file}:{found.line}: {found.top} may be imported in {sorted(ONLY_IN.get(found.top, []))} only"
        for path in sources()
        for found in imports(path)
        if found.top not in sys.stdlib_module_names | set(OURS)
        and not {room(path), f"{room(path).partition('/')[0]}/*"} & ONLY_IN.get(found.top, set())
    ]
    assert wrong == []


def test_the_table_names_rooms_that_exist_and_use_what_they_may() -> None:
    """A permission that nothing uses is stale: take it out of the table."""
    used = {(found.top, room(path)) for path in sources() for found in imports(path)}
    rooms = {room(path) for path in sources()}
    allowed = {(party, name) for party, names in ONLY_IN.items() for name in names if not name.endswith("*")}
    assert sorted(name for name in LAZY if name not in rooms) == []
    assert sorted(allowed - used - OPTIONAL) == []


def test_tli_has_never_heard_of_trials() -> None:
    wrong = [
        f"{found.file}:{found.line}: {found.module}"
        for path in sources()
        for found in imports(path)
        if path.is_relative_to(ROOT / "tli") and found.top in {"sweeps", "ray", "optuna", "mlflow"}
    ]
    assert wrong == []


def test_rooms_the_command_line_loads_import_nothing_heavy_at_load() -> None:
    wrong = [
        f"{found.file}:{found.line}: {found.module}"
        for path in sources()
        for found in imports(path)
        if room(path) in LAZY and found.top in HEAVY and found.at_load and not found.typing_only
    ]
    assert wrong == []


def test_no_import_circles() -> None:
    """Imports made late count, for a circle that is put off is still one; those for type checkers do not."""
    modules = {dotted(path): path for path in sources()}
    graph = {
        name: {
            found.module
            for found in imports(path)
            if found.module in modules and found.module != name and not found.typing_only
        }
        for name, path in modules.items()
    }
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))
    assert len(order) == len(modules)


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
        if path.name != "__main__.py" and room(path) not in HANDS_ENVIRONMENT_ON
        for line in environment_uses(tree(path), may_set=room(path) in SETS_ENVIRONMENT)
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
