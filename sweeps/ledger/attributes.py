"""What a study bears beside its trials: whose it is, what it was made of, what was spent, how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from optuna.storages import BaseStorage

from sweeps.ledger.stopping import REFERENCE
from sweeps.ledger.store import FINISHED, IDENTITY, LAYERS, MATERIAL, WALL
from sweeps.records import Conclusion


class StudyAttributes:
    """User attributes of one study; its driver writes them, fenced like all that it writes."""

    def __init__(self, storage: BaseStorage, study_id: int, name: str) -> None:
        """Read nothing yet."""
        self._storage, self._study_id, self._name = storage, study_id, name

    @property
    def identity(self) -> str:
        """What tells this study from another that takes its name later."""
        return str(self._all.get(IDENTITY, self._name))

    @property
    def material(self) -> dict[str, str]:
        """Digests of the base and the text of all its trials, as far as they are known."""
        return dict(self._all.get(MATERIAL, {}))

    @property
    def layers(self) -> int | None:
        """Layers of the base of all its trials, as far as they are known."""
        layers: int | None = self._all.get(LAYERS)
        return layers

    def note_layers(self, layers: int) -> None:
        """Write down how many layers the base has; saying it again is harmless."""
        if self.layers != layers:
            self._set(LAYERS, layers)

    @property
    def conclusions(self) -> list[Conclusion]:
        """Each time that the agenda of a budget was carried out, the first one first."""
        return [Conclusion(**each) for each in self._all.get(FINISHED, ())]

    def conclude(self, now: Conclusion) -> None:
        """The agenda of a budget is carried out; saying it again is harmless."""
        before = self.conclusions
        if not before or replace(before[-1], time=now.time) != now:
            self._set(FINISHED, [asdict(each) for each in (*before, now)])

    @property
    def wall(self) -> float:
        """Seconds in which drivers searched."""
        return float(self._all.get(WALL, 0.0))

    def note_wall(self, seconds: float) -> None:
        """Write down for how long drivers have searched."""
        self._set(WALL, seconds)

    @property
    def reference(self) -> float | None:
        """What the whole baseline spends of what the stopping rule compares trials at; None until known."""
        amount: float | None = self._all.get(REFERENCE)
        return amount

    def note_reference(self, amount: float) -> None:
        """Write down what the whole baseline spends."""
        self._set(REFERENCE, amount)

    @property
    def _all(self) -> Mapping[str, Any]:
        return self._storage.get_study_user_attrs(self._study_id)

    def _set(self, name: str, value: Any) -> None:
        self._storage.set_study_user_attr(self._study_id, name, value)
