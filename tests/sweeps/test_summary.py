"""The texts a person reads: the whole page of a small sweep, and the corners it does not show."""

from __future__ import annotations

from typing import Any

import pytest

from sweeps.records import Role, State, TrialRecord
from sweeps.report.summary import best_text, list_text, settings_text, status_text, summary_text
from sweeps.results.selection import verdict

LOSSES = {  # by trial and seed; differences from the control: -0.02 or so for 2, growing for 3
    0: [3.7200, 3.7300, 3.7400, 3.7350],
    1: [3.7100, 3.7190, 3.7310, 3.7250],
    2: [3.7000, 3.7110, 3.7190, 3.7150],
    3: [3.7300, 3.7400, 3.7503, 3.7452],
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
    for seed in (1, 2, 3):
        for n in range(len(LOSSES)):
            losses = {0: 3.8, 50: LOSSES[n][seed]}
            place = len(records)
            of = {"seed": seed, "replicate_of": n, "test_losses": (LOSSES[n][seed],) * 2}
            records.append(record(place, Role.REPLICATE, State.COMPLETE, ks[n], losses, **of))
    return records


PAGE = """\
Sweep small: 6 trials (4 complete, 1 stopped early, 1 failed), and 12 replicates
under other seeds

Best: trial 2
  injection.k           1
  recipe.learning_rate  0.00123456789
  held-out loss         3.7150 nats per token, mean of 3 fresh seeds
  initial loss          3.8000
  vs control            -0.0200 ± 0.0025 (better; n=3 seeds, 95 %)
  vs baseline           -0.0100 ± 0.0037 (better; n=3 seeds, 95 %)

Finalists
  trial   seeds    loss        vs control       vs baseline  P(best)  FLOPs
  2 best      3  3.7150  -0.0200 ± 0.0025  -0.0100 ± 0.0037     100%  2.00x
      k=1 learning_rate=0.001235
  1           3  3.7250  -0.0100 ± 0.0025                 -       0%  1.25x
      baseline: k=4 learning_rate=0.001235
  3           3  3.7452  +0.0102 ± 0.0019  +0.0202 ± 0.0023       0%  1.12x
      k=8 learning_rate=0.001235
  0           3  3.7350                 -                 -       0%  1.00x
      control: the original model, trained on
  Loss: mean over fresh seeds, nats per token, at equal tokens and not at equal
  compute. Differences: of test losses under fresh seeds, paired, with
  simultaneous 95 % intervals. P(best): posterior probability that its expected
  loss is the lowest of all here. FLOPs: per token, relative to the control.

Stopped early
  trial   step    loss  settings
      4  10/50  3.7500  k=2 learning_rate=0.001235

Failed
  - trial 5 (search) at step 0 of 50: diverged: the loss is not finite at step 7

Caveats
  - no original was trained with the FLOPs of trial 2: after equal tokens it has
    spent more than the control

Where
  study   sqlite:///runs/study.db
  MLflow  sqlite:///runs/mlflow.db

Next
  take the winner  sweeps export small --out best/
  at equal cost    sweeps compare small
  look at curves   sweeps ui small
  search on        sweeps run small.yaml --set budget.trials=12
  debug a failure  sweeps trial small.yaml 5
"""


def test_the_whole_page() -> None:
    records = small_sweep()
    page = summary_text(verdict(records), records, name="small", places=PLACES, spec="small.yaml")
    assert page + "\n" == PAGE


def test_next_commands_go_by_the_users_spec_where_a_server_has_the_study() -> None:
    records = small_sweep()
    places = {"study": "postgresql://me:***@db/x"}
    page = summary_text(verdict(records), records, name="s", places=places, spec="my specs/s.yaml")
    commands = [line for line in page.splitlines() if "  sweeps " in line]
    assert len(commands) >= 3
    assert all("'my specs/s.yaml'" in line for line in commands)


def test_next_commands_name_the_folder_where_they_would_not_look() -> None:
    records = small_sweep()
    page = summary_text(verdict(records), records, name="s", places={}, spec="s.yaml", runs="my runs")
    (commands,) = [part for part in page.split("\n\n") if part.startswith("Next\n")]
    assert len(commands.splitlines()) > 3
    assert all(line.endswith(" --runs 'my runs'") for line in commands.splitlines()[1:])


def test_best_is_the_middle_of_the_page() -> None:
    before, best, after = PAGE.partition(best_text(verdict(small_sweep())).partition("\n\nCaveats")[0])
    assert before.endswith("under other seeds\n\n")
    assert best.startswith("Best: trial 2\n")
    assert after.startswith("\n\nStopped early\n")


def test_one_that_is_as_good_is_in_the_text_with_the_cheaper_one() -> None:
    records = [
        *(record(n, Role.SEARCH, State.COMPLETE, k, {0: 3.8, 50: 3.7}) for n, k in ((0, 1), (1, 4))),
        record(2, Role.REPLICATE, State.COMPLETE, 1, {50: 3.6}, seed=1, replicate_of=0),
        record(3, Role.REPLICATE, State.COMPLETE, 4, {50: 3.6001}, seed=1, replicate_of=1),
        record(4, Role.REPLICATE, State.COMPLETE, 1, {50: 3.5}, seed=2, replicate_of=0),
        record(5, Role.REPLICATE, State.COMPLETE, 4, {50: 3.5001}, seed=2, replicate_of=1),
    ]
    answer = verdict(records, seeds=2, margin=0.01)
    text = best_text(answer)
    assert text.startswith("Best: trial 1\n")
    assert (
        "  As good as the lowest mean, trial 0: trials 1. Trial 1 costs the fewest FLOPs\n"
        "  per token of the grown ones.\n"
    ) in text
    page = summary_text(answer, records, name="s", places={})
    assert "  take the winner  sweeps export s --out best/\n" in page
    assert "  take the other   sweeps export s --trial 0 --out lowest/\n" in page


def test_a_control_with_a_rate_of_its_own_is_shown_with_it() -> None:
    records = small_sweep()
    searched = {"injection": {"method": "none"}, "recipe": {"learning_rate": 3e-4}}
    losses = {0: 3.8, 50: 3.69}
    records.append(record(len(records), Role.SEARCH, State.COMPLETE, 0, losses, settings=searched))
    text = best_text(verdict(records))
    assert text.startswith("Best: trial 2\n")
    assert "      control: the original model, trained on at its best rate, 0.0003\n" in text


def test_one_seed_shows_differences_without_an_interval() -> None:
    text = best_text(verdict([r for r in small_sweep() if r.seed < 2], seeds=1))
    assert "  vs control            -0.0190 (better; one seed, no interval)\n" in text
    assert "±" not in text
    assert "  - one fresh seed: no intervals, so small differences between trials may be" in text


def test_without_a_finished_trial_there_is_nothing_to_export() -> None:
    records = [record(0, Role.BASELINE, State.RUNNING, 4, {0: 3.8})]
    assert best_text(verdict(records)).startswith("No complete trial yet.\n")
    page = summary_text(verdict(records), records, name="s", places={})
    assert "sweeps export" not in page
    assert "Where" not in page
    assert "  go on           sweeps resume s\n" in page
    assert page.endswith("  search on       sweeps resume s --trials 2")


def test_trials_that_all_failed_are_not_awaited() -> None:
    failed = [record(n, Role.SEARCH, State.FAIL, 2, {0: 3.8}, reason="no memory") for n in (1, 2)]
    text = best_text(verdict(failed))
    assert text.startswith("No complete trial: all 2 failed. `sweeps status` has the reasons.")
    stopped = record(3, Role.SEARCH, State.PRUNED, 2, {0: 3.8})
    assert "2 failed, 1 stopped early" in best_text(verdict([*failed, stopped]))
    running = record(4, Role.SEARCH, State.RUNNING, 2, {0: 3.8})
    assert best_text(verdict([*failed, running])).startswith("No complete trial yet.")


def test_long_lists_of_endings_end_with_how_many_more() -> None:
    stopped = [record(n, Role.SEARCH, State.PRUNED, 2, {10: 3.75}) for n in range(20)]
    page = summary_text(verdict(stopped), stopped, name="s", places={})
    assert page.count("10/50") == 12
    assert "  and 8 more: `sweeps status`\n" in page


@pytest.mark.parametrize("number", [3, 1234])
def test_no_text_is_wider_than_the_page(number: int) -> None:
    long = {f"recipe.some_long_setting_{i}": 1 / 3 for i in range(4)}
    records = [
        *small_sweep(),
        record(number + 20, Role.SEARCH, State.COMPLETE, 2, {0: 3.8, 50: 3.1}, params=long),
        record(number + 21, Role.SEARCH, State.PRUNED, 2, {0: 3.8, 5: 3.9}, params=long),
        record(number + 22, Role.SEARCH, State.FAIL, 2, {0: 3.8}, reason="a long story " * 20),
    ]
    page = summary_text(verdict(records), records, name="s" * 25, places=PLACES)
    assert max(len(line) for line in f"{page}\n{status_text(records)}".splitlines()) <= 80


def test_status_has_a_line_for_every_trial() -> None:
    lines = status_text(small_sweep()).splitlines()
    assert lines[:9] == [
        "16 complete, 1 stopped, 1 failed",
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
    assert len(lines) == 3 + 18
    assert status_text([]) == "No trials yet."


def test_list_has_a_line_for_every_sweep() -> None:
    assert list_text({"small": small_sweep(), "empty": []}) == (
        "sweep  trials  complete  stopped  failed  running    best        last (UTC)\n"
        "empty       0         0        0       0        0       -                 -\n"
        "small      18        16        1       1        0  3.7000  2023-11-14 22:14"
    )
    assert list_text({}) == "No sweeps here."


def test_list_tells_what_could_not_be_read() -> None:
    unread = {"away": "'postgresql://me:***@db/x' (db:5432: Connection refused)"}
    told = "Could not be read\n  away: got 'postgresql://me:***@db/x' (db:5432: Connection refused)"
    assert list_text({}, unread) == told
    assert list_text({"empty": []}, unread).endswith(f"-\n\n{told}")


def test_settings_go_by_their_last_name_unless_two_share_it() -> None:
    assert settings_text({"injection.k": 4, "recipe.rate": 1e-3}) == "k=4 rate=0.001"
    assert settings_text({"a.rate": 0.5, "b.rate": 0.25}) == "a.rate=0.5 b.rate=0.25"
