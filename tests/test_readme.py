"""Every command and snippet of the README, run as pasted and in order, in a copy of the checkout.

Only the packaged quickstart is smaller there, `make sweep` is the command that the Makefile has for it, and
`make test`, which runs this, is left out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SMALLER = {
    "49_152": "1024",
    "batch_tokens: 2048": "batch_tokens: 256",
    "8192": "512",
    "trials: 24": "trials: 4",
}


def snippets() -> list[tuple[str, str]]:
    """Language and text of the README's code blocks, from top to bottom."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^```(sh|python)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(language, block.replace("\\\n", " ")) for language, block in found]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files of the checkout as they are now, an environment to activate, and nothing of the caller's settings."""
    copy = tmp_path / "checkout"
    tracked = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, tracked.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    (copy / ".venv/bin").mkdir(parents=True)
    shutil.copy(Path(sys.prefix) / "bin/activate", copy / ".venv/bin/activate")
    spec = copy / "sweeps/specs/quickstart.yaml"
    text = spec.read_text()
    for usual, smaller in SMALLER.items():
        assert text.count(usual) == 1, usual
        text = text.replace(usual, smaller)
    spec.write_text(text)
    for name in ("SWEEPS_RUNS", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    # The programs are those of the environment that runs the tests; the code, that of the copy.
    monkeypatch.setenv("PYTHONPATH", str(copy))
    monkeypatch.chdir(copy)
    yield copy
    subprocess.run(["cluster/local.sh", "stop"], capture_output=True, check=False)


def run(language: str, text: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-euc", text] if language == "sh" else [sys.executable, "-c", text]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, f"{text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "Traceback" not in done.stderr
    return done


def pasted(block: str) -> str:
    """A shell block with what a test must do in place of a reader: another order for `make`, Ctrl-C for `ui`."""
    lines = []
    for line in block.splitlines():
        if line.startswith("make test"):
            continue
        if line.startswith("make sweep"):
            line = ". .venv/bin/activate; python -m sweeps run quickstart"  # noqa: PLW2901
        if line.startswith("sweeps ui"):
            line = f"code=0; timeout --signal=INT 20 {line.partition('#')[0]} || code=$?; [ $code = 124 ]"  # noqa: PLW2901
        lines.append(line)
    return "\n".join(lines)


def test_make_sweep_is_what_is_run_here() -> None:
    done = subprocess.run(["make", "-n", "sweep"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "python -m sweeps run quickstart" in done.stdout


def test_what_is_shown_of_tli_and_of_a_spec_of_ones_own(checkout: Path) -> None:
    """The parts that need no sweep; the whole README is the slow test."""
    shown = snippets()
    (commands,) = (block for language, block in shown if language == "sh" and block.startswith("tli "))
    (library,) = (block for language, block in shown if language == "python" and "tli.upscale" in block)
    (sweeps,) = (block for language, block in shown if language == "sh" and "mine.yaml" in block)
    quick = "\n".join(line for line in commands.splitlines() if not line.startswith("tli verify"))
    run("sh", f"export PATH={Path(sys.prefix) / 'bin'}:$PATH\n{quick}")
    without = "\n".join(line for line in library.splitlines() if "quickstart" not in line)
    run("python", f"{without}\nassert deeper.config.num_hidden_layers == 13")
    own = [line for line in sweeps.splitlines() if re.match(r"sed|sweeps validate", line)]
    assert len(own) == 2
    done = run("sh", "\n".join([f"export PATH={Path(sys.prefix) / 'bin'}:$PATH", *own]))
    assert "mine.yaml: fine" in done.stdout


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1200)
def test_the_whole_readme_from_top_to_bottom(checkout: Path) -> None:
    script = []
    for language, block in snippets():
        script += [pasted(block)] if language == "sh" else [f"python - <<'SNIPPET'\n{block}\nSNIPPET"]
    done = run("sh", "\n".join(script))
    assert "mine.yaml: fine" in done.stdout
    assert (checkout / "best/lineage.json").is_file()
    after = run("sh", ". .venv/bin/activate; sweeps resume quickstart; sweeps status quickstart")
    assert re.search(
        r"^ *\d+ +search +(complete|stopped) .*init=copy learning_rate=0.001$", after.stdout, re.MULTILINE
    )
