"""Every method of injection is a setting of a sweep: searched over, named, written out and proven."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from sweeps.checks.preflight import check
from sweeps.driver.service import run
from sweeps.records import State
from sweeps.results.export import export
from sweeps.results.labels import configuration
from sweeps.spec import load_spec
from tli.errors import InputError
from tli.growth.verify import verify_folder
from tli.models.base import find

SEARCH = """\
  injection.method: {choice: [tli, dus, stack, repeat, moe]}
  injection.k: {choice: [1, 2], when: {injection.method: tli}}
"""


def test_a_sweep_over_methods(write_spec: Any, tiny_model: Any, silent: Any, tmp_path: Path) -> None:
    spec = write_spec(
        trials=9,
        replace={
            str(tiny_model("llama")): str(tiny_model("mistral")),
            "  injection.k: {choice: [1, 2, 4]}\n": SEARCH,
            "  injection.init: {choice: [copy, identity, random]}\n": "",
            "  recipe.learning_rate: {log: [1e-4, 1e-2]}\n": "",
            "init: identity}": "least_important_sets: 1, m: 1, g: 2, layers: '1:4', experts: {top_k: 1}}",
            "rule: asha": "rule: none",
        },
    )
    sweep = run(load_spec(str(spec)), silent, runner="inline")
    found = {}
    for record in sweep.records:
        assert record.state is State.COMPLETE, record.reason
        found[configuration(record).rpartition(" lr")[0] or "control"] = record
    assert set(found) >= {
        "control",
        "K=2 layers=1:4 sets=1 identity",
        "dus m=1 copy",
        "stack g=2 copy",
        "repeat layers=1:4 g=2 copy",
        "8 experts",
    }
    # Identical experts compute what the base does; so do injected layers that add nothing.
    initial = found["control"].initial_loss
    assert found["K=2 layers=1:4 sets=1 identity"].initial_loss == initial
    assert found["8 experts"].initial_loss == pytest.approx(initial, rel=1e-5)
    assert found["stack g=2 copy"].initial_loss != initial
    for name in ("control", "8 experts"):
        out = tmp_path / name.replace(" ", "-")
        number = found[name].number
        if not (sweep.folders.model_dir(number, 1) / "lineage.json").is_file():
            continue  # models are kept of those that may be asked for
        export(sweep, out, trial=number)
        assert verify_folder(out, find(str(tiny_model("mistral")))).ok
        loaded = AutoModelForCausalLM.from_pretrained(out)
        with torch.no_grad():
            assert loaded(torch.arange(8)[None]).logits.isfinite().all()


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("llama", "method: moe", "experts"),
        ("llama", "experts: {count: 4}, init: identity", "experts"),
        ("mistral", "experts: {count: 4, granularity: 5}", "granularity: got 5; expected a divisor of 48"),
        ("mistral", "layers: '2:9'", "layers: got '2:9'; expected a range of layers from 0"),
        ("mistral", "method: dus, m: 2", "m: got 2; expected below 2, half the model's layers"),
        ("mistral", "least_important_sets: 3", "sets: got 3; expected at most 2, the number of sets"),
    ],
)
def test_what_the_base_cannot_is_told_before_anything_runs(
    write_spec: Any, tiny_model: Any, tmp_path: Path, model: str, settings: str, message: str
) -> None:
    replace = {
        str(tiny_model("llama")): str(tiny_model(model)),
        "method: tli, k: 2, init: identity": settings if "method" in settings else f"k: 2, {settings}",
        "  injection.k: {choice: [1, 2, 4]}\n": "",
    }
    if "moe" in settings:  # has no first weights of layers to search
        replace["  injection.init: {choice: [copy, identity, random]}\n"] = ""
    if model == "llama":
        del replace[str(tiny_model("llama"))]
    spec = load_spec(str(write_spec(replace=replace)))
    with pytest.raises(InputError) as caught:
        check(spec)
    assert message in str(caught.value)
    assert not (tmp_path / "runs").exists()
