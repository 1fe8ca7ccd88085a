"""What belongs to a model goes where the model goes: by download, upscaling and export; and `tli verify` sees to it."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tli.errors import CheckpointError
from tli.growth.in_memory import grow
from tli.growth.on_disk import upscale_folder
from tli.growth.verify import verify_folder
from tli.models.base import find
from tli.models.lineage import lineage
from tli.models.loading import load_model
from tli.models.model_files import TOKENIZER_FILES, belongs, side_files, tokenizer_files
from tli.planning.plan import plan
from tli.training.export import copy_model, write_model

PLAN = plan(4, 2, init="identity")
TEMPLATE = "additional_chat_templates/tool_use.jinja"
BELONGS = {
    "LICENSE": "licence",
    "LICENSE-MODEL.txt": "licence",
    "NOTICE": "notice",
    "USE_POLICY.md": "policy",
    "chat_template.jinja": "{{ messages[0].content }}",
    TEMPLATE: "TOOLS {{ messages[0].content }}",
    "preprocessor_config.json": '{"image_processor_type": "Gemma3ImageProcessor"}',
    "processor_config.json": '{"processor_class": "Gemma3Processor"}',
    "video_preprocessor_config.json": "{}",
    "chat_template.json": '{"chat_template": "x"}',
    "generation_config.json": '{"temperature": 0.5, "do_sample": true}',
    "vocab.json": '{"a": 0}',
    "merges.txt": "#version: 0.2",
    "added_tokens.json": "{}",
    "special_tokens_map.json": "{}",
    "qwen.tiktoken": "YQ== 0",
}
DESCRIBES_THE_OLD = {
    "README.md": "a model of 4 layers",
    "params.json": '{"n_layers": 4}',
    "config.4.0.0.json": '{"num_hidden_layers": 4}',
    "old_config.json": '{"num_hidden_layers": 4}',
    "model.safetensors.index.json": '{"weight_map": {}}',
    "pytorch_model.bin.index.json": "{}",
    "pytorch_model.bin": "pickle",
    "consolidated.safetensors": "weights",
    "model.gguf": "weights",
    "optimizer.pt": "pickle",
    "scheduler.pt": "pickle",
    "rng_state.pth": "pickle",
    "training_args.bin": "pickle",
    "trainer_state.json": "{}",
    "all_results.json": "{}",
    "training.json": "{}",
    "hf_quant_config.json": "{}",
    "modeling_own.py": "raise SystemExit('code')",
    "original/params.json": '{"n_layers": 4}',
    "custom_generate/generate.py": "raise SystemExit('code')",
}


@pytest.fixture
def base(tiny_model: Callable[[str], Path], tmp_path: Path) -> Path:
    """A model with everything that may lie beside one."""
    folder = tmp_path / "base"
    shutil.copytree(tiny_model("llama"), folder)
    for name, text in {**BELONGS, **DESCRIBES_THE_OLD}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def exported(base: Path, target: Path) -> None:
    facts = lineage(find(str(base)), PLAN, seed=0, extra={"training": {"steps": 0}})
    kept = target.with_name("kept")
    write_model(grow(load_model(base), PLAN), kept, beside=base, lineage=facts)
    copy_model(kept, target)


def upscaled(base: Path, target: Path) -> None:
    upscale_folder(base, target, PLAN)


@pytest.mark.parametrize("write", [upscaled, exported])
def test_all_that_belongs_to_it_and_nothing_that_describes_the_old_one(
    base: Path, tmp_path: Path, write: Callable[[Path, Path], None]
) -> None:
    from transformers import AutoTokenizer

    write(base, tmp_path / "grown")
    there = names(tmp_path / "grown")
    expected = {*BELONGS, "tokenizer.json", "tokenizer_config.json"}
    assert there == expected | {"config.json", "model.safetensors", "lineage.json"}
    for name in expected:
        assert (tmp_path / "grown" / name).read_bytes() == (base / name).read_bytes(), name
    templates = AutoTokenizer.from_pretrained(tmp_path / "grown").chat_template
    assert templates == {"default": BELONGS["chat_template.jinja"], "tool_use": BELONGS[TEMPLATE]}
    assert verify_folder(tmp_path / "grown", find(str(base)), load=False).ok


@pytest.mark.parametrize("change", ["missing", "differs"])
@pytest.mark.parametrize("name", ["LICENSE", TEMPLATE, "tokenizer.json"])
def test_verify_sees_to_it(base: Path, tmp_path: Path, name: str, change: str) -> None:
    upscaled(base, tmp_path / "grown")
    path = tmp_path / "grown" / name
    path.unlink() if change == "missing" else path.write_text("other")
    (check,) = (
        check
        for check in verify_folder(tmp_path / "grown", find(str(base)), load=False).checks
        if not check.ok
    )
    assert check.name == "beside"
    assert check.detail.startswith(f"{name} {change if change == 'differs' else 'is missing'}")


def test_code_belongs_to_a_model_that_may_bring_some(base: Path, tmp_path: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "modeling_own.Own"}}))
    upscale_folder(find(str(base), allow_remote_code=True), tmp_path / "grown", PLAN)
    assert {"modeling_own.py", "custom_generate/generate.py"} <= names(tmp_path / "grown")


@pytest.mark.parametrize(
    "name", ["LICENSE", TEMPLATE, "config.json", "model.safetensors", "tokenizer.json", "modeling_own.py"]
)
def test_links_out_of_the_folder_are_refused(base: Path, tmp_path: Path, name: str) -> None:
    """Their content would be copied into a folder that is meant to be published."""
    private = tmp_path / "private"
    (base / name).rename(private)
    (base / name).symlink_to(private)
    with pytest.raises(CheckpointError) as caught:
        find(str(base))
    told = [(problem.where, problem.got) for problem in caught.value.problems]
    assert told == [(str(base / name), f"a link to {private}")]


def test_a_shard_or_an_index_that_is_a_link_out_is_refused(
    save_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = save_model(tmp_path / "model", shard="20KB")
    shard = next(iter(sorted(folder.glob("model-*"))))
    for path in (shard, folder / "model.safetensors.index.json"):
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
        with pytest.raises(CheckpointError, match=f"{path.name}: got a link to {tmp_path / path.name}"):
            find(str(folder))
        path.unlink()
        (tmp_path / path.name).rename(path)
    assert find(str(folder)).facts.depth == 4


def test_a_folder_of_links_is_refused_and_its_content_not_read(base: Path, tmp_path: Path) -> None:
    (base / "config.json").unlink()
    (base / "config.json").symlink_to("/etc/passwd")
    with pytest.raises(CheckpointError) as caught:
        find(str(base))
    assert "root:" not in str(caught.value)


def test_a_tokenizer_larger_than_any(base: Path) -> None:
    (base / "LICENSE").write_bytes(b"")
    for name in ("LICENSE", "merges.txt"):
        os.truncate(base / name, 10**12)  # it takes no room
    with pytest.raises(CheckpointError) as caught:
        find(str(base))
    (problem,) = caught.value.problems
    assert problem.where == str(base / "merges.txt")
    assert problem.got == "a file of 1,000,000,000,000 bytes"


@pytest.mark.parametrize("target", ["nothing", "LICENSE", "original"])
def test_a_link_to_no_file(base: Path, target: str) -> None:
    (base / "LICENSE").unlink()
    (base / "LICENSE").symlink_to(target)
    with pytest.raises(CheckpointError, match="LICENSE: got a link to no file"):
        find(str(base))


def test_links_within_the_folder_and_the_store_of_the_hub_are_followed(base: Path, tmp_path: Path) -> None:
    (base / "LICENSE").rename(base / "original/LICENSE")
    (base / "LICENSE").symlink_to("original/LICENSE")
    upscaled(base, tmp_path / "grown")
    assert (tmp_path / "grown/LICENSE").read_text() == "licence"
    assert not (tmp_path / "grown/LICENSE").is_symlink()
    (base / "LICENSE").unlink()
    (base / "original/LICENSE").rename(base / "LICENSE")
    store = tmp_path / "models--org--name"
    (store / "blobs").mkdir(parents=True)
    snapshot = store / "snapshots/0123"
    for number, name in enumerate(sorted(names(base))):
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).rename(store / f"blobs/{number}")
        (snapshot / name).symlink_to("../" * (2 + name.count("/")) + f"blobs/{number}")
    assert find(str(snapshot)).facts.depth == 4
    (snapshot / "NOTICE").unlink()
    (snapshot / "NOTICE").symlink_to(tmp_path / "grown/NOTICE")
    with pytest.raises(CheckpointError, match="NOTICE: got a link to"):
        find(str(snapshot))


def test_every_file_that_a_tokenizer_of_transformers_reads_is_one_of_the_tokenizer(tmp_path: Path) -> None:
    """By the tables of the installed transformers, read from their source."""
    import transformers

    sources = [*Path(transformers.__path__[0]).glob("tokenization*.py")]
    sources += Path(transformers.__path__[0]).glob("models/*/tokenization*.py")
    read = set(TOKENIZER_FILES)
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assign) and "VOCAB_FILES_NAMES" in ast.unparse(node.targets[0]).upper():
                read |= {item.value for item in ast.walk(node.value) if isinstance(item, ast.Constant)}
    files = {name for name in read if isinstance(name, str) and "." in name}
    assert len(files) > 15
    for name in files:
        (tmp_path / name).touch()
    assert {path.name for path in tokenizer_files(tmp_path)} == files
    assert set(side_files(tmp_path)) == files


@pytest.mark.parametrize(
    "name", ["../LICENSE", "a/b.json", "additional_chat_templates/a/b.jinja", "/etc/x.json"]
)
def test_a_name_elsewhere_does_not_belong(name: str) -> None:
    assert not belongs(name, code=True)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(save_model: Callable[..., Path], tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A hub with one model in shards: its address, the model's folder, and the names of the files it sent."""
    folder = save_model(tmp_path / "on-the-hub", shard="20KB")
    for name, text in {**BELONGS, **DESCRIBES_THE_OLD}.items():
        if name != "model.safetensors.index.json":
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
    sent: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            name = path.partition(f"/resolve/{COMMIT}/")[2]
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{name}"'}
            if path.startswith("/api/models/team/small/tree"):
                files = sorted(names(folder))
                content = json.dumps(
                    [{"type": "file", "path": each, "oid": each, "size": 1} for each in files]
                ).encode()
                headers["Content-Type"] = "application/json"
            elif path.startswith("/api/models/team/small"):
                siblings = [{"rfilename": each} for each in sorted(names(folder))]
                told: dict[str, Any] = {"id": "team/small", "sha": COMMIT, "siblings": siblings}
                content = json.dumps(told).encode()
                headers["Content-Type"] = "application/json"
            elif (folder / name).is_file():
                content = (folder / name).read_bytes()
                sent.extend([name] if body else [])
            else:
                self.send_error(404)
                return
            self.send_response(200)
            for header, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(header, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", folder, sent
        server.shutdown()


def downloaded(address: str, cache: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; from tli.models.base import find; print(find('team/small').folder)"
    environment = {
        "HF_ENDPOINT": address,
        "HF_HOME": str(cache),
        "PATH": "",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    program = [sys.executable, "-c", code]
    return subprocess.run(program, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_a_download_has_all_that_belongs_to_it_and_no_other_weights(
    hub: tuple[str, Path, list[str]], tmp_path: Path
) -> None:
    address, folder, sent = hub
    done = downloaded(address, tmp_path / "hf")
    assert done.returncode == 0, done.stderr
    shards = {path.name for path in folder.glob("model-*.safetensors")}
    assert len(shards) > 2
    wanted = {
        *BELONGS,
        *shards,
        "README.md",  # names the licence
        "config.json",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    there = names(Path(done.stdout.strip()))
    assert there == wanted | {"old_config.json"}, "what it says of its depth is known when it is there"
    assert set(sent) == there
    assert set(side_files(Path(done.stdout.strip()))) == {*BELONGS, "tokenizer.json", "tokenizer_config.json"}


def test_an_adapter_beside_is_refused_before_weights_are_downloaded(
    hub: tuple[str, Path, list[str]], tmp_path: Path
) -> None:
    address, folder, sent = hub
    (folder / "adapter_config.json").write_text("{}")
    done = downloaded(address, tmp_path / "hf")
    assert "team/small: adapter_config.json: got an adapter beside a model" in done.stderr
    assert not [name for name in sent if name.endswith(".safetensors")]
