"""The spec as others use it: loading, overriding, identity, steps, secrets, and its ties to `tli`."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.checks.preflight import check
from sweeps.errors import SpecError
from sweeps.spec import COMPARED, Range, Spec, difference, load_spec, packaged
from sweeps.spec.data_settings import DataSettings
from sweeps.spec.recipe_settings import RateSettings, RecipeSettings
from sweeps.spec.settings import (
    GRACED,
    ExpertSettings,
    InjectionSettings,
)
from sweeps.wording import formatted, masked, nearest
from tli.data.settings import DataSettings as TliData
from tli.planning.experts import Experts
from tli.planning.injection import Injection
from tli.training.recipe import Rates, Recipe

SHORT = """\
name: short
base: {model: builtin:tiny-llama}
data: {source: builtin:stdlib}
search:
  injection.k: {choice: [1, 2, 4]}
budget: {trials: 6}
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    monkeypatch.chdir(tmp_path)

    def written(text: str) -> str:
        (tmp_path / "spec.yaml").write_text(text)
        return "spec.yaml"

    return written


def messages(reference: str, **options: Any) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_spec(reference, **options)
    return [str(problem) for problem in caught.value.problems]


# -- packaged specs ---------------------------------------------------------------------------------------------


def test_packaged_specs_are_what_the_manual_says() -> None:
    models = ("gemma-3-4b", "llama-3.1-8b", "llama-3.2-1b", "llama-3.2-3b")
    assert packaged() == (*models, "methods", "olmo-2-7b", "quickstart", "quickstart-small", "qwen3-4b")
    spec = load_spec("quickstart")
    assert (spec.name, spec.budget.trials, spec.finalists.top, spec.finalists.seeds) == (
        "quickstart",
        24,
        3,
        3,
    )
    assert spec.search["injection.k"] == Range(choice=(1, 2, 4, 8))
    assert set(spec.search["injection.init"].choice or ()) == {"copy", "identity", "damped", "mean", "random"}
    assert spec.search["injection.scale"] == Range(uniform=(0.1, 0.9), when={"injection.init": ("damped",)})
    assert spec.search["recipe.learning_rate"] == Range(log=(1e-4, 1e-2))
    assert (spec.stopping.rule, spec.stopping.grace, spec.stopping.keep) == ("learned", 0.2, 0.33)
    assert spec.trial.recipe.tokens == 24 * spec.trial.recipe.batch_tokens
    assert (spec.resources.cpus, spec.resources.parallel) == (1, 2)


def test_the_small_one_has_the_same_shape() -> None:
    large, small = load_spec("quickstart"), load_spec("quickstart-small")
    assert small.search == large.search
    assert small.trial.recipe.tokens <= 8192
    assert (small.budget.trials, small.finalists.top, small.finalists.seeds) == (6, 1, 2)


def test_own_text_takes_two_lines(write: Callable[[str], str]) -> None:
    from importlib import resources

    text = (resources.files("sweeps") / "specs" / "quickstart.yaml").read_text()
    changed = [
        "  source: valid.txt"
        if "source: builtin" in line
        else "  heldout: test.txt"
        if "heldout: null" in line
        else line
        for line in text.splitlines()
    ]
    assert sum(one != other for one, other in zip(changed, text.splitlines(), strict=True)) == 2
    spec = load_spec(write("\n".join(changed)))
    assert (spec.data.source, spec.data.heldout) == ("valid.txt", "test.txt")


def test_a_file_comes_before_a_packaged_name(write: Callable[[str], str]) -> None:
    Path(write(SHORT)).rename("quickstart")
    assert load_spec("quickstart").name == "short"


def test_the_original_model_may_be_searched_where_all_of_it_is_trained(write: Callable[[str], str]) -> None:
    searched = (
        "injection.method: {choice: [tli, none]}\n"
        "  recipe.train: {choice: [all, injected], when: {injection.method: tli}}"
    )
    spec = load_spec(write(SHORT.replace("injection.k: {choice: [1, 2, 4]}", searched)))
    assert spec.search["recipe.train"].when == {"injection.method": ("tli",)}


def test_methods_has_every_method_at_every_rate() -> None:
    spec = load_spec("methods")
    methods, rates = (spec.search[path].ends for path in ("injection.method", "recipe.learning_rate"))
    assert set(methods) == {"tli", "dus", "stack", "moe", "none"}
    assert spec.budget.trials == len(methods) * len(rates) + 1  # the control, which is not searched
    assert spec.value("recipe.learning_rate") in rates
    assert (spec.stopping.rule, spec.finalists.per) == ("none", "injection.method")
    assert spec.most_finalists == 4
    assert spec.replicates == (4 + 2 + 1) * 3


# -- loading ----------------------------------------------------------------------------------------------------


def test_defaults_make_a_short_spec_whole(write: Callable[[str], str]) -> None:
    spec = load_spec(write(SHORT))
    assert spec.trial.to_injection() == Injection()
    assert spec.trial.to_recipe() == Recipe()
    assert spec.data.to_tli() == TliData()
    assert spec.tracking is not None
    assert spec.tracking_uri == "sqlite:///runs/mlflow.db"
    assert spec.study_url == "sqlite:///runs/study.db"
    assert spec.where("budget.trials") == "spec.yaml:6:10 budget.trials"


def test_sections_mirror_the_library() -> None:
    # The spec is what a user may say; a field that only one side has would be lost in silence.
    pairs = (
        (InjectionSettings, Injection),
        (ExpertSettings, Experts),
        (RecipeSettings, Recipe),
        (RateSettings, Rates),
        (DataSettings, TliData),
    )
    for ours, theirs in pairs:
        defaults = {each.name: each.default for each in dataclasses.fields(theirs)}
        several = ("sources", "measured_only") if ours is DataSettings else ()  # texts of their own
        assert [name for name in ours.model_fields if name not in several] == list(defaults)
        for name, field in ours.model_fields.items():
            section = name in ("experts", "rates", "source", *several)
            assert section or field.is_required() or field.default == defaults[name], (ours, name)


def test_names_are_those_of_the_rules_and_samplers() -> None:
    from sweeps.ledger.search.sampling import SAMPLERS
    from sweeps.ledger.search.stopping import RULES
    from sweeps.spec.model import CATALOGUE

    assert CATALOGUE["stopping.rule"].names == tuple(RULES)
    assert CATALOGUE["sampler.name"].names == tuple(SAMPLERS)


def test_every_setting_says_what_belongs_in_it() -> None:
    from sweeps.spec.model import CATALOGUE

    assert len(CATALOGUE) > 45
    for path, setting in CATALOGUE.items():
        assert setting.expected, path
        assert not setting.required or setting.example is not None, path


def test_tracking_can_be_off(write: Callable[[str], str]) -> None:
    spec = load_spec(write(SHORT), overrides=["tracking=null"])
    assert spec.tracking is None
    assert spec.tracking_uri is None
    assert Spec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("budget.trials=40", "budget.trials", 40),
        ("trial.recipe.learning_rate=3e-4", "trial.recipe.learning_rate", 3e-4),
        ("data.heldout=test.txt", "data.heldout", "test.txt"),
        ("resources={cpus: 2, parallel: 1}", "resources.cpus", 2),
        ("tracking.uri=http://localhost:5000", "tracking.uri", "http://localhost:5000"),
        ("name=other=one", "name", None),
    ],
)
def test_set(override: str, path: str, value: Any, write: Callable[[str], str]) -> None:
    reference = write(SHORT)
    if value is None:
        assert messages(reference, overrides=[override])[0].startswith(f"--set {override}: got 'other=one'")
        return
    found: Any = load_spec(reference, overrides=[override])
    assert found.where(path).startswith("--set ")
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    ("override", "path", "expected"),
    [
        ("search.injection.k={int: [1, 3]}", "injection.k", Range(int_=(1, 3))),
        ("search.injection.k.choice=[1, 4]", "injection.k", Range(choice=(1, 4))),
        ("search.recipe.warmup={uniform: [0, 0.5]}", "recipe.warmup", Range(uniform=(0.0, 0.5))),
        ("search.recipe.warmup.uniform=[0, 0.5]", "recipe.warmup", Range(uniform=(0.0, 0.5))),
        ("search.injection.k.when={recipe.warmup: 0.1}", "injection.k", None),
    ],
)
def test_set_in_search(override: str, path: str, expected: Range | None, write: Callable[[str], str]) -> None:
    if expected is None:
        (line,) = messages(write(SHORT), overrides=[override])
        assert line.startswith(
            f"--set {override} search.injection.k.when.recipe.warmup: got 'recipe.warmup', which is not"
        )
        return
    assert load_spec(write(SHORT), overrides=[override]).search[path] == expected


def test_later_options_win(write: Callable[[str], str]) -> None:
    spec = load_spec(write(SHORT), overrides=["budget.trials=7", "budget.trials=8"], runs="elsewhere")
    assert spec.budget.trials == 8
    assert spec.storage.artifacts == "elsewhere"
    assert spec.root == Path("elsewhere")


def test_schema_and_meaning_are_judged_together(write: Callable[[str], str]) -> None:
    text = SHORT.replace("[1, 2, 4]", "[0, 2]").replace(
        "{trials: 6}", "{trials: six}\nfinalists: {top: 9}\nstoping: {}"
    )
    found = messages(write(text))
    assert [line.split(": got ")[0] for line in found] == [
        "spec.yaml:5:26 search.injection.k.choice[0]",
        "spec.yaml:6:10 budget.trials",
        "spec.yaml:8:1 stoping",
    ]  # and nothing on finalists.top: with no number of trials, 9 may be right


def test_one_broken_range_hides_nothing_in_the_others(write: Callable[[str], str]) -> None:
    ranges = "{choice: []}\n  injection.init: {choice: [copi]}\n  recipe.lrate: {log: [0, 1]}"
    found = messages(write(SHORT.replace("{choice: [1, 2, 4]}", ranges)))
    assert [line.split(": got ")[0] for line in found] == [
        "spec.yaml:5:17 search.injection.k.choice",
        "spec.yaml:6:29 search.injection.init.choice[0]",
        "spec.yaml:7:3 search.recipe.lrate",
        "spec.yaml:7:24 search.recipe.lrate.log[0]",
    ]


def test_numbers_get_the_type_of_their_setting(write: Callable[[str], str]) -> None:
    text = SHORT.replace("injection.k: {choice: [1, 2, 4]}", "injection.noise: {choice: [0, 0.5, 1]}")
    choice = load_spec(write(text)).search["injection.noise"].choice
    assert choice == (0.0, 0.5, 1.0)
    assert {type(value) for value in choice or ()} == {float}


def test_null_may_be_a_choice_where_the_setting_takes_it(write: Callable[[str], str]) -> None:
    text = SHORT.replace("injection.k: {choice: [1, 2, 4]}", "recipe.clip: {choice: [null, 1.0]}")
    assert load_spec(write(text)).search["recipe.clip"].choice == (None, 1.0)
    text = text.replace("recipe.clip", "recipe.learning_rate")
    assert messages(write(text))[0].startswith(
        "spec.yaml:5:35 search.recipe.learning_rate.choice[0]: got null"
    )


# -- trials -----------------------------------------------------------------------------------------------------


def test_settings_for_replaces_dotted_paths() -> None:
    spec = load_spec("quickstart")
    trial = spec.settings_for({"injection.k": 2, "recipe.learning_rate": 3e-4})
    assert trial.injection.k == 2
    assert trial.recipe.learning_rate == 3e-4
    assert trial.injection.init == spec.trial.injection.init
    assert trial.recipe.tokens == spec.trial.recipe.tokens
    assert spec.settings_for({}) == spec.trial
    assert spec.value("injection.k") == 4


def test_settings_for_refuses_what_no_trial_takes() -> None:
    spec = load_spec("quickstart")
    with pytest.raises(
        SpecError, match=r"params recipe.lr: got an unknown setting; .*; try recipe.learning_rate"
    ):
        spec.settings_for({"recipe.lr": 1e-3})
    with pytest.raises(SpecError, match=r"params injection.k: got 0; expected a whole number of at least 1"):
        spec.settings_for({"injection.k": 0})


@given(steps=st.integers(1, 20_000), grace=st.floats(0.01, 0.99))
def test_report_steps(steps: int, grace: float) -> None:
    values = load_spec("quickstart").to_json()
    values["trial"]["recipe"].update(tokens=steps * 2048, batch_tokens=2048)
    values["stopping"] |= {"rule": "asha", "grace": grace}
    spec = Spec.from_json(values)
    found = spec.report_steps()
    assert spec.steps == steps
    assert found[0] == 0
    assert found[-1] == steps
    assert list(found) == sorted(set(found))
    assert (spec.grace_step in found) or spec.stopping.rule not in GRACED
    assert max(high - low for low, high in pairwise(found)) <= max(1, -(-steps // 6))
    measured = (len(found) - 2) * spec.data.eval_tokens
    assert len(found) <= 8 or measured <= 0.25 * 3 * steps * 2048


def test_report_steps_of_a_short_trial_and_of_a_long_one() -> None:
    values = load_spec("quickstart").to_json()
    values["trial"]["recipe"].update(tokens=24 * 2048)
    values["stopping"]["rule"] = "none"
    assert Spec.from_json(values).report_steps() == (0, 4, 8, 12, 16, 20, 24)
    values["stopping"].update(rule="asha", grace=0.2)
    assert Spec.from_json(values).report_steps() == (0, 4, 5, 8, 12, 16, 20, 24)
    assert len(Spec.from_json(values).report_steps(10_000)) == 18


# -- identity ---------------------------------------------------------------------------------------------------


def test_json_round_trip_and_pickle() -> None:
    for name in packaged():
        spec = load_spec(name)
        stored = json.loads(json.dumps(spec.to_json()))
        assert Spec.from_json(stored) == spec
        assert Spec.from_json(stored).hash == spec.hash
        assert pickle.loads(pickle.dumps(spec)) == spec


def test_stored_spec_is_checked_too() -> None:
    stored = load_spec("quickstart").to_json()
    stored["trial"]["injection"]["k"] = 0
    with pytest.raises(SpecError, match=r"^runs/x/spec.json trial.injection.k: got 0"):
        Spec.from_json(stored, name="runs/x/spec.json")


def test_a_spec_does_not_change() -> None:
    spec = load_spec("quickstart")
    with pytest.raises(ValueError, match="frozen"):
        spec.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("budget.trials=40", True),
        ("name=other", True),
        ("resources.parallel=1", True),
        ("storage.artifacts=elsewhere", True),
        ("tracking=null", True),
        ("trial.recipe.learning_rate=1.0e-3", True),  # another spelling of the same number
        ("base.revision=main", False),
        ("data.sequence_length=64", False),
        ("trial.injection.k=2", False),
        ("search.injection.k.choice=[1, 2]", False),
        ("sampler.seed=1", False),
        ("stopping.rule=median", False),
        ("finalists.top=2", False),
    ],
)
def test_identity_is_what_makes_results_comparable(override: str, *, same: bool) -> None:
    old, new = load_spec("quickstart"), load_spec("quickstart", overrides=[override])
    assert (old.hash == new.hash) is same
    assert (difference(old, new) == []) is same
    assert len(old.hash) == 64


def test_difference_names_path_and_values() -> None:
    old = load_spec("quickstart")
    new = load_spec(
        "quickstart",
        overrides=[
            "trial.recipe.learning_rate=2e-3",
            "search.injection.k.choice=[1, 2]",
            "search.recipe.warmup={uniform: [0, 0.5]}",
        ],
    )
    assert difference(old, new) == [
        "trial.recipe.learning_rate: 0.001 -> 0.002",
        "search.injection.k: {choice: [1, 2, 4, 8]} -> {choice: [1, 2]}",
        "search.recipe.warmup: nothing -> {uniform: [0.0, 0.5]}",
    ]
    assert difference(new, old)[-1] == "search.recipe.warmup: {uniform: [0.0, 0.5]} -> nothing"


def test_identity_and_the_rest_are_the_whole_spec() -> None:
    # A new section has to be put on one side on purpose.
    assert set(Spec.model_fields) - set(COMPARED) == {
        "name",
        "budget",
        "evaluation",
        "resources",
        "retries",
        "storage",
        "tracking",
    }


def test_order_and_comments_of_the_file_do_not_matter(write: Callable[[str], str]) -> None:
    straight = load_spec(write(SHORT)).hash
    turned = "\n".join(
        reversed([*SHORT.replace("search:\n  ", "search: {").replace("4]}", "4]}}").splitlines(), "# end"])
    )
    assert load_spec(write(turned)).hash == straight


# -- secrets ----------------------------------------------------------------------------------------------------

SECRET = "c4n4ry"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{SECRET}@localhost/db",
        f"postgresql+psycopg2://me:{SECRET}@localhost:5432/db?sslmode=require",
        f"postgresql://me:a@b/{SECRET}@localhost/db",
        f"postgresql://localhost/db?user=me&password={SECRET}",
    ],
)
def test_passwords_are_kept_for_use_and_never_shown(url: str, write: Callable[[str], str]) -> None:
    text = SHORT + f"storage: {{study: '{url}'}}\ntracking: {{uri: 'https://{SECRET}@mlflow.example/x'}}\n"
    spec = load_spec(write(text))
    assert spec.study_url == url
    assert SECRET in (spec.tracking_uri or "")
    for seen in (json.dumps(spec.to_json()), repr(spec), str(spec), json.dumps(spec.identity())):
        assert SECRET not in seen
        assert "name" in seen or "base" in seen


@pytest.mark.parametrize(
    "wrong",
    [
        f"storage: {{study: 'mysql://me:{SECRET}@localhost/db'}}",
        f"storage: {{study: 'postgresql://me:{SECRET}@localhost:notaport/db'}}",
        f"storage: {{study: ['postgresql://me:{SECRET}@localhost/db']}}",
        f"storage: {{study: {{url: 'postgresql://me:{SECRET}@localhost/db'}}}}",
        f"storage: 'postgresql://me:{SECRET}@localhost/db'",
        f"storage: {{studi: 'postgresql://me:{SECRET}@localhost/db'}}",
        f"storage: {{study: 'postgresql://me:{SECRET}@127.0.0.1:1/db'}}",
    ],
)
def test_passwords_are_in_no_message(wrong: str, write: Callable[[str], str]) -> None:
    with pytest.raises(SpecError) as caught:
        check(load_spec(write(f"{SHORT}{wrong}\n")))
    assert "storage" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_passwords_in_options_are_in_no_message(write: Callable[[str], str]) -> None:
    found = messages(write(SHORT), overrides=[f"storage.studi=postgresql://me:{SECRET}@localhost/db"])
    assert found == [
        (
            "--set storage.studi=postgresql://me:***@localhost/db: got an unknown setting; "
            "expected one of study, artifacts; try storage.study"
        )
    ]


# -- wording ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "meant"),
    [("lrr", "learning_rate"), ("lr", "learning_rate"), ("batch_token", "batch_tokens"), ("TRAIN", "train"), ("zzz", None), ("x", None)],
)  # fmt: skip
def test_nearest(word: str, meant: str | None) -> None:
    assert nearest(word, list(RecipeSettings.model_fields)) == meant


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (0.001, "0.001"),
        ("x" * 100, "'" + "x" * 57 + "...'"),
        ("a\nb", "'a\\nb'"),
        ([1, "a"], '[1, "a"]'),
        (list(range(100)), "a list of 100"),
        ({"a": "x" * 100}, "a mapping of 1"),
        (10**100, "a number of more than 60 digits"),
    ],
)
def test_shown(value: Any, text: str) -> None:
    assert formatted(value) == text


def test_masked_leaves_other_text_alone() -> None:
    for text in ("http://host:5000/x", "sqlite:///runs/study.db", "a@b", "postgresql://me@host/db", "C:\\x"):
        assert masked(text) == text


def test_asha_keeps_one_half_at_most() -> None:
    with pytest.raises(SpecError) as caught:
        load_spec("quickstart", overrides=["stopping.rule=asha", "stopping.keep=0.75"])
    assert [str(problem) for problem in caught.value.problems] == [
        (
            "--set stopping.keep=0.75: got 0.75; expected at most 0.5 with asha, which keeps one half, one third, ...; "
            "try 0.5"
        )
    ]
    assert (
        load_spec("quickstart", overrides=["stopping.keep=0.75", "stopping.rule=median"]).stopping.keep
        == 0.75
    )


@pytest.mark.parametrize("name", ["a.b", "../a", "", "{}", "\ud800", "trials.x"])
def test_a_name_that_no_setting_can_have_is_one_problem(name: str) -> None:
    """A dotted one was taken for a path, and what it names was looked for in vain."""
    plain = load_spec("quickstart").to_json()
    for holder in (plain, plain["budget"], plain["trial"]["injection"]["experts"]):
        holder[name] = 5
        with pytest.raises(SpecError) as refused:
            Spec.from_json(plain)
        (problem,) = refused.value.problems
        assert "unknown setting" in problem.got
        del holder[name]
    with pytest.raises(SpecError):
        Spec.from_json({**plain, "search": 5})


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["stopping.keep=0.25"],
            (
                "--set stopping.keep=0.25: got 0.25, which the rule learned does not read; expected no such setting with "
                "learned, which finds out itself where to stop; try stopping.rule: asha"
            ),
        ),
        (
            ["stopping.on=flops"],
            (
                "--set stopping.on=flops: got 'flops', which the rule learned does not read; expected no such setting with "
                "learned, which finds out itself where to stop; try stopping.rule: asha"
            ),
        ),
        (
            ["sampler.name=grid"],
            (
                "--set sampler.name=grid: got 'grid', where injection.scale, recipe.learning_rate cannot be counted; "
                "expected choices, whole numbers or a step in every range of a grid; try qmc"
            ),
        ),
        (
            ["objective.answer=each", "sampler.name=tpe"],
            (
                "--set objective.answer=each: got 'each', which the sampler tpe does not read; expected best, or the "
                "sampler gp; try sampler.name: gp"
            ),
        ),
    ],
)
def test_settings_that_the_search_does_not_read_are_refused(overrides: list[str], expected: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec("quickstart", overrides=overrides)
    assert [str(problem) for problem in caught.value.problems] == [expected]


def test_a_grid_of_what_can_be_counted_and_each_value_are_taken() -> None:
    grid = load_spec(
        "quickstart",
        overrides=[
            "sampler.name=grid",
            "search.injection.scale={uniform: [0.1, 0.9], step: 0.4, when: {injection.init: damped}}",
            "search.recipe.learning_rate={choice: [5e-4, 1e-3]}",
        ],
    )
    assert grid.sampler.name == "grid"
    assert load_spec("quickstart", overrides=["objective.answer=each"]).objective.answer == "each"


def test_a_value_without_a_space_before_it_is_told_as_one() -> None:
    with pytest.raises(SpecError) as refused:
        load_spec("quickstart", overrides=["evaluation={tasks: [kobest_copa], shots:5}"])
    (problem,) = refused.value.problems
    assert problem.got == "an unknown setting 'shots:5'"
    assert problem.remedy.startswith("shots: 5,")
