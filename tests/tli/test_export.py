from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tli.data.batches import Batches
from tli.errors import CheckpointError
from tli.growth.in_memory import grow
from tli.models.base import find
from tli.models.lineage import lineage, read_lineage
from tli.models.loading import load_model
from tli.planning.plan import plan
from tli.training.evaluate import evaluate
from tli.training.export import copy_model, write_model
from tli.training.loop import Training
from tli.training.recipe import Recipe

Tiny = Callable[[str], Path]
PLAN = plan(4, 2)


@pytest.fixture
def written(tiny_model: Tiny, tmp_path: Path) -> Path:
    folder = tiny_model("llama")
    model = grow(load_model(folder), PLAN)
    facts = lineage(find(str(folder)), PLAN, seed=0, extra={"training": {"steps": 0}})
    write_model(model, tmp_path / "written", beside=folder, lineage=facts)
    return tmp_path / "written"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_plain_transformers_has_the_loss_that_was_measured(
    tiny_model: Tiny, tmp_path: Path, model_type: str, precision: str
) -> None:
    """In another process, where nothing of this project is imported."""
    folder = tiny_model(model_type)
    model = grow(load_model(folder), PLAN)
    text = np.random.default_rng(3).integers(0, 8, 105).astype(np.uint16)
    heldout = np.random.default_rng(7).integers(0, 8, (4, 9))
    how = Recipe(tokens=96, batch_tokens=32, learning_rate=1e-2, precision=precision)
    progress = list(Training(model, how, Batches(text, 8, 4, 0), heldout).run([3]))
    facts = lineage(find(str(folder)), PLAN, seed=0, extra={"training": {"steps": 3}})
    write_model(model, tmp_path / "out", beside=folder, lineage=facts)
    np.save(tmp_path / "heldout.npy", heldout)
    if precision == "fp32" and model_type == "llama":
        code = (
            "import sys, numpy, torch\n"
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
            "model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
            "rows = torch.from_numpy(numpy.load(sys.argv[2]))\n"
            "with torch.no_grad(): print(float(model(input_ids=rows, labels=rows).loss))\n"
            "print(model.dtype, len(AutoTokenizer.from_pretrained(sys.argv[1])))\n"
            "assert 'tli' not in sys.modules\n"
        )
        program = [sys.executable, "-c", code, str(tmp_path / "out"), str(tmp_path / "heldout.npy")]
        done = subprocess.run(program, capture_output=True, text=True, check=True, cwd=tmp_path)
        loss, rest = done.stdout.splitlines()
        assert rest == "torch.float32 257"
    else:
        from transformers import AutoModelForCausalLM

        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        rows = torch.from_numpy(heldout)
        with torch.no_grad():
            loss = plain(input_ids=rows, labels=rows).loss
    assert float(loss) == pytest.approx(progress[-1].eval_loss, rel=1e-6)
    assert evaluate(load_model(tmp_path / "out"), heldout).loss == progress[-1].eval_loss


def test_lineage_has_the_digest_of_every_other_file(written: Path) -> None:
    files = read_lineage(written)["files"]
    assert set(files) | {"lineage.json"} == set(contents(written))
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(files)
    for name, digest in files.items():
        assert digest == "sha256:" + hashlib.sha256((written / name).read_bytes()).hexdigest()
        assert (written / name).stat().st_mode & 0o777 == 0o644


def test_same_model_same_bytes(written: Path, tiny_model: Tiny, tmp_path: Path) -> None:
    folder = tiny_model("llama")
    facts = lineage(find(str(folder)), PLAN, seed=0, extra={"training": {"steps": 0}})
    again = tmp_path / "again"
    write_model(grow(load_model(folder), PLAN), again, beside=folder, lineage=facts)
    assert contents(again) == contents(written)


def test_a_copy_is_the_same_but_for_what_its_lineage_is_told(written: Path, tmp_path: Path) -> None:
    copy_model(written, tmp_path / "copy", lineage={"rank": 1})
    before, after = contents(written), contents(tmp_path / "copy")
    told = json.loads(after.pop("lineage.json"))
    assert told == {**json.loads(before.pop("lineage.json")), "rank": 1}
    assert after == before


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_changed_byte_is_refused(written: Path, tmp_path: Path, name: str) -> None:
    content = bytearray((written / name).read_bytes())
    content[-1] ^= 1
    (written / name).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        copy_model(written, tmp_path / "copy")
    (problem,) = caught.value.problems
    assert (problem.where, problem.got) == (str(written / name), "bytes that changed since it was written")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["written"]


def test_a_missing_file_and_missing_digests_are_refused(written: Path, tmp_path: Path) -> None:
    (written / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: got no such file; expected sha256:"):
        copy_model(written, tmp_path / "copy")
    told = read_lineage(written)
    del told["files"]
    (written / "lineage.json").write_text(json.dumps(told))
    with pytest.raises(CheckpointError, match="got no digests in its lineage"):
        copy_model(written, tmp_path / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["written"]


def test_what_exists_is_not_overwritten(written: Path, tmp_path: Path) -> None:
    before = contents(written)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for target in (written, tmp_path / "link"):
        with pytest.raises(CheckpointError, match=r"got something that exists; expected a folder to be made"):
            copy_model(written, target)
    assert contents(written) == before


@pytest.mark.parametrize("place", ["file.txt/best", "file.txt/deep/best", "/proc/best", "/proc/deep/best"])
def test_a_place_that_cannot_be_written_to(written: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "file.txt").write_text("")
    target = tmp_path / place  # an absolute place stays itself
    with pytest.raises(CheckpointError) as caught:
        copy_model(written, target)
    (problem,) = caught.value.problems
    assert problem.where == str(target)
    assert problem.got.startswith("a place that cannot be written to (")
    assert problem.expected == "a place to write to"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.txt", "written"]


def test_an_error_in_the_middle_leaves_nothing(tiny_model: Tiny, tmp_path: Path) -> None:
    folder = tiny_model("llama")
    with pytest.raises(TypeError):  # the weights are written, the lineage cannot be
        write_model(load_model(folder), tmp_path / "out", beside=folder, lineage={"a": object()})
    assert list(tmp_path.iterdir()) == []


def test_killed_in_the_middle_leaves_no_folder_and_the_next_run_tidies_up(
    written: Path, tmp_path: Path
) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom tli.training import export\n"
        "def slow(folder, lineage):\n"
        "    print('written', flush=True)\n"
        "    time.sleep(60)\n"
        "export._seal = slow\n"
        "export.copy_model(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    target = tmp_path / "copy"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(written), str(target)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        os.kill(process.pid, signal.SIGKILL)
    assert not target.exists()
    assert any(path.name == f".copy.tmp-{process.pid}" for path in tmp_path.iterdir())
    copy_model(written, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "written"]
    assert contents(target) == contents(written)


def test_nothing_is_copied_to_where_a_received_lineage_leads(written: Path, tmp_path: Path) -> None:
    """Names that lead out, links, odd types: refused, and neither the target nor a file of the user's is touched."""
    home, told = tmp_path / "home", json.loads((written / "lineage.json").read_text())
    (home / "out").parent.mkdir()
    (home / ".bashrc").write_text("mine")
    (tmp_path / ".bashrc").write_text("theirs")
    digest = "sha256:" + hashlib.sha256(b"theirs").hexdigest()
    (written / "link").symlink_to(tmp_path / ".bashrc")
    (written / "folder").symlink_to(tmp_path)
    odd: list[Any] = [
        {"../.bashrc": digest}, {"../.bashrc": "sha256:" + "0" * 64}, {str(tmp_path / ".bashrc"): digest},
        {"a/../../.bashrc": digest}, {"folder/.bashrc": digest}, {"link": digest}, {"..": digest}, {"": digest}, {"\ud800": digest},
        {"lineage.json": digest}, {"a\\b": digest}, {"config.json": 5}, {"config.json": "md5:0"},
        ["config.json"], 5, None, {}, "config.json",
    ]  # fmt: skip
    for files in odd:
        more = {**told["files"], **files} if isinstance(files, dict) and files else files
        (written / "lineage.json").write_text(json.dumps({**told, "files": more}))
        with pytest.raises(CheckpointError):
            copy_model(written, home / "out")
        assert sorted(path.name for path in home.iterdir()) == [".bashrc"], files
        assert (home / ".bashrc").read_text() == "mine", files


def test_a_file_in_a_folder_beside_the_weights_is_copied(written: Path, tmp_path: Path) -> None:
    (written / "more").mkdir()
    (written / "more" / "a.jinja").write_text("text")
    told = json.loads((written / "lineage.json").read_text())
    told["files"]["more/a.jinja"] = "sha256:" + hashlib.sha256(b"text").hexdigest()
    (written / "lineage.json").write_text(json.dumps(told))
    copy_model(written, tmp_path / "out")
    assert (tmp_path / "out/more/a.jinja").read_text() == "text"
    assert read_lineage(tmp_path / "out")["files"] == told["files"]
