"""What a registered model version says of where the model comes from, as tags."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sweeps.records import TrialRecord
from sweeps.results.sentence import named
from sweeps.results.sweep import Sweep
from tli.errors import CheckpointError
from tli.models.lineage import read_lineage


def key_of(sweep: Sweep, record: TrialRecord) -> str:
    """What tells the model of a trial from every other, in every sweep: what it bears, and the attempt."""
    return f"{sweep.ledger.owner(record)}/{record.attempt}"


def version_tags(sweep: Sweep, record: TrialRecord) -> dict[str, Any]:
    """Sweep, study, trial, base, plan and losses of a trial's model; the run stands in the version itself.

    Args:
        sweep: of the trial.
        record: of a complete trial.
    """
    promotion = record.promotion
    longer = f", a promotion of trial {promotion.of}" if promotion is not None else ""
    return {
        "sweeps.model": key_of(sweep, record),
        "sweeps.sweep": sweep.spec.name,
        "sweeps.study": sweep.ledger.study.study_uuid,
        "sweeps.trial": record.number,
        "sweeps.role": record.role.value,
        "sweeps.promotes": promotion.of if promotion is not None else None,
        "sweeps.spec_hash": sweep.ledger.spec.hash,
        "sweeps.tokens": record.tokens or record.steps * record.settings["recipe"]["batch_tokens"],
        "sweeps.loss": record.value,
        "sweeps.test_loss": record.test_loss,
        **_of_the_model(sweep, record),
        "mlflow.note.content": (
            f"{sweep.spec.name}, trial {record.number}{longer}: {named(record)}. "
            "The folder is a model of transformers: AutoModelForCausalLM.from_pretrained loads it."
        ),
    }


def _of_the_model(sweep: Sweep, record: TrialRecord) -> dict[str, Any]:
    """Of its lineage: the base by name, revision and fingerprint, and a digest of the plan."""
    try:
        lineage = read_lineage(sweep.folders.model_dir(record.number, record.attempt))
    except CheckpointError:
        return {}
    base, plan = lineage["base"], json.dumps(lineage["plan"], sort_keys=True).encode()
    return {
        "sweeps.base": base["name"],
        "sweeps.base_revision": base.get("revision"),
        "sweeps.base_fingerprint": base.get("fingerprint"),
        "sweeps.plan": f"sha256:{hashlib.sha256(plan).hexdigest()}",
    }
