"""Files from outside are read as far as they may be large, and JSON as every reader takes it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tli.json_files import DEEPEST, read_bounded, read_json


def test_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    with pytest.raises(ValueError, match="a file of 5 bytes, larger than 4"):
        read_bounded(path, 4)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path, kind in (
        (Path("/dev/zero"), "a device"),
        (tmp_path / "link", "a device"),
        (tmp_path / "pipe", "a pipe or socket"),
        (tmp_path, "a folder"),
    ):
        with pytest.raises(ValueError, match=f"{kind}, not a file"):
            read_bounded(path, 100)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"a": NaN}', "NaN is no JSON"),
        (b'{"a": [-Infinity]}', "-Infinity is no JSON"),
        (b'{"a": 1e999}', "too large a number"),
        (b'{"a": 1, "a": 2}', "'a' is in it twice"),
        (b'"\\ud800"', "half of a character"),
        (b'{"\\udfff": 1}', "half of a character"),
        (b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1), "levels"),
        (b"[" * 100_000, "levels"),
        (b"9" * 5000, "integer string"),
        (b"\xff", "utf-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"", "Expecting value"),
    ],
)
def test_what_not_every_reader_takes(tmp_path: Path, text: bytes, reason: str) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=reason):
        read_json(path)


def test_what_every_reader_takes(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text('{"a": [1, -2.5e3, "ü\\ud83d\\ude00", null, true], "b": {}}')
    assert read_json(path) == {"a": [1, -2500.0, "ü\U0001f600", None, True], "b": {}}
    path.write_bytes(b"[" * DEEPEST + b"]" * DEEPEST)
    assert read_json(path)


@pytest.mark.parametrize(
    "command",
    [
        ["sweeps", "validate", "/dev/zero"],
        ["tli", "upscale", "builtin:tiny-llama", "out", "--plan", "/dev/zero"],
        ["tli", "inspect", "model"],
    ],
)
def test_commands_hold_to_it(tmp_path: Path, command: list[str]) -> None:
    """In 4 GB of address space, of which torch would take most, and within seconds."""
    (tmp_path / "model").mkdir()
    os.mkfifo(tmp_path / "model/tokenizer_config.json")
    (tmp_path / "model/config.json").symlink_to("/dev/zero")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))

    program = [sys.executable, "-m", *command]
    done = subprocess.run(
        program, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path, preexec_fn=limit
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "/dev/zero" in done.stderr
