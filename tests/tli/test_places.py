from __future__ import annotations

import os
from pathlib import Path

import pytest

from tli.errors import InputError
from tli.files import reader
from tli.places import expanded, is_address, masked_userinfo, means_null


def test_a_home_folder_that_is_there_and_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/runs", "x") == tmp_path / "runs"
    assert expanded(Path("a/~b"), "x") == Path("a/~b")
    with pytest.raises(InputError) as caught:
        expanded("~nobody-of-this-name/x", "storage.artifacts")
    (problem,) = caught.value.problems
    assert problem.where == "storage.artifacts"
    assert "'~nobody-of-this-name'" in problem.got
    assert problem.remedy.startswith("./~nobody-of-this-name/x")
    named = expanded("./~nobody-of-this-name/x", "x")  # as the remedy says, also when it is read once more
    assert expanded(named, "x") == Path.cwd() / "~nobody-of-this-name/x"


@pytest.mark.parametrize(
    "address",
    [
        "https://user:CANARY@host/x.jsonl",
        "https://CANARY@host/x",
        "s3://key:CANARY/with/slash@bucket/x",
        "https://user@corp:CANARY@host",
        "https://u:CANARY 'with \"blanks@host/x",
        "https://host/x?token=CANARY&b=1",
        "https://host/x?a=1&X-Amz-Signature=CANARY",
        "cannot open https://u:CANARY@host/x: denied",
    ],
)
def test_no_password_of_an_address_is_shown(address: str) -> None:
    shown = masked_userinfo(address)
    assert "CANARY" not in shown
    assert "with" not in shown.replace("with/slash", "")
    assert "://" in shown


@pytest.mark.parametrize("text", ["owner/name", "a b@c", "/path/x?token=1", "https://host/path/x.txt"])
def test_what_has_no_secret_stays(text: str) -> None:
    assert masked_userinfo(text) == text


def test_addresses() -> None:
    assert is_address("s3://bucket/x")
    assert not is_address("owner/name")
    assert not is_address("C:/x")


@pytest.mark.parametrize("word", ["none", "None", "NULL", " nil ", "false"])
def test_words_for_nothing(word: str) -> None:
    assert means_null(word)
    assert not means_null(f"./{word}")


def test_what_may_have_no_end_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError):
            reader(path)
    (tmp_path / "file").write_bytes(b"abc")
    with reader(tmp_path / "file") as file:
        assert file.read() == b"abc"
