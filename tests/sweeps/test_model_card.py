"""The model card of an exported folder: what the hub reads of it, its losses, the licence of its base."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeps.promotion import Promotion
from sweeps.records import Role
from sweeps.results.finding import find
from sweeps.results.model_card import model_card
from sweeps.results.selection import verdict
from sweeps.results.sentence import handed_over
from sweeps.spec import load_spec
from tests.real_quickstart import kept
from tests.sweeps.conftest import ran_in
from tli.models.licence import licence_of
from tli.models.lineage import read_lineage

_BASE = {"name": "builtin:tiny-llama", "revision": None, "parameters": 1_837_184, "licence": "apache-2.0"}
_PLAN = {"depth": 8, "new_depth": 9, "injected": [8], "injection": {"method": "tli"}}


def card_of(number: int | None, **base: Any) -> str:
    records, _ = kept()
    found = verdict(records, depth=8)
    chosen = found.best_grown if number is None else number
    assert chosen is not None
    lineage = {"base": {**_BASE, **base}, "plan": _PLAN}
    return model_card(load_spec("quickstart"), found, records, chosen, said="it", lineage=lineage)


def front_matter(text: str) -> Any:
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1])


def test_the_hub_reads_the_base_and_the_licence() -> None:
    assert front_matter(card_of(None))["license"] == "apache-2.0"
    assert "base_model" not in front_matter(card_of(None)), "no repository of the hub"
    found = front_matter(card_of(None, name="org/model", revision="a" * 40, licence=None))
    assert (found["base_model"], found["library_name"]) == ("org/model", "transformers")
    assert "license" not in found


def test_its_losses_are_those_of_the_answer() -> None:
    records, _ = kept()
    found = verdict(records, depth=8)
    best = found.chosen
    assert best is not None
    assert found.control is not None
    text = card_of(None)
    assert f"| **this, trial {best.number}** | {best.mean:.4f} | {best.test_loss:.4f} |" in text
    assert f"| {found.control.mean:.4f} | {found.control.test_loss:.4f} |" in text
    assert text.count("\n- trial ") == sum(claim.trial == best.number for claim in found.claims)


def test_a_promotion_is_set_beside_no_mean_of_other_seeds() -> None:
    records, _ = kept()
    found = verdict(records, depth=8)
    own = next(each for each in records if each.number == found.best_grown)
    long = replace(
        own,
        number=90,
        role=Role.PROMOTION,
        value=2.9,
        test_losses=(2.8, 3.0),
        promotion=Promotion(own.number, 24),
    )
    card = model_card(
        load_spec("quickstart"),
        found,
        [*records, long],
        90,
        said="it",
        lineage={"base": _BASE, "plan": _PLAN},
    )
    assert "| **this, trial 90** | 2.9000 | 2.9000 |" in card
    assert "fresh seed" not in card.split("## How good it is")[1].split("The sweep's answer")[0]
    said = handed_over(found, [*records, long], 90)
    assert f"trial {own.number} trained on" in said


def test_a_folder_of_the_user_is_named_without_its_path() -> None:
    text = card_of(None, name="/home/me/models/mine`|x")
    assert "/home/me" not in text
    assert "`mine\\|x`" in text


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("---\nlicense: mit\n---\n# x", "mit"),
        ('---\r\ntags:\r\n- a\r\nlicense: "llama3.2"  # theirs\r\n---\r\n', "llama3.2"),
        ("# x\nlicense: mit", None),
        ("---\nlicense: [mit, other]\n---\n", None),
        ("", None),
    ],
)
def test_the_licence_is_read_from_the_card_of_the_base(
    text: str, licence: str | None, tmp_path: Path
) -> None:
    (tmp_path / "README.md").write_bytes(text.encode())
    assert licence_of(tmp_path) == licence
    assert licence_of(tmp_path / "none") is None


def test_an_exported_folder_has_its_card_under_its_digests(
    tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    base = tiny_model("llama")
    ran_in(tmp_path, base, trials=2)
    sweep = find("tiny", runs=str(tmp_path / "runs"))
    number = sweep.export(tmp_path / "best")
    text = (tmp_path / "best" / "README.md").read_text()
    assert f"# tiny, trial {number}:" in text
    assert "README.md" in read_lineage(tmp_path / "best")["files"]
    record = next(each for each in sweep.records if each.number == number)
    assert f"{record.initial_loss:.4f}" in text
