"""Fuzzes configurations: `python -m tests.fuzz.fuzz_config --runs 100000 --seed 0`.

Small real models of several architectures, with a config.json, and now and then a file beside it, that a stranger
might have written: other types, huge numbers, NaN, nesting, sections that are none, keys twice or not at all, broken
text. Each is found and checked, planned, costed, and its configuration written at the new depth; some are upscaled
whole. An InputError says what is wrong with it, or all of that works: what is written is JSON that is read again, of the
new depth, and nothing is written anywhere else. Memory stays below 1 GB, and no run takes more than 20 s of work.
"""

from __future__ import annotations

import atexit
import copy
import json
import random
import resource
import shutil
import signal
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from tests.fuzz.command import command
from tli.architectures.config import depth_of
from tli.architectures.table import FAMILIES
from tli.errors import InputError
from tli.growth.cost import cost
from tli.growth.on_disk import grown_config, growth_problems, upscale_folder
from tli.json_files import read_json
from tli.models.base import Base, find
from tli.models.quantised import training_problems
from tli.planning.injection import Injection
from tli.planning.plan import Plan, plan_for

TYPES = ("llama", "qwen2", "qwen3", "gemma3", "gpt2", "gpt_neo", "qwen2_moe", "deepseek_v3", "jamba", "smollm3",
         "recurrent_gemma", "gemma4_text", "glm_moe_dsa", "nemotron_h")  # fmt: skip
MEMORY, SECONDS = 10**9, 20
_DEEP: Any = [[]]
for _ in range(200):
    _DEEP = [_DEEP]
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 4, 5, 7, 64, 10**9, 10**30, 10**400, -(2**63), 0.5, -0.0, 1e-320, 1e308, float("nan"),
    float("inf"), "", "x", "4", "x/y", "\ud800", "\x1b[2J", "ü" * 300, [], [0], [1, 2, 3, 4], ["x"], ["full_attention"] * 4,
    [[]], [None], [10**9], [[["global"], 10**9]], [float("nan")], {}, {"a": 1}, {"0": {}}, {"x": {}}, {"": 0}, _DEEP,
    ["LlamaForCausalLM"], {"auto_map": {"AutoModel": "a.B"}}, {"rope_type": "default"}, {"quant_method": "gptq"},
)  # fmt: skip
KEYS = (
    "architectures", "model_type", "num_hidden_layers", "n_layer", "num_nextn_predict_layers", "initializer_range", "init_std",
    "max_window_layers", "mlp_only_layers", "layer_types", "mlp_layer_types", "indexer_types", "num_kv_shared_layers",
    "first_k_dense_replace", "decoder_sparse_step", "per_layer_config", "scale_depth", "attention_types", "block_types",
    "moe_layers", "text_config", "vision_config", "rope_parameters", "rope_scaling", "quantization_config", "head_dim", "num_labels",
    "num_attention_heads", "num_key_value_heads", "intermediate_size", "num_experts", "num_experts_per_tok", "sliding_window",
    "tie_word_embeddings", "max_position_embeddings", "is_encoder_decoder", "rms_norm_eps", "attn_implementation", "auto_map",
    "transformers_weights", "configuration_files", "vocab_size", "hidden_size", "id2label", "dtype", "use_sliding_window",
    "attn_layer_period", "attn_layer_offset", "layers_block_type", "no_rope_layers", "pruned_heads", "attention_layers",
)  # fmt: skip
TOKENS = (b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"null", b"NaN", b"-Infinity", b"1e999", b"-0", b" ", b"\0", b"\xff",
          b'"a":', b'"model_type":"llama",', b'"num_hidden_layers":4,', b"[" * 3000, b"9" * 5000, b"\xef\xbb\xbf")  # fmt: skip
BESIDE = (
    "generation_config.json",
    "tokenizer_config.json",
    "processor_config.json",
    "notes.json",
    "adapter_config.json",
    "lineage.json",
)
INJECTIONS = (
    {"k": 2}, {"k": 2, "init": "identity"}, {"k": 4, "init": "copy"}, {"k": 1, "init": "copy"}, {"method": "dus", "m": 1},
    {"method": "stack", "g": 2}, {"k": 2, "init": "random"}, {"k": 2, "place": "before", "init": "mean"},
)  # fmt: skip


def run(runs: int, seed: int) -> tuple[int, int]:
    """`runs` configurations made from `seed`; how many were accepted and refused. AssertionError with the number."""
    accepted = 0
    _models()
    before = _peak()
    # By the time of this process, as a loaded machine is slow; and by the clock, for one that waits for ever.
    signal.signal(signal.SIGPROF, _too_long)
    signal.signal(signal.SIGALRM, _too_long)
    for number in range(runs):
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(30 * SECONDS)
        try:
            accepted += fuzz_one(random.Random(f"{seed}/{number}"))
        except Exception as error:
            raise AssertionError(
                f"seed {seed}, number {number}: {(_place() / 'base/config.json').read_bytes()[:3000]!r}"
            ) from error
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
    assert _peak() - before < MEMORY, f"{(_peak() - before) / 1e9:.2f} GB more than before"
    return accepted, runs - accepted


def fuzz_one(source: random.Random) -> bool:
    """One configuration; whether it was accepted. Raises whatever is not an InputError."""
    folder = _place() / "base"
    model_type = source.choice(TYPES)
    _lay(folder, model_type, source)
    before = _listing()
    try:
        base = find(str(folder))
        plan = _used(base, source)
        if plan is not None and source.random() < 0.02:
            upscale_folder(base, _place() / "grown", plan)
            assert find(str(_place() / "grown")).facts.depth == plan.new_depth, (
                "what is written is found again"
            )
    except InputError as error:
        assert len(str(error)) < 100_000, "a refusal fits the screen"
        assert "\x1b" not in str(error), "a refusal does not draw on it"
        return False
    finally:
        shutil.rmtree(_place() / "grown", ignore_errors=True)
        assert _listing() == before, "nothing is written elsewhere"
    return True


def _used(base: Base, source: random.Random) -> Plan | None:
    """What a command or a check does with a base that was found. None where its architecture cannot grow."""
    facts = base.facts
    assert len(base.fingerprint) == 64
    training_problems(base)
    plan = plan_for(Injection(**source.choice(INJECTIONS)), facts.depth)
    if growth_problems(base, plan):
        config = grown_config(base, plan)  # raises the same, or is refused for the weights alone
    else:
        config = grown_config(base, plan)
        price = cost(base, plan, sequence_length=32)
        assert price.parameters > 0
        assert price.flops_per_token > 0
    written = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False)
    path = _place() / "written.json"
    path.write_text(written, encoding="utf-8")
    assert read_json(path) == config, "what is written is read again"
    path.unlink()
    assert depth_of(config, FAMILIES[facts.model_type]) == plan.new_depth
    return None if growth_problems(base, plan) else plan


def _lay(folder: Path, model_type: str, source: random.Random) -> None:
    """The folder of a model with a changed configuration, and perhaps a changed file beside."""
    model = _models() / model_type
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "model.safetensors").hardlink_to(model / "model.safetensors")
    text = (model / "config.json").read_bytes()
    (folder / "config.json").write_bytes(mutated(source, text))
    if source.random() < 0.1:
        beside = {
            source.choice((*KEYS, "fast_tokenizer_files", "vocab_file", "gguf_file")): source.choice(ODD)
        }
        (folder / source.choice(BESIDE)).write_bytes(_broken(source, _dumped(beside), often=0.2))


def mutated(source: random.Random, text: bytes) -> bytes:
    """A config.json with up to three changes of its values, and now and then of its text."""
    config = json.loads(text)
    for _ in range(source.choice((0, 1, 1, 1, 2, 3))):
        _change(source, config)
    return _broken(source, _dumped(config), often=0.1)


def _change(source: random.Random, config: dict[str, Any]) -> None:
    place = config
    inner = [value for value in config.values() if isinstance(value, dict) and value]
    if inner and source.random() < 0.4:
        place = source.choice(inner)
    change = source.randrange(10)
    if change < 4 and place:
        place[source.choice(list(place))] = copy.deepcopy(source.choice(ODD))
    elif change < 7:
        place[source.choice(KEYS)] = copy.deepcopy(source.choice(ODD))
    elif change == 7 and place:
        del place[source.choice(list(place))]
    elif change == 8:
        place[source.choice(KEYS)] = copy.deepcopy(source.choice(list(config.values()))) if config else 0
    elif place:
        key = source.choice(list(place))
        value = place[key]
        if isinstance(value, list):
            place[key] = source.choice(
                (value * source.randrange(3), [*value, source.choice(ODD)], value[::-1])
            )
        elif isinstance(value, int):
            place[key] = value + source.choice((-2, -1, 1, 2, 10**9))


def _dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True).encode()


def _broken(source: random.Random, text: bytes, *, often: float) -> bytes:
    if source.random() > often:
        return text
    start = source.randrange(len(text) + 1)
    return text[:start] + source.choice(TOKENS) + text[start + source.randrange(3) :]


def _too_long(_signal: int, _frame: Any) -> None:
    raise TimeoutError(f"a run of more than {SECONDS} s of work, or {30 * SECONDS} s in all")


def _peak() -> int:
    """Bytes that this process held at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _listing() -> list[str]:
    """What there is beside the base and in it."""
    return sorted(str(path.relative_to(_place())) for path in _place().rglob("*"))


@cache
def _place() -> Path:
    """A folder for all runs of this process; in memory where that can be, as a disk would be most of the time."""
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@cache
def _models() -> Path:
    """The unchanged models, saved by transformers, outside of what is watched."""
    from transformers.utils import logging

    from tests.tli.registry import rows, tiny

    logging.set_verbosity(logging.CRITICAL)
    root = _place().with_name(f"{_place().name}-models")
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    for model_type in TYPES:
        tiny(model_type, **rows().get(model_type, {}).get("to_grow", {})).save_pretrained(root / model_type)
    return root


if __name__ == "__main__":
    sys.exit(command("configurations of models", run))
