"""Foreign text steers no terminal: what is not to be seen is printed as its escape."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tli.terminal import printable

NASTY = "\x1b[2J\x1b]0;owned\x07\r\x9b31m\u202etxt\x7f\udcff"
ESCAPED = r"\x1b[2J\x1b]0;owned\x07\r\x9b31m\u202etxt\x7f\udcff"


@pytest.mark.parametrize("text", ["", "plain", "± … é 模型", "two\nlines\tand a tab", "a\u00a0b"])
def test_what_can_be_seen_stays(text: str) -> None:
    assert printable(text) == text


def test_what_steers_a_terminal_or_cannot_be_encoded_is_shown_as_its_escape() -> None:
    assert printable(f"a {NASTY}\nb") == f"a {ESCAPED}\nb"
    printable(NASTY).encode("utf-8")


def test_a_name_of_a_folder_reaches_no_terminal_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "model\x1b[2J"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tli", "inspect", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert r"model\x1b[2J" in done.stderr
    assert "\x1b" not in done.stderr
