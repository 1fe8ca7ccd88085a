"""What is printed of a sweep: the first screen, the tables, the lists; by its values and structure."""

from __future__ import annotations

import io
import random
import re
from dataclasses import replace
from typing import Any

import pytest

from sweeps.records import Role, State, TrialRecord
from sweeps.report.answer import answer_lines
from sweeps.report.next_commands import Screen, next_commands
from sweeps.report.rows import settings_text
from sweeps.report.status import Line, list_text, status_text
from sweeps.report.styled import plain, show
from sweeps.report.summary import best_lines
from sweeps.results.answer import Needs
from sweeps.results.ranking import best_of
from sweeps.results.searched import Searched
from sweeps.results.selection import verdict
from sweeps.results.sentence import handed_over, sentence
from sweeps.search_answers import Estimate, StoppingEvidence
from sweeps.text import counted, digits_apart, figures_apart, these
from tests.sweeps.null_sweeps import World, sweep

LOSSES = {  # by trial and seed; differences from the control: -0.02 or so for 2, growing for 3
    0: [3.7200, 3.7300, 3.7400],
    1: [3.7100, 3.7190, 3.7310],
    2: [3.7000, 3.7110, 3.7190],
    3: [3.7300, 3.7400, 3.7503],
}
BETTER = 15.0  # noise units by which a made-up model is better than the original
SETTINGS = {
    "finalists.seeds": 3,
    "control.rates": 5,
    "control.matched": True,
    "control_rates": 5,
    "budget.trials": 20,
    "data.test_tokens": 1000,
}
PLACES = {"study": "sqlite:///runs/study.db", "MLflow": "sqlite:///runs/mlflow.db"}


def record(
    number: int, role: Role, state: State, k: int, losses: dict[int, float], **fields: Any
) -> TrialRecord:
    params = {} if role is Role.CONTROL else {"injection.k": k, "recipe.learning_rate": 0.00123456789}
    return TrialRecord(
        **{
            "number": number,
            "role": role,
            "state": state,
            "params": params,
            "settings": {"injection": {"k": k}, "recipe": {"learning_rate": 0.00123456789}},
            "seed": 0,
            "steps": 50,
            "losses": losses,
            "value": losses.get(50) if state is State.COMPLETE else None,
            "tokens": 1000,
            "flops": 1e9 * (1 + 1 / k if k else 1),
            "started": 1_700_000_000.0,
            "finished": 1_700_000_060.0,
            **fields,
        }
    )


def small_sweep() -> list[TrialRecord]:
    roles = [Role.CONTROL, Role.BASELINE, Role.SEARCH, Role.SEARCH]
    ks = [0, 4, 1, 8]
    records = [
        record(n, roles[n], State.COMPLETE, ks[n], {0: 3.8, 50: LOSSES[n][0]}) for n in range(len(LOSSES))
    ]
    records += [
        record(4, Role.SEARCH, State.PRUNED, 2, {0: 3.8, 10: 3.75}, reason="stopped by asha at step 10"),
        record(5, Role.SEARCH, State.FAIL, 2, {0: 3.8}, reason="diverged: the loss is not finite at step 7"),
    ]
    for seed in (1, 2):
        for n in range(len(LOSSES)):
            losses = {0: 3.8, 50: LOSSES[n][seed]}
            place = len(records)
            of = {"seed": seed, "replicate_of": n}
            records.append(record(place, Role.REPLICATE, State.COMPLETE, ks[n], losses, **of))
    return records


def made(chance: int = 1, **given: Any) -> list[TrialRecord]:
    """A made-up sweep of twenty trials, three finalists, three fresh seeds."""
    return sweep(World(**given), random.Random(chance))


def told(**given: Any) -> Screen:
    return Screen(**{"name": "small", "reference": "small", **given})


def screen(records: list[TrialRecord], seeds: int = 2, **given: Any) -> str:
    """The first screen."""
    return plain(answer_lines(verdict(records, seeds=seeds), records, told(**given)))


def whole(records: list[TrialRecord], seeds: int = 2) -> str:
    """What `sweeps best` prints."""
    return plain(best_lines(verdict(records, seeds=seeds), records, told(), PLACES))


def sections(page: str) -> dict[str, list[str]]:
    """The lines below each title."""
    parts = [part.split("\n") for part in page.split("\n\n")]
    return {title: lines for title, *lines in parts}


def values(page: str) -> dict[str, str]:
    """Rows of the first screen by their labels."""
    first = page.split("\n\n", maxsplit=1)[0].splitlines()
    return {line[:15].strip(): line[17:] for line in first if line[:1].strip() and line[15:17] == "  "}


def test_the_first_screen_is_short_and_begins_with_the_answer() -> None:
    # The first one has a failure and a caveat, too.
    for most, page in (
        (21, screen(small_sweep())),
        (17, screen(made(better=BETTER), 3)),
        (17, screen(made(), 3)),
        (12, screen([])),
    ):
        assert len(page.splitlines()) <= most
        assert max(map(len, page.splitlines())) <= 80
    assert screen(made(better=BETTER)).startswith("small: grow with K=2 identity (trial 2): ")
    assert screen(made()).startswith("small: do not grow. The original, trained on")
    assert screen(small_sweep()[:6]).startswith("small: not shown whether to grow; ")
    assert screen([]).startswith("small: not shown whether to grow: no complete trial yet.")


def test_the_sentence_holds_the_numbers_of_the_claim() -> None:
    records = made(better=BETTER)
    found = verdict(records).answer
    claim = found.equal_compute
    assert claim is not None
    assert claim.low is not None
    assert claim.high is not None
    assert found.cost is not None
    text = sentence(verdict(records), records)
    assert [float(each) for each in re.findall(r"\d+\.\d{4}", text)] == pytest.approx(
        [-claim.mean, -claim.high, -claim.low], abs=5.1e-5
    )
    assert f"at {found.cost:.2f}x" in text
    rows = values(screen(records, seeds=3))
    assert rows["equal compute"].endswith(": better")
    assert rows["equal tokens"].endswith(": better")


def test_do_not_grow_names_the_original_and_the_best_grown() -> None:
    records = made(matched=0.004)
    found = verdict(records)
    text = " ".join(sentence(found, records).split())
    assert found.answer.trial in (found.control.number, found.matched.number)  # type: ignore[union-attr]
    assert f"(trial {found.answer.trial}), is as good or better" in text
    assert f"the best grown model, K={found.answer.grown} identity (trial {found.answer.grown}), is" in text
    commands = [line for line in screen(records, seeds=3).splitlines() if line.startswith("sweeps ")]
    assert [command.split("  ")[0] for command in commands[:2]] == [
        "sweeps export small --out best/",
        "sweeps export small --grown --out grown/",
    ]


def test_not_shown_says_how_many_seeds_would_decide() -> None:
    for chance in range(40):
        records = made(chance, better=BETTER / 4, text=0.0, noisy=dict.fromkeys(range(30), 2.0))
        needs = verdict(records, margin=0.0).answer.needs
        if needs is not None and needs.seeds is not None and not needs.missing and needs.text is None:
            break
    else:
        pytest.fail("none of these sweeps is open")
    assert needs.seeds > 3
    text = sentence(verdict(records, margin=0.0), records)
    assert text.startswith(f"not shown whether to grow; {needs.seeds - 3} more fresh seed")
    assert f"(finalists.seeds={needs.seeds})" in text
    found = verdict(records, margin=0.0)
    for spec, again in (
        ("s.yaml", f"sweeps run s.yaml --set finalists.seeds={needs.seeds} "),
        (None, f"sweeps resume small --seeds {needs.seeds} "),
    ):
        page = plain(answer_lines(found, records, told(spec=spec, settings=SETTINGS)))
        assert (again in page) is not needs.tokens
        assert "name=" not in page


def needing(*missing: str, text: float | None = None, **given: Any) -> dict[str, str]:
    """The commands for a sweep that lacks this."""
    records = made()
    found = verdict(records)
    needs = Needs(missing, 20 if text else None, text, tokens=False)  # type: ignore[arg-type]
    answer = replace(found.answer, grow="not shown", needs=needs)
    return next_commands(replace(found, answer=answer), told(settings=SETTINGS, **given))


def test_what_decides_is_a_command_that_is_taken() -> None:
    found = needing("control rates", spec="s.yaml")["find the control's rate"]
    assert found == "sweeps run s.yaml --set control.rates=7 --set budget.trials=28"
    by_name = needing("control rates", "fresh seeds")["find the control's rate"]
    assert by_name == "sweeps resume small --seeds 4 --control-rates 7 --trials 28"
    with_text = needing("control rates", text=4.0, spec="s.yaml")
    assert with_text["find the control's rate"] == found, "first what is missing"
    anew = needing(text=4.0, spec="s.yaml")["decide, with more text"]
    assert set(anew.split(" --set ")[1:]) == {"data.test_tokens=4000", "finalists.seeds=20", "name=small-2"}
    for commands in (needing(text=4.0), needing("trials", spec="s.yaml"), needing("matched control")):
        assert not any("decide" in what or "compare at" in what for what in commands)
    old = needing("fresh seeds", resumable=False)
    assert not any(each.startswith(("sweeps resume", "sweeps run")) for each in old.values())


def test_the_folder_of_results_stands_in_every_command_and_no_line_is_wider_for_it() -> None:
    long = "/scratch/projects/growing/results/of-november"
    records = small_sweep()
    page = screen(records, reference="a-sweep-with-a-name", spec="specs/a-sweep.yaml", runs=long)
    assert max(map(len, page.splitlines())) <= 80
    whole_lines = page.replace(" \\\n    ", " ")
    commands = [line for line in whole_lines.splitlines() if line.startswith("sweeps ")]
    assert len(commands) >= 4
    assert all(f"--runs {long}" in command for command in commands)
    assert "take the best grown model" in page


def test_a_store_that_an_option_named_stands_in_every_command_without_its_password() -> None:
    given = "postgresql://anna:geheim@db:5432/studies"
    told = {"study": given, "reference": "small"}
    found = next_commands(verdict(small_sweep()), Screen("small", **told))
    assert len(found) >= 4
    assert all("--study 'postgresql://anna:***@db:5432/studies'" in command for command in found.values())
    of_a_spec = next_commands(
        verdict(small_sweep()), Screen("small", spec="a.yaml", **told, ended=("trials", 4))
    )
    assert not [each for each in of_a_spec.values() if each.startswith("sweeps run") and "--study" in each]


def test_one_of_a_kind_is_not_several() -> None:
    records = made(finalists=1, searched=0)
    one = plain(best_lines(verdict(records, top=1), records, told()))
    assert not re.search(r"\b1 (?!\d)(grown )?(models|seeds|trials)\b", " ".join(one.split()))
    assert (counted(1, "trial"), counted(2, "trial"), counted(1.0, "CPU")) == ("1 trial", "2 trials", "1 CPU")
    assert (these("trial", [3]), these("trial", [3, 5])) == ("trial 3", "trials 3, 5")


def test_what_is_missing_is_said() -> None:
    text = sentence(verdict(made(seeds=1), seeds=1), made(seeds=1))
    assert "two fresh seeds or more (finalists.seeds)" in text
    open_one = [*made(), record(99, Role.SEARCH, State.RUNNING, 4, {0: 3.8})]
    text = sentence(verdict(open_one, margin=0.0), open_one)
    assert text == "not shown whether to grow; the sweep is not finished."


def test_numbers_that_differ_are_not_printed_alike() -> None:
    assert digits_apart([0.0014, 0.00141]) == 5
    assert digits_apart([0.00001]) == 5
    assert digits_apart([3.15, 3.16]) == 4
    assert digits_apart([0.0, -0.0, 2.0, -2.0]) == 4
    assert digits_apart([1.0, 1.0 + 1e-12]) == 8


def test_every_trial_says_what_it_is_and_is_not_better_than() -> None:
    records = made(better=BETTER)
    found = verdict(records)
    for number in range(len(records)):
        line = handed_over(found, records, number)
        assert line.startswith(f"trial {number}, ")
        assert "\n" not in line
    assert "better than the original" in handed_over(found, records, 2)
    assert "not shown" not in handed_over(found, records, 2)
    assert "not as good as" in handed_over(found, records, 0)
    assert "not the best grown model, which is trial 2" in handed_over(found, records, 5)
    assert "better than the best grown model" not in handed_over(verdict(made()), made(), 0)


def test_what_a_setting_has_is_answered_or_why_not() -> None:
    known = {2: Estimate(3.10, 0.0001, 3, 2), 4: Estimate(3.20, 0.0001, 3, 2)}
    choices = {"injection.init": ["identity", "copy"]}
    records = made(better=BETTER)
    searched = Searched(choices, {"injection.k": known})
    page = plain(answer_lines(verdict(records, searched=searched), records, told()))
    rows = values(page)
    assert rows["K"] == "2"
    assert rows["first weights"].startswith("not answered: copy not tried (budget.trials)")
    assert rows["not tried"] == "copy"
    close = {2: Estimate(3.10, 0.1, 3, 2), 4: Estimate(3.11, 0.1, 3, 2)}
    searched = Searched(choices, {"injection.k": close})
    page = plain(answer_lines(verdict(records, searched=searched), records, told()))
    assert values(page)["K"].startswith("not answered: one of 2, 4; ")


def test_what_was_stopped_saved_and_failed_is_counted() -> None:
    rows = values(screen(small_sweep()))
    assert rows["stopped"].startswith("1 of 6 trials early, which saved ")
    assert rows["failed"].startswith("trial 5 (diverged: ")
    assert rows["spent"].startswith("14k tokens (57% under fresh seeds)")
    searched = Searched(stopping=StoppingEvidence(stopped=1, top=3, expected=0.2, at_most=1))
    records = small_sweep()
    page = plain(answer_lines(verdict(records, searched=searched), records, told()))
    assert "at most 1 would have ended among the best 3 (95 %)" in " ".join(page.split())


def test_next_commands_go_by_what_the_user_can_type() -> None:
    records = small_sweep()
    page = screen(records, reference="my specs/s.yaml", spec="my specs/s.yaml", runs="my runs")
    commands = [line for line in page.splitlines() if line.startswith("sweeps ")]
    assert len(commands) >= 3
    for line in page.replace(" \\\n    ", " ").splitlines():
        if line.startswith("sweeps "):
            shell = line.split("   ")[0]
            assert "'my specs/s.yaml'" in shell
            assert "--runs 'my runs'" in line


def test_best_has_the_first_screen_and_the_tables() -> None:
    records = small_sweep()
    page = whole(records)
    assert page.startswith(screen(records))
    found = sections(page)
    rows = [line.split() for line in found["Under fresh seeds"] if line[2:3].isdigit()]
    assert [(row[0], row[1]) for row in rows] == [("2", "best"), ("1", "2"), ("3", "2"), ("0", "2")]
    assert [row[2 + (row[1] == "best")] for row in rows] == ["3.7150", "3.7250", "3.7452", "3.7350"]
    text = " ".join(found["Under fresh seeds"])
    assert "Bonferroni" in text
    assert "2 of 2" in rows[0][-3] + " " + " ".join(rows[0])
    assert any(line.startswith("  Margin: ") for line in found["Equal compute, and the margin"])
    assert found["Failed"][0].startswith("  - trial 5 (search) at step 0 of 50: diverged")
    assert found["Stopped early"][1].split()[:2] == ["4", "10/50"]
    assert found["Where"] == ["  study   sqlite:///runs/study.db", "  MLflow  sqlite:///runs/mlflow.db"]


def test_p_best_takes_three_fresh_seeds() -> None:
    assert "P(best)" in whole(made(), seeds=3)
    two = whole(small_sweep())
    assert "lowest" in sections(two)["Under fresh seeds"][0]
    assert " P(best): " not in two


def test_without_a_finished_trial_there_is_nothing_to_export() -> None:
    records = [record(0, Role.BASELINE, State.RUNNING, 4, {0: 3.8})]
    page = whole(records)
    assert "sweeps export" not in page
    assert "sweeps resume small  " in page
    assert "sweeps resume small --trials 2" in page


def test_trials_that_all_failed_are_not_awaited() -> None:
    failed = [record(n, Role.SEARCH, State.FAIL, 2, {0: 3.8}, reason="no memory") for n in (1, 2)]
    assert "no complete trial: all 2 failed" in screen(failed)
    stopped = record(3, Role.SEARCH, State.PRUNED, 2, {0: 3.8})
    assert "2 failed, 1 stopped early" in " ".join(screen([*failed, stopped]).split())
    running = record(4, Role.SEARCH, State.RUNNING, 2, {0: 3.8})
    assert "no complete trial yet" in screen([*failed, running])


def test_long_lists_of_endings_end_with_how_many_more() -> None:
    stopped = [record(n, Role.SEARCH, State.PRUNED, 2, {10: 3.75}) for n in range(20)]
    page = whole(stopped)
    assert page.count("10/50") == 12
    assert "  and 8 more: `sweeps status small`\n" in page


@pytest.mark.parametrize("number", [3, 1234])
def test_no_text_is_wider_than_the_page(number: int) -> None:
    long = {f"recipe.some_long_setting_{i}": 1 / 3 for i in range(4)}
    records = [
        *small_sweep(),
        record(number + 20, Role.SEARCH, State.COMPLETE, 2, {0: 3.8, 50: 3.1}, params=long),
        record(number + 21, Role.SEARCH, State.PRUNED, 2, {0: 3.8, 5: 3.9}, params=long),
        record(number + 22, Role.SEARCH, State.FAIL, 2, {0: 3.8}, reason="a long story " * 20),
    ]
    assert (
        max(
            len(line)
            for line in f"{whole(records)}\n{status_text(records, driven=False, width=80)}".splitlines()
        )
        <= 80
    )


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("no_color", "colour"), [(None, True), ("1", False)])
def test_a_terminal_has_styles_and_a_pipe_has_none(
    no_color: str | None, colour: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", no_color)
    records = made(better=BETTER)
    lines = answer_lines(verdict(records), records, told(name="evil\x1b[2J"))
    terminal, pipe = _Terminal(), io.StringIO()
    show(lines, terminal)
    show(lines, pipe)
    assert ("\x1b[1;32m" in terminal.getvalue()) is colour
    assert "\x1b[1m" in terminal.getvalue() or colour
    assert "\x1b" not in pipe.getvalue()
    assert "\x1b[2J" not in terminal.getvalue()
    bare = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())
    assert bare == pipe.getvalue()


def test_status_has_a_line_for_every_trial() -> None:
    lines = status_text(small_sweep(), driven=False, width=80).splitlines()
    assert lines[:9] == [
        "12 complete, 1 stopped, 1 failed",
        "",
        "trial  role       state      step    loss  settings",
        "    0  control    complete  50/50  3.7200",
        "    1  baseline   complete  50/50  3.7100  k=4 learning_rate=0.001235",
        "    2  search     complete  50/50  3.7000  k=1 learning_rate=0.001235",
        "    3  search     complete  50/50  3.7300  k=8 learning_rate=0.001235",
        "    4  search     stopped   10/50  3.7500  k=2 learning_rate=0.001235",
        "    5  search     failed     0/50  3.8000  diverged: the loss is not finite at …",
    ]
    assert lines[9] == "    6  replicate  complete  50/50  3.7300  of 0, seed 1"
    assert len(lines) == 3 + 14
    assert status_text([], driven=False) == "No trials yet."


def test_list_has_a_line_for_every_sweep() -> None:
    records = small_sweep()
    best = best_of(verdict(records, seeds=2))
    assert list_text({"small": Line(records, driven=False, best=best), "empty": Line([], driven=False)}) == (
        "sweep  trials  complete  stopped  failed  running  best    loss        last (UTC)\n"
        "empty       0         0        0       0        0     -       -                 -\n"
        "small      14        12        1       1        0     2  3.7150  2023-11-14 22:14"
    )
    assert list_text({}) == "No sweeps here."


def test_list_tells_what_could_not_be_read() -> None:
    unread = {"away": "'postgresql://me:***@db/x' (db:5432: Connection refused)"}
    said = "Could not be read\n  away: got 'postgresql://me:***@db/x' (db:5432: Connection refused)"
    assert list_text({}, unread) == said
    assert list_text({"empty": Line([], driven=False)}, unread).endswith(f"-\n\n{said}")


def test_settings_go_by_their_last_name_unless_two_share_it() -> None:
    assert settings_text({"injection.k": 4, "recipe.rate": 1e-3}) == "k=4 rate=0.001"
    assert settings_text({"a.rate": 0.5, "b.rate": 0.25}) == "a.rate=0.5 b.rate=0.25"


def test_rates_that_rose_and_fell_are_told_apart() -> None:
    assert figures_apart([0.0014, 0.00141]) == 3
    assert figures_apart([1e-3, 1e-2]) == 2

    def at(number: int, rate: float, last: float) -> TrialRecord:
        settings = {"injection": {"k": 2}, "recipe": {"learning_rate": rate}}
        return record(number, Role.SEARCH, State.COMPLETE, 2, {0: 3.8, 50: last}, settings=settings)

    told = " ".join(verdict([at(1, 0.001414, 3.9), at(2, 0.001401, 3.7)]).warnings)
    assert "0.00141 and up rose, 0.0014 fell" in told
