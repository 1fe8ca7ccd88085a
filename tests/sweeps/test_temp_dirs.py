"""Folders in places that all users share: ours are ours, whatever was put there first."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.cli import doctor
from sweeps.driver.on_ray import temp_dirs
from sweeps.errors import SweepError
from tests.servers import ROOT

OTHER = 12345  # a user's number


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def own(path: Path) -> Path:
    path.mkdir(mode=0o700)
    return path


def open_to_all(path: Path) -> Path:
    path.mkdir()
    path.chmod(0o777)
    return path


def link(path: Path) -> Path:
    """A folder of ours, by a name that another user can turn elsewhere."""
    own(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")
    return path


def of_another(path: Path) -> Path:
    path.mkdir(mode=0o700)
    if os.geteuid() != 0:
        pytest.skip("only root gives a folder away")
    os.chown(path, OTHER, OTHER)
    return path


PLANTED = [open_to_all, link, of_another, Path.touch]


@pytest.mark.parametrize("planted", PLANTED)
def test_a_name_that_was_taken_is_left_for_another(planted: object, tmp_path: Path) -> None:
    wanted = tmp_path / "sweeps-1"
    planted(wanted)  # type: ignore[operator]
    found = temp_dirs.own_folder(wanted)
    assert found != wanted
    assert found.parent == tmp_path
    assert temp_dirs.is_ours(found)


def test_our_own_folder_is_used_again(tmp_path: Path) -> None:
    first = temp_dirs.own_folder(tmp_path / "sweeps-1")
    assert mode(first) == 0o700
    assert temp_dirs.own_folder(tmp_path / "sweeps-1") == first == tmp_path / "sweeps-1"


def test_a_long_temporary_folder_is_left_for_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long, short = tmp_path / ("x" * 70), tmp_path / "s"
    long.mkdir()
    short.mkdir()
    monkeypatch.setattr(temp_dirs, "LONGEST", len(str(short)) + 40)
    folder = temp_dirs.ray_folder(long, shorter=short)
    assert folder == short / f"sweeps-{os.getuid()}" / "r"
    assert temp_dirs.is_ours(folder.parent)
    assert list(long.iterdir()) == []
    with pytest.raises(SweepError, match="try export TMPDIR=/tmp"):
        temp_dirs.ray_folder(long, shorter=tmp_path / "none")


@pytest.mark.parametrize(
    ("shorter", "ok", "remedy"),
    [(Path("/tmp"), None, "export TMPDIR=/tmp"), (Path("/none"), False, "export TMPDIR=")],
)
def test_the_doctor_sees_a_long_temporary_folder(
    shorter: Path, ok: bool | None, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 70)
    monkeypatch.setattr(doctor.tempfile, "tempdir", str(long))
    monkeypatch.setattr(doctor, "SHORTEST", shorter)
    found = doctor._temporary()
    assert found.ok is ok
    assert found.remedy.startswith(remedy)
    assert str(long) in found.detail


def test_a_secret_that_others_could_read_is_closed(tmp_path: Path) -> None:
    token = tmp_path / ".ray" / "auth_token"
    temp_dirs.keep_to_ourselves(token)  # Ray makes it later, in a folder that is closed
    assert (mode(token.parent), token.exists()) == (0o700, False)
    token.write_text("secret")
    token.chmod(0o644)
    temp_dirs.keep_to_ourselves(token)
    assert (mode(token), token.read_text()) == (0o600, "secret")
    link_to = tmp_path / "other"
    link_to.write_text("")
    link_to.chmod(0o644)
    token.unlink()
    token.symlink_to(link_to)
    temp_dirs.keep_to_ourselves(token)
    assert mode(link_to) == 0o644


@pytest.mark.ray
@pytest.mark.slow
def test_ray_starts_in_a_folder_of_ours_from_a_long_temporary_one(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 70)
    long.mkdir()
    home = own(tmp_path / "home")
    script = """
import ray
from sweeps.spec import load_spec
from sweeps.driver.on_ray.tuner import start_cluster, stop_cluster
start_cluster(load_spec("quickstart"), None)
print(ray._private.worker._global_node.get_session_dir_path())
stop_cluster()
"""
    environment = {**os.environ, "TMPDIR": str(long), "HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    session = Path(done.stdout.strip().splitlines()[-1])
    assert temp_dirs.is_ours(session.parents[1])
    token = home / ".ray" / "auth_token"
    assert (mode(token.parent), mode(token)) == (0o700, 0o600)


# -- the cluster on one machine -----------------------------------------------------------------------------------


def local(
    command: str, *options: str, home: Path, runtime: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "XDG_RUNTIME_DIR"}
    environment |= {"HOME": str(home), "PYTHON": sys.executable}
    if runtime is not None:
        environment["XDG_RUNTIME_DIR"] = str(runtime)
    words = ["bash", str(ROOT / "cluster" / "local.sh"), command, *options]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("planted", PLANTED)
def test_no_cluster_starts_in_a_folder_that_another_user_may_have_made(
    planted: object, tmp_path: Path
) -> None:
    folder = tmp_path / "c"
    planted(folder)  # type: ignore[operator]
    for command in ("env", "status", "stop"):
        done = local(command, "--dir", str(folder), home=tmp_path)
        assert done.returncode == 2, done.stdout
        assert "which other users may use; expected a folder of your own with mode 700" in done.stderr


def test_where_a_cluster_keeps_its_token(tmp_path: Path) -> None:
    home, runtime = own(tmp_path / "home"), own(tmp_path / "run")
    assert f"{home}/.sweeps-ray: got no local cluster" in local("env", home=home).stderr
    assert f"{runtime}/sweeps-ray: got no local cluster" in local("env", home=home, runtime=runtime).stderr


def test_what_the_shell_is_given_holds_no_command(tmp_path: Path) -> None:
    folder = own(tmp_path / "a b$(touch x)")
    (folder / "token").write_text("t")
    (folder / "dashboard-port").write_text("8265; touch x\n")
    done = local("env", "--dir", str(folder), home=tmp_path)
    shown = subprocess.run(
        ["bash", "-c", f"{done.stdout}\nprintf '%s\\n' \"$RAY_AUTH_TOKEN_PATH\" \"$RAY_API_SERVER_ADDRESS\""],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout.splitlines() == [f"{folder}/token", "http://127.0.0.1:8265"]
    assert not (tmp_path / "x").exists()
