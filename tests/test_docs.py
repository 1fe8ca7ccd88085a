"""The documentation: what its pages show runs, and its reference is made from the code whole.

`make docs` builds the site with warnings as errors; that is a stage of the check, and a slow test here.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import sweeps
import tli
from docs.generate_reference import command_page, pages, spec_page
from docs.self_contained import beside, outside
from sweeps.report.next_commands import Screen
from sweeps.report.styled import plain as plain_text
from sweeps.report.summary import best_lines
from sweeps.results.searched import searched_in
from sweeps.results.selection import verdict
from sweeps.spec import load_spec
from sweeps.spec.meanings import MEANINGS
from sweeps.spec.model import CATALOGUE
from tests.real_quickstart import kept
from tests.test_readme import (
    checkout,  # noqa: F401 - a fixture
    pasted,
    run,
)
from tests.test_surface import README, blocks, parser, subcommands
from tli.planning.plan import plan

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
LAYERS = 24  # of the hub model that the tutorial grows, as its config.json says
# In a test the packaged base and text stand for those of the hub, one core for a GPU, and everything is small.
SMALL = {
    "base": {"model": "builtin:tiny-llama"},
    "data": {"source": "builtin:stdlib", "sequence_length": 64, "eval_tokens": 1024},
    "budget": {"trials": 4},
    "finalists": {"top": 1, "seeds": 2},
    "resources": {"cpus": 1, "gpus": 0, "parallel": 2},
}
SMALL_RECIPE = {"tokens": 2048, "batch_tokens": 256, "micro_batch_tokens": 128}


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def tutorial_spec() -> str:
    (spec,) = blocks(text_of("tutorial.md"), "yaml")
    return spec


def test_every_key_of_the_spec_has_a_meaning_and_a_place_in_the_reference() -> None:
    assert set(MEANINGS) == set(CATALOGUE)
    page = spec_page()
    for path, meaning in MEANINGS.items():
        assert f"{{ #{path} }}\n\n{meaning}\n" in page, path


@pytest.mark.parametrize(
    ("path", "kind", "default", "allowed"),
    [
        ("name", "text", "none, it has to be given", "1 to 64 of"),
        ("trial.injection.k", "whole number or null", "`4`", "at least 1"),
        ("trial.injection.method", "text", "`tli`", "tli, dus, stack, repeat, moe, none"),
        ("trial.injection.scale", "number or text", "`null`", "between 0 and 1"),
        ("retries.halve_micro_batch", "true or false", "`true`", "true or false"),
        ("budget.gpu_hours", "number or null", "`null`", "above 0"),
    ],
)
def test_the_reference_says_type_default_and_what_is_allowed(
    path: str, kind: str, default: str, allowed: str
) -> None:
    entry = spec_page().split(f"{{ #{path} }}\n")[1].split("\n#")[0]
    assert f"**Type** {kind} · **Default** {default}" in entry
    assert allowed in entry.split("**Allowed**")[1]


@pytest.mark.parametrize("program", ["sweeps", "tli"])
def test_the_reference_has_every_command_option_and_example(program: str) -> None:
    page = command_page(parser(program))
    (action,) = (each for each in parser(program)._actions if each.choices and not each.option_strings)
    assert set(action.choices) == subcommands(program)
    for name, sub in action.choices.items():
        part = page.split(f"## `{program} {name}` {{ #{name} }}\n")[1].split("\n## ")[0]
        options = {option for each in sub._actions for option in each.option_strings} - {"-h", "--help"}
        assert {option for option in options if f"`{option}`" not in part} == set()
        assert all(len(line) <= 80 for line in next(blocks(part, "text")).splitlines())
        example = sub.epilog.splitlines()[1].strip()
        assert example in part


@pytest.mark.parametrize("package", [tli, sweeps], ids=lambda package: package.__name__)
def test_the_library_reference_has_every_name_of_the_face(package: ModuleType) -> None:
    page = text_of(f"reference/{package.__name__}-library.md")
    shown = re.findall(rf"^::: (?:{package.__name__}|tli\.errors)\.(\w+)$", page, re.MULTILINE)
    assert set(shown) == set(package.__all__) - {"__version__"}


def test_generated_pages_are_in_the_navigation_and_not_in_the_repository() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert len(pages()) == 3
    for path in pages():
        assert f": {path}\n" in navigation
        assert not (DOCS / path).exists()


def test_the_specs_that_are_shown_are_complete_and_right(tmp_path: Path) -> None:
    """As far as that can be known without the hub: read strictly, and every searched plan is one of its depth."""
    (tmp_path / "qwen.yaml").write_text(tutorial_spec())
    spec = load_spec(str(tmp_path / "qwen.yaml"))
    assert spec.base.model == "Qwen/Qwen2.5-0.5B"
    assert spec.resources.gpus == 1
    for k in spec.search["injection.k"].ends:
        for init in spec.search["injection.init"].ends:
            injection = spec.settings_for({"injection.k": k, "injection.init": init}).to_injection()
            assert plan(LAYERS, injection.k, init=init).new_depth == LAYERS + LAYERS // k
    (shown,) = blocks(README, "yaml")
    (tmp_path / "readme.yaml").write_text(shown)
    short = load_spec(str(tmp_path / "readme.yaml"))
    assert short.resources.gpus == 1
    assert short.base == spec.base


def test_the_answer_that_is_explained_is_what_a_real_quickstart_printed() -> None:
    records, answers = kept()
    searched = searched_in(load_spec("quickstart"), records, answers)
    found = verdict(records, top=3, seeds=3, depth=8, searched=searched)
    printed = plain_text(best_lines(found, records, Screen("quickstart", "quickstart")))
    examples = list(blocks(text_of("answer.md"), "text"))[:2]
    assert "\n".join(examples) == printed.partition("  Losses: means")[0]


def test_what_pages_load_from_elsewhere_is_found() -> None:
    page = '<a href="https://arxiv.org/abs/1"></a><script src="a.js"></script><link rel=x href=../b.css>'
    assert outside(page) == []
    assert outside(
        page + "<script src=https://x.example/a.js></script><img alt=y src='//x.example/i.png'>"
    ) == [
        "https://x.example/a.js",
        "//x.example/i.png",
    ]


def test_the_page_of_missing_pages_links_beside_itself() -> None:
    """MkDocs has its links begin at the server's root, where the site need not lie."""
    page = '<link href="/assets/a.css"><a href=/words.html><script src="/s.js"></script><a href="/">{"base": "/"}'
    kept = '<a href="https://x.example/a">, <a href="//x.example/b">, <a href="answer.html"> and/or 1/2'
    assert beside(page + kept) == (
        '<link href="assets/a.css"><a href=words.html><script src="s.js"></script><a href="index.html">{"base": "."}'
        + kept
    )


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = {str(path.relative_to(tmp_path / "site")) for path in (tmp_path / "site").rglob("*.html")}
    sources = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")} | set(pages())
    assert built == {source.replace(".md", ".html") for source in sources} | {"404.html"}


def write_small_tutorial(to: Path) -> None:
    to.write_text(tutorial_spec())
    plain = load_spec(str(to)).to_json() | SMALL
    plain["trial"]["recipe"] |= SMALL_RECIPE
    to.write_text(json.dumps(plain))  # which is YAML, too


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_all_that_the_guides_show_runs_from_top_to_bottom(checkout: Path) -> None:  # noqa: F811
    """Pages in the order of the navigation, each in a shell of its own, in one checkout."""
    write_small_tutorial(checkout / "qwen.yaml")
    order = re.findall(r"^ +- .*: (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert order[0] == "index.md"
    for page in order:
        script = [f"export PATH={Path(sys.prefix) / 'bin'}:$PATH"]
        for language, block in re.findall(
            r"^```(sh|python)\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL
        ):
            here = block.replace("Qwen/Qwen2.5-0.5B", "builtin:tiny-llama").replace("trials=30", "trials=5")
            script += [pasted(here) if language == "sh" else f"python - <<'SNIPPET'\n{here}\nSNIPPET"]
        run("sh", "\n".join(script))
    assert (checkout / "winner/lineage.json").is_file()
    assert (checkout / "by-library/model.safetensors").is_file()
