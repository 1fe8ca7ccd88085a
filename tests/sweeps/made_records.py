"""Made-up trials of a sweep, as the ledger would give them."""

from __future__ import annotations

from typing import Any

from sweeps.records import Role, State, TrialRecord

STEPS = 50


def trial(
    number: int,
    value: float | None,
    *,
    role: Role = Role.SEARCH,
    state: State = State.COMPLETE,
    initial: float = 4.0,
    rate: float = 1e-3,
    **fields: Any,
) -> TrialRecord:
    """A record whose settings are its own; the replicate of another has that one's settings."""
    of = fields.get("replicate_of")
    k = 0 if role is Role.CONTROL else number if of is None else of
    method: dict[str, Any] = {"method": "none"} if k == 0 or role is Role.MATCHED else {"k": k}
    return TrialRecord(
        **{
            "number": number,
            "role": role,
            "state": state,
            "params": {} if role is Role.CONTROL else {"injection.k": k},
            "settings": {"injection": method, "recipe": {"learning_rate": rate}},
            "seed": 0,
            "steps": STEPS,
            "losses": {0: initial, STEPS: value} if value is not None else {0: initial},
            "value": value if state is State.COMPLETE else None,
            "tokens": 1000,
            "flops": 1000.0 * (100 + number),
            **fields,
        }
    )


def replicate(number: int, of: int, seed: int, value: float | None, **fields: Any) -> TrialRecord:
    """Its test loss is 0.1 above its validation loss."""
    test = () if value is None else (value + 0.1,) * 2
    role = fields.pop("role", Role.REPLICATE)
    return trial(number, value, role=role, replicate_of=of, seed=seed, test_losses=test, **fields)
