"""Datasets on the hub: a hub of our own, the real client and the real `datasets`, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.hub import Hub
from tests.servers import free_ports
from tli.data import batches
from tli.data.settings import DataSettings
from tli.errors import DataError
from tli.models.base import find

PROGRAM = """
import json, sys
from dataclasses import replace
from pathlib import Path
from tests.hub import Hub
from tli.models.base import find
from tli.data.batches import DataSettings, open_tokens, tokens_ready
from tli.errors import InputError

base, cache, hub = find(sys.argv[1]), Path(sys.argv[2]), Hub()
answers = {}

def tokens(name, **settings):
    settings = DataSettings(**{"source": "team/text", "configuration": "en", **settings})
    try:
        made = open_tokens(settings, base, cache)
        answers[name] = [made.folder.name, settings.pinned(cache).revision, len(made.train) + len(made.heldout) + len(made.test)]
    except InputError as error:
        answers[name] = [f"{problem.where}: {problem.got}" for problem in error.problems]
"""


@pytest.fixture
def answers(tiny_model: Callable[[str], Path], tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """What a program says that begins like the one above."""

    def run(rest: str) -> dict[str, Any]:
        program = tmp_path / "program.py"
        program.write_text(f"{PROGRAM}\n{rest}\nprint(json.dumps(answers))")
        environment = {
            **os.environ,
            "HF_HOME": str(tmp_path / "hf"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_DATASETS_CACHE"):
            environment.pop(name, None)
        port = str(free_ports(1))  # where the program's hub is, while it is there
        environment["HF_ENDPOINT"] = f"http://127.0.0.1:{port}"
        words = [sys.executable, str(program), str(tiny_model("llama")), str(tmp_path / "cache"), port]
        done = subprocess.run(
            words, capture_output=True, text=True, env=environment, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    return run


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """In this process; only asked for commits."""
    constants = pytest.importorskip("huggingface_hub.constants")
    port, made = free_ports(1), Hub()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    with made.at(port):
        yield made


def test_a_name_of_token_files_is_of_a_commit(
    tiny_model: Callable[[str], Path], tmp_path: Path, hub: Hub
) -> None:
    base, settings = find(str(tiny_model("llama"))), DataSettings(source="team/text")
    one = hub.publish({"en": ["one"]})
    first = settings.pinned(tmp_path)
    assert first.revision == one
    two = hub.publish({"en": ["two"]})
    second = settings.pinned(tmp_path)
    assert second.revision == two
    keys = {batches._cache_key(each, base) for each in (first, second, replace(first, configuration="en"))}
    assert len(keys) == 3
    hub.asked.clear()
    assert first.pinned(tmp_path) == first
    assert hub.asked == []
    held = DataSettings(source="team/text", revision=one, heldout="team/text", heldout_split="test")
    assert held.pinned(tmp_path).heldout_revision == one, "the same dataset is at the same commit"


@pytest.mark.parametrize(
    ("asked", "place", "got"),
    [
        ({"source": "team/other"}, "data.source", "not on the hub or private"),
        ({"heldout": "team/other"}, "data.heldout", "not on the hub or private"),
        ({"source": "team/text", "revision": "v9"}, "data.source", "without a revision 'v9'"),
    ],
)
def test_what_the_hub_does_not_have(
    hub: Hub, asked: dict[str, str], place: str, got: str, tmp_path: Path
) -> None:
    hub.publish({"en": ["one"]})
    with pytest.raises(DataError) as caught:
        DataSettings(**asked).pinned(tmp_path)
    (problem,) = caught.value.problems
    assert problem.where == place
    assert got in problem.got


def test_a_hub_that_is_away_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free_ports(1)}")
    started = time.monotonic()
    with pytest.raises(DataError, match="the hub cannot be reached"):
        DataSettings(source="team/text").pinned(tmp_path)
    assert time.monotonic() - started < 20


@pytest.mark.slow
def test_token_files_are_of_a_commit(answers: Callable[[str], dict[str, Any]]) -> None:
    pytest.importorskip("datasets")
    found = answers("""
with hub.at(int(sys.argv[3])):
    one = hub.publish({"en": ["one", "two", "three"], "de": ["eins", "zwei", "drei", "vier"]})
    tokens("first")
    tokens("german", configuration="de")
    tokens("no configuration", configuration=None)
    tokens("no such revision", revision="v9")
    tokens("no such dataset", source="team/other")
    two = hub.publish({"en": ["one", "two", "three", "four"], "de": ["eins"]})
    tokens("moved")
    tokens("pinned", revision=one)
    before = len(hub.asked)
    tokens("pinned", revision=one)
    answers["asked for what is pinned"] = hub.asked[before:]
tokens("away")
tokens("away, another", configuration="fr")
tokens("away, a branch", revision="main")
answers["commits"] = [one, two]
""")
    one, two = found["commits"]
    ends = 3  # an end of text behind each document
    assert found["first"][1:] == [one, len("onetwothree") + ends]
    assert found["german"][1:] == [one, len("einszweidreivier") + 4]
    assert "Config name is missing" in found["no configuration"][0]
    assert found["no such revision"] == ["data.source: 'team/text', without a revision 'v9'"]
    assert found["no such dataset"] == [
        "data.source: 'team/other', no files here, and not on the hub or private"
    ]
    # A dataset that moved has other token files; one that is pinned has not.
    assert found["moved"][1:] == [two, len("onetwothreefour") + 4]
    assert found["moved"][0] != found["first"][0]
    assert found["pinned"][1:] == found["first"][1:]
    assert found["asked for what is pinned"] == []
    # Without the hub: the newest token files, or a refusal at once; nothing that was downloaded of another commit.
    assert found["away"] in (found["moved"], found["pinned"])
    for name in ("away, another", "away, a branch"):
        assert found[name] == ["data.source: 'team/text', no files here, and the hub cannot be reached"]


@pytest.mark.slow
def test_a_commit_that_cannot_be_had_is_not_stood_in_for(answers: Callable[[str], dict[str, Any]]) -> None:
    """The library takes what it downloaded last, of whichever commit, and only logs that."""
    pytest.importorskip("datasets")
    found = answers("""
with hub.at(int(sys.argv[3])):
    one = hub.publish({"en": ["one", "two", "three"]})
    two = hub.publish({"en": ["one", "two", "three", "four"]})
    tokens("second")
tokens("first", revision=one)
answers["commit"] = one
""")
    assert found["second"][2] == len("onetwothreefour") + 4
    assert found["first"] == [
        f"data.source: 'team/text', of which commit {found['commit']} was not downloaded before and cannot be now"
    ]


@pytest.mark.slow
def test_what_was_downloaded_is_enough_offline(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    code = (
        "import sys; from dataclasses import replace; from tli.data.dataset import Source, commit, open_dataset\n"
        "source = Source('team/text', configuration=sys.argv[1]); found = commit(source); print(found)\n"
        "print([row['text'] for row in open_dataset(replace(source, revision=found))] if found else None)"
    )
    port, hub = free_ports(1), Hub()
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": f"http://127.0.0.1:{port}"}

    def run(configuration: str, offline: str) -> list[str]:
        words = [sys.executable, "-c", code, configuration]
        given = {**environment, "HF_HUB_OFFLINE": offline}
        done = subprocess.run(words, capture_output=True, text=True, env=given, check=True, timeout=120)
        return done.stdout.splitlines()

    with hub.at(port):
        made = hub.publish({"en": ["one", "two"], "de": ["eins"]})
        assert run("en", "0") == [made, "['one', 'two']"]
    assert run("en", "1") == [made, "['one', 'two']"]
    assert run("de", "1") == ["None", "None"]
