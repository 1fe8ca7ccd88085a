"""A model over several processes against the same in one: weights bit for bit, losses but for rounding."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from tests.conftest import TINY, SaveModel
from tests.ranks import on_ranks
from tests.tli.rank_work import planned
from tli.growth.activations import Setting
from tli.growth.traffic import sent_bytes
from tli.models.base import find
from tli.sharded.processes import device_problem
from tli.sharded.rows import own_rows
from tli.training.eight_bits import block_of, moment_bytes
from tli.training.ranks import Ranks, rows_problems

Tiny = Callable[[str], Path]
WORK = "tests.tli.rank_work"
IN_8_BITS = pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")
INITS = ("identity", "copy", "damped", "mean", "random", "slerp", "aligned", "predicted")
DEEPER = [{"k": 2, "init": init} for init in INITS]
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama tied": ("llama", {}),
    "llama untied": ("llama", {"tie_word_embeddings": False}),
    "qwen3": ("qwen3", {}),
    "gemma3": ("gemma3_text", {**TINY["qwen3"], "sliding_window": 8, "query_pre_attn_scalar": 8}),
    "gpt_neox": ("gpt_neox", {}),
    "mixture": ("mixtral", {**TINY["mistral"], "num_local_experts": 4, "num_experts_per_tok": 2}),
}


def saved(save_model: SaveModel, folder: Path, name: str, **more: Any) -> str:
    model_type, config = MODELS[name]
    return str(save_model(folder / name.replace(" ", "-"), model_type, **{**config, **more}))


def check(results: list[Any], count: int) -> None:
    """What `rank_work.trained` gave: equal weights, losses as near as rounding allows."""
    for rank in results:
        assert len(rank) == count
        for wrong, difference, losses in rank:
            assert wrong == []
            assert difference < 1e-5
            assert losses == 8  # held-out at three steps, and five steps


@pytest.mark.ranks
@pytest.mark.default_run
def test_two_ranks_do_what_one_process_does(tiny_model: Tiny, tmp_path: Path) -> None:
    """Grow, train, save, resume and write out, in one start of two processes."""
    plans = [{"k": 2, "init": "random"}, {"k": 2, "init": "slerp"}]
    given = {"folder": str(tiny_model("llama")), "plans": plans, "out": str(tmp_path)}
    results = on_ranks(2, f"{WORK}:everything", **given)
    check([grown for grown, _, _ in results], len(plans))
    for _, went_on, resumed in results:
        assert went_on == resumed
        assert len(went_on) == 6
    ranks, alone = tensors(tmp_path / "ranks"), tensors(tmp_path / "alone")
    assert ranks.keys() == alone.keys()
    assert all(ranks[key].equal(alone[key]) for key in alone)


@pytest.mark.ranks
@pytest.mark.parametrize("size", [2, 4])
def test_bytes_that_a_rank_sends_are_those_of_the_estimate(tiny_model: Tiny, size: int) -> None:
    """Of one optimizer step: what FSDP2 gathers and sums, counted as it is handed to gloo."""
    folder = str(tiny_model("qwen3"))
    recipes: list[dict[str, Any]] = [
        {},
        {"precision": "bf16"},
        {"activation_checkpointing": 1},
        {"micro_batch_tokens": 16},
        {"train": "injected"},
        {"train": "injected", "precision": "bf16", "activation_checkpointing": 1},
        {"train": "injected+norms"},
    ]
    counted = on_ranks(size, f"{WORK}:sent", folder=folder, recipes=recipes)
    base, plan = find(folder), planned(k=2)
    assert all(rank == counted[0] for rank in counted)
    for recipe, found in zip(recipes, counted[0], strict=True):
        own = 128 // size
        tokens = min(own, recipe.get("micro_batch_tokens", own))
        setting = Setting(tokens, recipe.get("precision", "fp32"), recipe.get("train", "all"), size)
        told = sent_bytes(base, plan, setting) * (own // tokens)
        # But for rows that even out: of 257 tokens' rows, most of all.
        assert sum(found.values()) == pytest.approx(told, rel=0.01), recipe


@pytest.mark.ranks
@pytest.mark.timeout(1200)  # eleven plans of two ranks on a busy machine
@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("name", MODELS)
def test_any_number_of_ranks_grows_and_trains_as_one_process(
    save_model: SaveModel, tmp_path: Path, name: str, size: int
) -> None:
    folder = saved(save_model, tmp_path, name)
    plans = [{"k": 2, "init": "random"}, {"k": 2, "init": "identity", "noise": 0.1}, {"method": "none"}]
    plans += DEEPER if size == 2 else []
    check(on_ranks(size, f"{WORK}:trained", timeout=1150, folder=folder, plans=plans), len(plans))


@pytest.mark.ranks
@pytest.mark.parametrize("size", [1, 2, 4])
def test_mixtures_are_made_as_in_one_process(save_model: SaveModel, tmp_path: Path, size: int) -> None:
    folder = saved(save_model, tmp_path, "llama untied", attention_bias=False, mlp_bias=False)
    experts = {"count": 3, "top_k": 2, "noise": 0.1, "drop": 0.5}
    plans = [
        {"method": "moe", "experts": experts},
        {"method": "moe", "experts": {"count": 4, "top_k": 2, "granularity": 2}},
        {"k": 2, "init": "identity", "experts": experts},
    ]
    check(on_ranks(size, f"{WORK}:trained", folder=folder, plans=plans), len(plans))


@pytest.mark.ranks
@pytest.mark.parametrize(
    "recipe",
    [
        {"train": "injected"},
        {"clip": 0.01},
        {"clip": None},
        {"micro_batch_tokens": 32},
        {"weight_decay": 0.1},
        {"packed": True, "micro_batch_tokens": 32},  # rows that do not predict as many tokens each
        pytest.param({"optimizer": "adamw8bit"}, marks=IN_8_BITS),
    ],
    ids=str,
)
def test_every_recipe_trains_as_in_one_process(tiny_model: Tiny, recipe: dict[str, Any]) -> None:
    plans = [{"k": 2, "init": "copy"}]
    check(on_ranks(2, f"{WORK}:trained", folder=str(tiny_model("qwen3")), plans=plans, **recipe), 1)


@pytest.mark.ranks
@IN_8_BITS
@pytest.mark.parametrize("size", [2, 4])
def test_moments_in_8_bits_are_those_of_one_process(save_model: SaveModel, tmp_path: Path, size: int) -> None:
    """Codes are the same, and a rank has as many bytes of them as `plan` counts."""
    folder = save_model(tmp_path / "wide", "llama", hidden_size=64, intermediate_size=192, vocab_size=256)
    given: dict[str, Any] = {"folder": str(folder), "optimizer": "adamw8bit"}
    for found in on_ranks(size, f"{WORK}:moments", **given):
        matrix = "model.layers.0.mlp.down_proj.weight"
        assert found["bytes"][matrix] == 64 * 192 * 2 * (1 + 4 / 192) / size
        shapes = found["shapes"]
        counted = {name: 2 * math.prod(shape) * moment_bytes(shape) / size for name, shape in shapes.items()}
        assert found["bytes"] == pytest.approx(counted)
        values = sum(math.prod(shape) for shape in shapes.values() if block_of(shape) is not None)
        assert found["other"] <= values // 1000  # at the edge between two codes sums round otherwise


@pytest.mark.ranks
def test_bfloat16_computes_beside_float32_weights(tiny_model: Tiny) -> None:
    given = {"folder": str(tiny_model("llama")), "plan": {"k": 2, "init": "identity"}}
    for found in on_ranks(2, f"{WORK}:in_bfloat16", **given):
        assert found["types"] == ["torch.float32"]
        assert 0 < found["difference"] < 2e-2


@pytest.mark.ranks
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("name", ["llama tied", "llama untied"])
def test_frozen_rows_are_the_base_s_own_in_half_the_bytes(
    save_model: SaveModel, tmp_path: Path, name: str, size: int
) -> None:
    """Whatever each training in a row trains: not a bit is another, the base stays, and memory does not grow."""
    folder = saved(save_model, tmp_path, name, dtype="bfloat16", attention_bias=False, mlp_bias=False)
    bf16: dict[str, Any] = {"precision": "bf16"}
    recipes: list[dict[str, Any]] = [
        {**bf16, "train": "injected"},
        {**bf16, "train": "injected+norms"},  # layers in which the norms alone are trained
        bf16,
        {"train": "injected"},  # in float32: copied from what the base has in half
        {**bf16, "train": "injected", "rates": {"injected": 0.5, "norms": 0.0}},
        {**bf16, "train": "injected"},
        {**bf16, "train": "injected"},
    ]
    plans: list[dict[str, Any]] = [{"k": 2, "init": "mean"}] * 4 + [
        {"k": 2, "init": "random"},
        {"k": 2, "experts": {"count": 3, "top_k": 2}},
        {"k": 2, "init": "mean"},
    ]
    for found in on_ranks(size, f"{WORK}:frozen_alike", folder=folder, recipes=recipes, plans=plans):
        for recipe, each in zip(recipes, found["trainings"], strict=True):
            assert each["wrong"] == [], recipe
            assert each["same"], recipe
            assert each["own"] == each["trained"] or "precision" not in recipe, recipe
            assert (each["half"] > 0) == ("train" in recipe and "precision" in recipe), recipe
        assert max(found["memory"][1:]) <= found["memory"][0] + 4096


@pytest.mark.ranks
def test_what_was_trained_beside_frozen_rows_is_written_in_float32(
    save_model: SaveModel, tmp_path: Path
) -> None:
    """The frozen weights with the base's bits, the configuration with their type, the state with what moved."""
    folder = saved(save_model, tmp_path, "llama untied", dtype="bfloat16")
    measured = on_ranks(2, f"{WORK}:written_frozen", folder=folder, out=str(tmp_path))[0]
    assert len(measured) == 6
    assert json.loads((tmp_path / "ranks" / "config.json").read_text())["dtype"] == "float32"
    written, base = tensors(tmp_path / "ranks"), tensors(Path(folder))
    assert {str(each.dtype) for each in written.values()} == {"torch.float32"}
    plan = planned(k=2, init="mean")
    for position, source in enumerate(plan.sources):
        for name, tensor in base.items():
            if f".layers.{source}." in name and position not in plan.injected:
                now = name.replace(f".layers.{source}.", f".layers.{position}.")
                assert written[now].equal(tensor.float()), now
    assert written["lm_head.weight"].equal(base["lm_head.weight"].float())


@pytest.mark.ranks
@pytest.mark.parametrize("init", INITS)
def test_no_rank_ever_holds_the_model(save_model: SaveModel, tmp_path: Path, init: str) -> None:
    folder = saved(save_model, tmp_path, "llama untied", vocab_size=512)
    for found in on_ranks(4, f"{WORK}:memory", folder=folder, init=init):
        assert found["base"] <= found["whole"] / 4 * 1.05
        assert found["read"] <= found["whole"] / 4 * 1.05
        assert found["grown"] <= found["grown whole"] / 4 * 1.05
        drawing = 2**18 if init == "random" else 0  # bytes that drawing takes, whatever is drawn
        assert found["largest"] <= max(found["largest tensor"], drawing)


@pytest.mark.ranks
def test_a_mixture_is_read_by_its_experts(save_model: SaveModel, tmp_path: Path) -> None:
    """In files every expert's matrix is a tensor, in memory they are one: each rank reads its own experts."""
    folder = saved(save_model, tmp_path, "mixture", dtype="bfloat16")
    for found in on_ranks(2, f"{WORK}:memory", folder=folder, init="identity"):
        assert found["read"] <= found["whole"] / 2 * 1.05
        assert found["base"] <= 2 * found["whole"] / 2 * 1.05  # float32 of bfloat16


@pytest.mark.ranks
@pytest.mark.parametrize(
    ("before", "after", "optimizer"),
    [
        (2, 1, "adamw"),
        (1, 2, "adamw"),
        (2, 4, "adamw"),
        (4, 2, "adamw"),
        pytest.param(2, 1, "adamw8bit", marks=IN_8_BITS),
        pytest.param(1, 4, "adamw8bit", marks=IN_8_BITS),
        pytest.param(4, 2, "adamw8bit", marks=IN_8_BITS),
    ],
)
def test_a_state_goes_on_at_another_number_of_ranks(
    tiny_model: Tiny, tmp_path: Path, before: int, after: int, optimizer: str
) -> None:
    """Moments in 8 bits, too: their blocks end with the rows that ranks divide."""
    given: dict[str, Any] = {"folder": str(tiny_model("llama")), "states": str(tmp_path / "states")}
    given["optimizer"] = optimizer
    wanted = on_ranks(before, f"{WORK}:saved", stop=2, **given)[0]
    assert len(wanted) == 6
    for found in on_ranks(after, f"{WORK}:resumed", **given):
        assert found == pytest.approx(wanted, abs=1e-6)
    for found in on_ranks(before, f"{WORK}:resumed", **given):  # bit for bit at the same number
        assert found == wanted
    for found in on_ranks(2, f"{WORK}:resumed", owner="another", **given):
        assert found is None


@pytest.mark.ranks
@pytest.mark.parametrize(
    ("size", "recipe"),
    [
        pytest.param(2, {"train": "injected"}, marks=pytest.mark.default_run),
        (2, {}),
        (4, {}),
        pytest.param(2, {"optimizer": "adamw8bit"}, marks=IN_8_BITS),
        pytest.param(4, {"optimizer": "adamw8bit"}, marks=IN_8_BITS),
    ],
    ids=str,
)
def test_a_state_of_one_process_goes_on_over_ranks_and_the_reverse(
    tiny_model: Tiny, tmp_path: Path, size: int, recipe: dict[str, Any]
) -> None:
    given = {"folder": str(tiny_model("llama")), "states": str(tmp_path / "states"), "recipe": recipe}
    first, *others = on_ranks(size, f"{WORK}:across", **given)
    whole, by_ranks, by_one = first
    assert (len(whole), len(by_one)) == (6, 4)
    assert all(each == [by_ranks] for each in others)
    assert by_ranks == pytest.approx(whole, abs=1e-6)
    assert by_one == pytest.approx(whole[2:], abs=1e-6)


@pytest.mark.ranks
@pytest.mark.parametrize("name", ["llama tied", "mixture"])
def test_what_was_trained_over_ranks_is_written_as_one_process_writes_it(
    save_model: SaveModel, tmp_path: Path, name: str
) -> None:
    given = {"folder": saved(save_model, tmp_path, name), "out": str(tmp_path)}
    on_ranks(2, f"{WORK}:state_and_export", **given)
    assert on_ranks(1, f"{WORK}:export_of_state", **given) == [5]
    ranks, alone, base = (tensors(tmp_path / each) for each in ("ranks", "alone", Path(given["folder"]).name))
    assert ranks.keys() == alone.keys()
    assert all(ranks[key].equal(alone[key]) for key in alone)
    assert any(not base[key].equal(ranks[key]) for key in base), "it was trained"


@pytest.mark.ranks
def test_a_state_that_was_altered_is_passed_over(tiny_model: Tiny, tmp_path: Path) -> None:
    given = {"folder": str(tiny_model("llama")), "states": str(tmp_path / "states")}
    assert on_ranks(2, f"{WORK}:spoilt", **given) == [True, True]


@pytest.mark.ranks
def test_a_disk_that_is_full_is_said_by_every_rank_and_the_state_before_stays(
    tiny_model: Tiny, tmp_path: Path
) -> None:
    given = {"folder": str(tiny_model("llama")), "states": str(tmp_path / "states")}
    assert on_ranks(2, f"{WORK}:full_disk", **given) == [["28"], ["28"]]
    assert on_ranks(2, f"{WORK}:resumed", **given)[0] is not None


def tensors(folder: Path) -> dict[str, Any]:
    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(str(path), framework="pt") as file:
            assert file.metadata() == {"format": "pt"}
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    return found


@pytest.mark.ranks
@pytest.mark.parametrize("limit", [None, 40_000])
@pytest.mark.parametrize("name", ["llama tied", "gpt_neox", "mixture"])
def test_what_ranks_write_is_what_one_process_writes(
    save_model: SaveModel, tmp_path: Path, name: str, limit: int | None
) -> None:
    folder = saved(save_model, tmp_path, name)
    on_ranks(2, f"{WORK}:exported", folder=folder, out=str(tmp_path), limit=limit, k=2, init="identity")
    ranks, alone = tensors(tmp_path / "ranks"), tensors(tmp_path / "alone")
    assert ranks.keys() == alone.keys()
    assert all(ranks[key].equal(alone[key]) for key in alone)
    for path in (tmp_path / "alone").iterdir():
        if path.suffix != ".safetensors" and path.name != "lineage.json":
            assert (tmp_path / "ranks" / path.name).read_bytes() == path.read_bytes(), path.name
    assert (len(list((tmp_path / "ranks").glob("*.safetensors"))) > 1) == (limit is not None)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "ranks").state_dict()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "alone").state_dict()
    assert all(loaded[key].equal(plain[key]) for key in plain)


@pytest.mark.parametrize(("count", "size"), [(8, 4), (9, 4), (3, 4), (1, 3), (0, 2), (257, 2)])
def test_rows_are_divided_without_gap_or_overlap(count: int, size: int) -> None:
    spans = [own_rows(count, Ranks(rank, size)) for rank in range(size)]
    assert [row for low, high in spans for row in range(low, high)] == list(range(count))


def test_rows_that_ranks_do_not_divide_are_refused() -> None:
    (problem,) = rows_problems(6, 16, Ranks(0, 4))
    assert (problem.where, problem.remedy) == ("recipe.batch_tokens", "128")
    assert "4 ranks" in problem.expected
    assert rows_problems(8, 16, Ranks(0, 4)) == []


@pytest.mark.ranks
def test_a_training_refuses_rows_that_its_ranks_do_not_divide(tiny_model: Tiny) -> None:
    for said in on_ranks(3, f"{WORK}:undivided", folder=str(tiny_model("llama"))):
        assert said == ["recipe.batch_tokens", "144"]


def test_gpus_that_are_not_there_are_refused() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there are GPUs")
    problem = device_problem("cuda")
    assert problem is not None
    assert problem.where == "device"
    assert device_problem("cpu") is None
