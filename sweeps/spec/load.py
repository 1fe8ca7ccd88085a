"""One call from what the user typed to a checked spec."""

from __future__ import annotations

from collections.abc import Sequence

from sweeps.spec.model import Spec
from sweeps.spec.source import read_spec


def load_spec(reference: str, *, overrides: Sequence[str] = (), runs: str | None = None) -> Spec:
    """Read and check a spec: a YAML file, or the name of a packaged one.

    Args:
        reference: a path, or a name such as `quickstart`.
        overrides: `dotted.path=value` as given to `--set`; the value is YAML.
        runs: folder of the artifacts, as given to `--runs`; None keeps the spec's.

    Raises:
        SpecError: with all problems found, each at its line and column or its option.
    """
    return Spec.checked(read_spec(reference, overrides, runs))
