"""The spec that lies beside the results of a sweep, and what it may lead to: it may come from a stranger.

A folder of results can be received. So no password goes to a server, and nothing is made or written in a file
outside that folder, because the spec in it alone names them; the user names them, or the own spec file does.
"""

from __future__ import annotations

import json
from pathlib import Path

from sweeps import addresses
from sweeps.errors import Problem, SpecError
from sweeps.spec import Spec
from sweeps.wording import masked
from tli.files import read_regular

_LARGEST = 1 << 20  # bytes of a kept spec
_OWN_SPEC = "the sweep's own spec file as NAME"
_STUDY_URL = "--study postgresql://USER:PASSWORD@HOST/DATABASE (study=)"


def kept_file(reference: str, runs: str | None) -> Path:
    """Where the spec of a sweep of this name would lie."""
    return Path(runs or "runs") / reference / "spec.json"


def is_file(path: Path) -> bool:
    """Whether it is one; a name that is none of a file is none."""
    try:
        return path.is_file()
    except OSError:  # a name that is too long, a folder that may not be looked into
        return False


def kept_spec(file: Path, root: Path) -> Spec:
    """The spec beside its results, with the folder `root` that it is in now.

    Raises:
        SpecError: it cannot be read, is no spec, or is that of another sweep.
    """
    try:
        values = json.loads(read_regular(file, _LARGEST))
        got = "" if isinstance(values, dict) else "no mapping"
    except (OSError, ValueError, RecursionError) as error:
        got = f"a file that cannot be read ({' '.join(str(error).split())[:200]})"
    if got:
        raise SpecError(Problem(str(file), got, "a spec as it was run", "`sweeps run` with its YAML"))
    spec = Spec.from_json(values, name=str(file))
    if spec.name != file.parent.name:
        got = f"the sweep {spec.name!r} in a folder of another name"
        raise SpecError(Problem(str(file), got, f"the folder {spec.name!r}", "renaming the folder"))
    storage = spec.storage.model_copy(update={"artifacts": str(root.absolute())})
    return spec.model_copy(update={"storage": storage})


def unasked_study(spec: Spec) -> Problem | None:
    """Why the study that a kept spec names is not opened: it is on a server."""
    if not addresses.server(spec.study_url):
        return None
    return _server(spec, "storage.study", spec.study_url, f"{_STUDY_URL}, or {_OWN_SPEC}")


def unasked_tracking(spec: Spec, option: str | None = "--tracking URI") -> Problem | None:
    """Why nothing is sent or written to the MLflow that a kept spec names: a server, or a file elsewhere.

    Args:
        spec: as `kept_spec` gave it.
        option: with which a command takes the address instead.
    """
    uri = spec.tracking_uri
    remedy = f"{option}, or {_OWN_SPEC}" if option else _OWN_SPEC
    if uri is None:
        return None
    if addresses.server(uri):
        return _server(spec, "tracking.uri", uri, remedy)
    if addresses.file_of(uri).absolute().parent.resolve().is_relative_to(spec.root.resolve()):
        return None
    got = f"{masked(uri)!r}, a file elsewhere that the kept spec alone names"
    expected = f"its address from you, or a file in {spec.root}, as it would be made or written to"
    return Problem(spec.where("tracking.uri"), got, expected, remedy)


def _server(spec: Spec, path: str, url: str, remedy: str) -> Problem:
    """Passwords of the environment go where the user says."""
    got = f"{masked(url)!r}, a server named by the kept spec alone"
    expected = "its address from you, as a login may be sent to it"
    return Problem(spec.where(path), got, expected, remedy)
