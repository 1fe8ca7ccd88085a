from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tli.cli.commands import main
from tli.planning.plan import Plan, plan

Tiny = Callable[[str], Path]
Save = Callable[..., Path]
Outcome = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tli(capsys: pytest.CaptureFixture[str]) -> Outcome:
    """`tli("plan", "--depth", 8)` -> (exit code, output, errors)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        return code, *capsys.readouterr()

    return run


def test_plan_shows_the_new_stack(tli: Outcome) -> None:
    code, out, _ = tli("plan", "--depth", 8, "--k", 3)
    assert code == 0
    assert out.splitlines() == [
        "8 -> 11 layers: one new layer (identity) after every 3; the last set is shorter (2 of 3)",
        "new stack: 0 1 2 [2] 3 4 5 [5] 6 7 [7]",
    ]


def test_plan_of_a_model_adds_its_parameters(tli: Outcome) -> None:
    code, out, _ = tli("plan", "builtin:tiny-llama", "--k", 8)
    assert code == 0
    assert out.splitlines()[-1] == "parameters: 1,837,184 -> 2,034,048 (+10.7%)"


def test_plan_as_json_is_a_plan(tli: Outcome) -> None:
    value = json.loads(tli("plan", "--depth", 8, "--k", 4, "--init", "copy", "--json")[1])
    assert Plan.from_json(value) == plan(8, 4, init="copy")
    value = json.loads(tli("plan", "builtin:tiny-llama", "--json")[1])
    assert Plan.from_json(value) == plan(8, 4)
    assert value["injected_parameters"] == 2 * 196_864
    control = json.loads(tli("plan", "builtin:tiny-llama", "--method", "none", "--json")[1])
    assert Plan.from_json(control) == plan(8, method="none")


def test_inspect(tli: Outcome, tiny_model: Tiny, save_model: Save, tmp_path: Path) -> None:
    code, out, _ = tli("inspect", tiny_model("gpt2"))
    assert code == 0
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert facts["model_type"] == "gpt2"
    assert facts["upscaling"] == "yes"
    scaled = save_model(tmp_path / "scaled", "gpt2", scale_attn_by_inverse_layer_idx=True)
    value = json.loads(tli("inspect", scaled, "--json", "--fingerprint")[1])
    assert "layers behind a new one would change" in value["upscaling"]
    assert len(value["fingerprint"]) == 64
    refused = tli("plan", scaled, "--k", 2)
    assert refused[0] == 2
    assert "layers behind a new one would change" in refused[2]


def test_upscale_then_verify_then_load(
    tli: Outcome, tiny_model: Tiny, tmp_path: Path, tokens: torch.Tensor
) -> None:
    out = tmp_path / "out"
    code, printed, told = tli("upscale", tiny_model("llama"), out, "--k", 2, "--verify")
    assert code == 0
    assert f"{out}: 4 -> 6 layers: one new layer (identity) after every 2; " in told
    assert [line.split()[0] for line in printed.splitlines()] == ["ok"] * 9
    code, printed, _ = tli("verify", out, "--json")
    assert code == 0
    assert json.loads(printed)["ok"] is True
    assert "lineage" in json.loads(tli("inspect", out, "--json")[1])
    base, grown = (AutoModelForCausalLM.from_pretrained(path).eval() for path in (tiny_model("llama"), out))
    with torch.no_grad():
        assert torch.equal(grown(tokens).logits, base(tokens).logits)
    assert grown.generate(tokens, max_new_tokens=4, min_new_tokens=4, pad_token_id=0).shape == (2, 16)


def test_settings_reach_the_plan(tli: Outcome, tiny_model: Tiny, tmp_path: Path) -> None:
    settings = ["--k", 3, "--init", "damped", "--scale", 0.25, "--seed", 9]
    assert tli("upscale", tiny_model("llama"), tmp_path / "out", *settings)[0] == 0
    told = json.loads((tmp_path / "out/lineage.json").read_text())
    assert Plan.from_json(told["plan"]) == plan(4, 3, init="damped", scale=0.25)
    assert told["seed"] == 9


@pytest.mark.parametrize(
    ("options", "depth", "preserves"),
    [
        ("--k 2", 6, True),
        ("--k 2 --place start --init damped --scale 1/sqrt(n)", 6, False),
        ("--k 2 --place middle --layers 2:", 5, True),
        ("--after 0,2 --source next", 6, True),
        ("--after 1 --block 2 --init copy", 6, False),
        ("--k 1 --least-important-sets 2 --init mean --text TEXT", 6, False),
        ("--k 4 --init slerp --noise 0.01", 5, False),
        ("--k 4 --init aligned --scale 0", 5, True),
        ("--k 4 --init predicted", 5, False),
        ("--k 4 --init random", 5, False),
        ("--method dus --m 1", 6, False),
        ("--method stack --g 2 --init identity", 8, True),
        ("--method repeat --layers 1:3 --g 3", 8, False),
        ("--method moe --experts 4 --top-k 2", 4, True),
        ("--method moe --drop 0.5", 4, False),
        ("--k 4 --experts 4 --granularity 2", 5, True),
    ],
)
def test_each_method_round_trips_through_transformers(
    tli: Outcome,
    tiny_model: Tiny,
    tmp_path: Path,
    tokens: torch.Tensor,
    options: str,
    depth: int,
    preserves: bool,
) -> None:
    (tmp_path / "text.txt").write_text("a text to measure on, long enough for a sequence or two of it. " * 8)
    given = options.replace("TEXT", str(tmp_path / "text.txt")).split()
    base, out = tiny_model("mistral"), tmp_path / "out"
    code, printed, told = tli("upscale", base, out, *given, "--verify")
    assert code == 0, told
    assert not [line for line in printed.splitlines() if not line.startswith("ok ")]
    grown, original = (AutoModelForCausalLM.from_pretrained(path).eval() for path in (out, base))
    assert grown.config.num_hidden_layers == depth
    with torch.no_grad():
        close = torch.allclose(grown(tokens).logits, original(tokens).logits, atol=1e-4)
    assert close == preserves
    grown.save_pretrained(tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again").eval()
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, grown(tokens).logits)


def test_a_saved_plan_gives_the_same_bytes(tli: Outcome, tiny_model: Tiny, tmp_path: Path) -> None:
    base, saved = tiny_model("llama"), tmp_path / "plan.json"
    options = ["--method", "dus", "--m", 1, "--init", "damped", "--scale", "1/n"]
    assert tli("plan", base, *options, "--save", saved)[0] == 0
    assert tli("plan", base, *options, "--save", saved)[0] == 0, "a plan may be replaced"
    notes = tmp_path / "notes.json"
    notes.write_text('{"mine": 1}')
    assert tli("plan", base, *options, "--save", str(notes))[0] == 2
    assert notes.read_text() == '{"mine": 1}'
    assert tli("upscale", base, tmp_path / "one", "--plan", saved)[0] == 0
    assert tli("upscale", base, tmp_path / "two", *options)[0] == 0
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
    assert tli("verify", tmp_path / "one")[0] == 0


def test_sets_are_measured(tli: Outcome, tiny_model: Tiny, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("a text to measure on, long enough for a sequence or two of the tiny model. " * 8)
    code, printed, _ = tli(
        "plan", tiny_model("llama"), "--k", 1, "--least-important-sets", 2, "--text", text, "--json"
    )
    told = json.loads(printed)
    assert code == 0
    least = sorted(sorted(range(4), key=lambda layer: told["block_influence"][layer])[:2])
    assert [told["sources"][position] for position in told["injected"]] == least
    assert (
        "change of the hidden state: 0."
        in tli("plan", tiny_model("llama"), "--least-important-sets", 1, "--text", text)[1]
    )


def test_the_titles_stand_above_their_columns(tli: Outcome) -> None:
    for words in (("families", "llama"), ("families",)):
        title, row = tli(*words)[1].splitlines()[:2]
        assert row[title.index("grows") :].split()[0] in ("yes", "no")


def test_families_are_listed(tli: Outcome) -> None:
    code, printed, _ = tli("families")
    lines = printed.splitlines()
    assert code == 0
    assert re.fullmatch(r"\d+ architectures: \d+ can be grown, \d+ of them by identity", lines[-1])
    assert len(lines) == 3 + int(lines[-1].split()[0])
    rows = {
        row["model_type"]: row
        for row in json.loads(tli("families", "llama", "bert", "xlm", "--json")[1])["architectures"]
    }
    assert rows["llama"] == {"model_type": "llama", "grows": True, "identity": "zero-output", "reason": ""}
    assert (rows["bert"]["grows"], rows["bert"]["identity"]) == (True, "no")
    assert (rows["xlm"]["grows"], rows["xlm"]["reason"]) == (False, "its layers are spread over four lists")


def test_a_failed_verification_ends_with_one(tli: Outcome, tiny_model: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert tli("upscale", tiny_model("llama"), out, "--k", 2)[0] == 0
    weights = bytearray((out / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (out / "model.safetensors").write_bytes(weights)
    code, printed, error = tli("verify", out, "--no-load")
    assert code == 1
    assert "FAILED  tensors" in printed
    assert error.startswith(f"error: {out}: tensors: ")
    assert len(error.splitlines()) == 1
    code, printed, _ = tli("verify", out, "--no-load", "--json")
    assert code == 1
    assert json.loads(printed)["ok"] is False


def test_verify_with_the_base_elsewhere(tli: Outcome, tiny_model: Tiny, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.symlink_to(tiny_model("llama"))
    out = tmp_path / "out"
    assert tli("upscale", base, out, "--k", 2)[0] == 0
    base.unlink()
    code, _, error = tli("verify", out, "--no-load")
    assert code == 2
    assert error.splitlines()[-1] == (
        f"error: {out}/lineage.json: base: got '{base}', which cannot be used from here;"
        " expected the base model; try --base FOLDER"
    )
    assert tli("verify", out, "--no-load", "--base", tiny_model("llama"))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "errors"),
    [
        (["plan"], ["plan: got neither a model nor --depth; expected one of them; try tli plan builtin:tiny-llama"]),
        (["plan", "x", "--depth", "3"], ["plan: got both a model and --depth; expected one of them; try tli plan builtin:tiny-llama"]),
        (["plan", "--depth", "0"], ["--depth: got 0; expected a model of at least 1 layer"]),
        (["plan", "--depth", "8", "--k", "9"], ["--k: got 9; expected at most 8, the model's number of layers; try 8"]),
        (["plan", "--depth", "8", "--k", "four"], ["argument --k: invalid int value: 'four'; try tli plan -h"]),
        (["plan", "--depth", "8", "--init", "idenity"], ["--init: got 'idenity'; expected one of copy, identity, damped, mean, slerp, aligned, predicted, random; try identity"]),
        (["plan", "--depth", "8", "--method", "tly"], ["--method: got 'tly'; expected one of tli, dus, stack, repeat, moe, none; try tli"]),
        (["plan", "--depth", "8", "--m", "2", "--g", "3"], ["--m: got 2; expected none, as the method tli does not read it; try --method dus", "--g: got 3; expected none, as the method tli does not read it; try --method stack"]),
        (["plan", "--depth", "8", "--k", "2", "--after", "3", "--layers", "0:4"], ["--k: got 2; expected none beside after, which names every place; try one of them", "--layers: got 0:4; expected none beside after, which names every place; try one of them"]),
        (["plan", "--depth", "8", "--sets", "1"], ["--sets is called --least-important-sets now; try tli plan -h"]),
        (["plan", "--depth", "8", "--least-important-sets", "1"], ["--least-important-sets: got no model; expected one to measure; try naming it"]),
        (["plan", "--depth", "8", "--experts", "1", "--expert-noise", "-1"], ["--experts: got 1; expected at least 2 experts, or null for none; try 8", "--expert-noise: got -1.0; expected a number of at least 0; try 1"]),
        (["upscale", "builtin:tiny-llama", "out", "--plan", "none.json", "--k", "2"], ["--plan: got k too; expected a plan, or settings for one", "none.json: got no JSON (No such file or directory); expected a plan; try tli plan --save"]),
        (["plan", "--depth", "8", "--kk", "3"], ["unrecognized arguments: --kk; did you mean --k?; try tli plan -h"]),
        (["families", "qwen33"], ["model_type: got 'qwen33'; expected one that `tli families` lists; try qwen3"]),
        (["plna"], ["argument COMMAND: invalid choice: 'plna' (choose from plan, upscale, verify, inspect, families, eval); did you mean plan?; try tli -h"]),
        ([], ["the following arguments are required: COMMAND; try tli -h"]),
        (["inspect", "./nowhere"], ["model: got './nowhere', which does not exist; expected a folder, a hub id or the built-in model; try builtin:tiny-llama"]),
        (["verify", "./nowhere"], ["nowhere: got no lineage.json; expected a folder written by `tli upscale`, with its lineage.json"]),
        (
            ["upscale", "./nowhere", ".", "--k", "0", "--init", "x", "--scale", "2", "--place", "y"],
            [
                ".: got something that exists; expected a folder to be made; try another name, or removing it",
                "model: got './nowhere', which does not exist; expected a folder, a hub id or the built-in model; try builtin:tiny-llama",
                "--init: got 'x'; expected one of copy, identity, damped, mean, slerp, aligned, predicted, random",
                "--place: got 'y'; expected one of end, start, middle",
                "--k: got 0; expected at least 1 layer per set; try 1",
                "--scale: got 2.0; expected a residual scale between 0 and 1, or 1/n or 1/sqrt(n); try 0.5",
            ],
        ),
    ],
)  # fmt: skip
def test_bad_input(
    tli: Outcome,
    arguments: list[str],
    errors: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, told = tli(*arguments)
    assert code == 2
    assert out == ""
    told = re.sub(r"'(\w+)'(?=[,)])", r"\1", told) if "COMMAND" in told else told
    assert told.splitlines() == [f"error: {error}" for error in errors]
    assert not list(tmp_path.iterdir())


def test_an_error_answers_programs_too(tli: Outcome) -> None:
    code, out, told = tli("plan", "--depth", "8", "--k", "9", "--m", "2", "--json")
    problem = {
        "file": None,
        "line": None,
        "column": None,
        "path": "--m",
        "got": "2",
        "expected": "none, as the method tli does not read it",
        "try": "--method dus",
    }
    assert (code, json.loads(out)["problems"]) == (2, [problem])
    assert told.startswith("error: --m: got 2")
    code, out, _ = tli("plan", "--kk", "--json")
    assert (code, json.loads(out)["error"]) == (
        2,
        "unrecognized arguments: --kk; did you mean --k?; try tli plan -h",
    )


@pytest.mark.parametrize(
    ("words", "place", "got", "expected"),
    [
        ("plan --kk", "--kk", "words that this command does not know", "its options"),
        ("plan --k x", "--k", "'x'", "a whole number"),
        ("plan --noise x", "--noise", "'x'", "a number"),
        ("upscale m", "DST", "nothing", "a value for each"),
        ("plna", "COMMAND", "'plna'", "one of 'plan', 'upscale', 'verify', 'inspect', 'families'"),
        ("plan --k", "--k", "expected one argument", "what its help says"),
    ],
)
def test_words_that_are_no_command_are_problems_too(
    words: str, place: str, got: str, expected: str, tli: Outcome
) -> None:
    code, out, _ = tli(*words.split(), "--json")
    (problem,) = json.loads(out)["problems"]
    known = (
        re.sub(r"(?<=[ (])(\w+)(?=,|$)", r"'\1'", problem["expected"]) if "one of" in expected else expected
    )
    assert (code, problem["path"], problem["got"].strip("'"), problem["expected"]) in (
        (2, place, got.strip("'"), expected),
        (2, place, got.strip("'"), known.replace("'", "")),  # Python 3.12 and later quote no choices
    )
    assert problem["try"] in ("--k", "plan") or problem["try"].startswith("tli ")


@pytest.mark.parametrize(
    "words",
    [
        "upscale builtin:tiny-llama {} --k 4",
        "upscale builtin:tiny-llama x --plan {}",
        "plan builtin:tiny-llama --save {}",
        "verify {}",
        "verify x --base {}",
        "inspect {}",
    ],
)
def test_the_home_folder_of_no_user_is_no_folder(
    words: str, tli: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if "--base" in words:
        tli("upscale", "builtin:tiny-llama", "x", "--k", "4")
    before = list(tmp_path.iterdir())
    code, _, told = tli(*words.format("~nobody-of-this-name/x").split())
    assert code == 2
    assert told.count("'~nobody-of-this-name' is no home folder here; expected a path; try ./~nobody-of") == 1
    assert list(tmp_path.iterdir()) == before


def test_a_home_folder_that_no_shell_has_replaced(
    tli: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tli("plan", "--depth", "8", "--save=~/plan.json")[0] == 0
    assert (tmp_path / "plan.json").is_file()


def test_a_closed_pipe_a_full_disk_and_a_terminal_of_ascii() -> None:
    command = [sys.executable, "-m", "tli", "families"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    code = (
        "import sys; from tli.cli.console import run_command; sys.exit(run_command(lambda: print('1 ± 2')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ascii_only, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1 ? 2\n"


@pytest.mark.parametrize("command", ["plan", "upscale", "verify", "inspect"])
def test_help_teaches_by_example(tli: Outcome, command: str) -> None:
    code, out, _ = tli(command, "-h")
    assert code == 0
    assert f"example:\n  tli {command} " in out


def test_the_example_of_upscale_works_as_typed(
    tli: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = tli("upscale", "-h")[1].partition("example:\n")[2].strip()
    for program, *words in map(shlex.split, shown.splitlines()):
        if program == "tli":
            assert tli(*words)[0] == 0
        else:
            assert (program, words[0]) == ("python", "-c")
            exec(words[1], {})
    assert (tmp_path / "deeper/config.json").is_file()


@pytest.mark.parametrize(
    "arguments",
    [["-h"], ["plan", "--depth", "8"], ["plan", "builtin:tiny-llama"], ["inspect", "builtin:tiny-llama"]],
)
def test_answers_come_without_torch_and_fast(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from tli.cli.commands import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'numpy', 'huggingface_hub', 'safetensors'} & set(sys.modules)"
    )
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, cwd=tmp_path, capture_output=True)
    assert time.monotonic() - started < 2


def test_an_unwritable_place_is_no_traceback(tli: Outcome, tiny_model: Tiny, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, error = tli("upscale", tiny_model("llama"), tmp_path / "file/out", "--k", 2)
    assert code == 2
    place = f"{tmp_path}/file/out"
    assert error.splitlines()[-1].startswith(f"error: {place}: got a place that cannot be written to (")


def test_as_a_program(tiny_model: Tiny, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    program = [
        sys.executable,
        "-m",
        "tli",
        "upscale",
        str(tiny_model("qwen3")),
        str(tmp_path / "out"),
        "--k",
        "3",
    ]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
