"""A sweep that can be looked at: its trials, its answer, and where everything of it lies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.curve import CURVE, read_curve
from sweeps.errors import SpecError
from sweeps.folders import Folders
from sweeps.records import TrialRecord
from sweeps.results.answered import answered
from sweeps.results.ranking import best_of
from sweeps.results.tables import CURVE_COLUMNS, TRIAL_COLUMNS, Row, curve_rows, frame, trial_rows
from sweeps.results.unkept import no_weights
from sweeps.results.verdict import Verdict, none_complete
from sweeps.spec import Spec
from sweeps.text import counted, loss
from tli.argument_types import FLAG, NUMBER, PATH, WHOLE, require_types
from tli.errors import CheckpointError
from tli.models.lineage import read_lineage
from tli.places import expanded

if TYPE_CHECKING:
    import pandas as pd

    from sweeps.ledger import LedgerView


@dataclass(frozen=True)
class Sweep:
    """A sweep that can be looked at: its trials, its answer, its models. Got by `run` and `find`.

    Attributes
    ----------
    spec : Spec
        What it compares, from its study, and what it runs on now.
    folders : Folders
        Where everything of it lies on disk.
    ledger : Ledger
        Its Optuna study, read when it is asked.
    kept : bool
        Whether the spec is the one that lay beside the results, which others may have made.

    Examples
    --------
    >>> import sweeps
    >>> sweep = sweeps.find("mine")
    >>> sweep.spec.name, sweep.records[0].role.value
    ('mine', 'control')
    """

    spec: Spec
    folders: Folders
    ledger: LedgerView
    kept: bool = False

    def __repr__(self) -> str:
        return f"<Sweep {self.spec.name!r} in {str(self.folders.sweep)!r}>"

    def __str__(self) -> str:
        records = self.records
        answer, state = self.answer(records), "finished" if self.ledger.finished else "not finished"
        best = best_of(answer)
        words = f"trial {best.number} is the best, held-out loss {loss(best.mean)}" if best else ""
        trials = counted(len(records), "trial")
        return f"Sweep {self.spec.name}, {state}, {trials}: {words or none_complete(answer)}"

    @property
    def records(self) -> list[TrialRecord]:
        """Every trial in the study, by number; those that other programs added, too."""
        return self.ledger.trials()

    def model_of(self, record: TrialRecord) -> Path | None:
        """Where the model lies that a trial trained.

        Parameters
        ----------
        record : TrialRecord
            Of this sweep.

        Returns
        -------
        Path or None
            Its folder; None where none was kept, or another's was.
        """
        folder = self.folders.model_dir(record.number, record.attempt)
        try:
            kept = read_lineage(folder)
        except CheckpointError:
            return None
        return folder if kept.get("owner") == self.ledger.owner(record) else None

    @property
    def verdict(self) -> Verdict:
        """The answer so far."""
        return self.answer(self.records)

    def export(
        self,
        out: str | os.PathLike[str],
        *,
        trial: int | None = None,
        grown: bool = False,
        at_most: float | None = None,
    ) -> int:
        """Copy the model that the answer names, or a trial's, to a new folder that plain transformers loads.

        Parameters
        ----------
        out : str or path-like
            Where the model goes; it must not exist yet.
        trial : int, optional
            This trial instead of what the answer hands over.
        grown : bool, default False
            The best grown model, also where the answer is the original, trained on.
        at_most : float, optional
            The best model, or with `grown` the best grown one, that costs at most so many times what the
            original does: FLOPs per token, or what the spec's objective names.

        Returns
        -------
        int
            The number of the trial.

        Raises
        ------
        InputError
            The trial does not exist, did not complete, or its weights were not kept or are not those that
            were written; or `out` exists, nothing costs so little, or `trial` is beside one of the others.
        """
        from sweeps.results.at_most import chosen_by, described, lineage_facts, refuse_several
        from sweeps.results.card_tables import tables_of
        from sweeps.results.model_card import model_card
        from tli.training.export import copy_model

        require_types(
            out=(out, PATH),
            trial=(trial, WHOLE.optional),
            grown=(grown, FLAG),
            at_most=(at_most, NUMBER.optional),
        )
        refuse_several(trial=trial, grown=grown, at_most=at_most)
        out, listed = expanded(os.fspath(out), "out"), self.records
        found, records = self.answer(listed), {record.number: record for record in listed}
        chosen, within = chosen_by(
            self.spec,
            found,
            listed,
            trial=trial,
            grown=grown,
            at_most=at_most,
            runs=self.folders.artifacts,
        )
        record = records[chosen]
        source = self.model_of(record)
        if source is None:
            held = [number for number, each in records.items() if each.ours and self.model_of(each)]
            raise SpecError(no_weights(self.spec.name, record, self.folders, held, out))
        said = described(found, listed, chosen, within)
        card = model_card(
            self.spec,
            found,
            listed,
            chosen,
            said=said,
            lineage=read_lineage(source),
            tables=tables_of(self, found, listed, record),
        )
        copy_model(source, out, lineage=lineage_facts(record, found, said), card=card)
        return chosen

    def rows(self) -> list[Row]:
        """What `to_dataframe` shows, without pandas.

        Returns
        -------
        list of dict
            One a trial, all with the same keys: numbers, texts, and moments in UTC; None where missing.
        """
        records = self.records
        return trial_rows(records, self.answer(records))

    def curve_rows(self) -> list[Row]:
        """What `curves` shows, without pandas.

        Returns
        -------
        list of dict
            One a measurement, all with the same keys.
        """
        records = self.records
        found = {
            record.number: read_curve(self.folders.trial(record.number) / CURVE, self.ledger.owner(record))
            for record in records
            if record.ours
        }
        return curve_rows(records, found)

    def to_dataframe(self) -> pd.DataFrame:
        """Every trial, one row each, by number.

        Returns
        -------
        pandas.DataFrame
            Columns, in this order; what a trial does not have is missing:

            - ``trial``, ``role`` (control, matched control, baseline, search, replicate, evaluation, ladder
              rung, promotion, promoted control, or not run here) and ``state`` (WAITING, RUNNING, COMPLETE,
              PRUNED for one that was stopped early, FAIL)
            - ``loss``, the latest held-out loss, at ``step``, ``initial_loss``, before the first step, and
              ``test_loss``, after the last one, of runs under fresh seeds; nats per token
            - ``finalist``; ``rank``, from 1: what the answer hands over, the finalists by mean over fresh
              seeds, the other complete trials by their loss; ``best``, whether it is the one that `export`
              hands over, which may be the original, trained on
            - ``replicate_of``, the number of the trial whose settings it has, or whose FLOPs; ``promotes``,
              that of the one that it makes longer; and ``seed``
            - ``step`` of ``steps``: optimizer steps with a measurement, and in the budget
            - ``tokens``, ``flops`` and ``seconds`` of training so far; steps alone, without evaluation
            - ``attempt``, from 1; ``started`` and ``finished``, in UTC; ``reason`` of an early end
            - its settings by dotted path, as ``injection.k``, and scores as ``kobest_copa acc``, if any
            - of several texts, the latest ``eval_loss/NAME`` and ``bits_per_byte/NAME`` of each

        Raises
        ------
        InputError
            pandas is not installed.

        Examples
        --------
        >>> import sweeps
        >>> table = sweeps.find("mine").to_dataframe()
        >>> list(table.columns[:4])
        ['trial', 'role', 'state', 'loss']
        >>> bool((table["injection.k"] >= 1).all())
        True
        """
        return frame(self.rows(), TRIAL_COLUMNS)

    def curves(self) -> pd.DataFrame:
        """Every held-out measurement of every trial, one row each, by trial and step.

        Returns
        -------
        pandas.DataFrame
            ``trial`` and ``step`` (0: before training); ``tokens``, ``flops`` and ``seconds`` of training up
            to there; ``eval_loss``, held out, and ``train_loss``, the mean over the steps since the
            measurement before, in nats per token; ``time`` of the measurement, in UTC. A measurement whose
            curve is no longer on disk has its loss alone. Of several texts ``eval_loss/NAME`` and
            ``bits_per_byte/NAME`` of each.

        Raises
        ------
        InputError
            pandas is not installed.

        Examples
        --------
        >>> import sweeps
        >>> curves = sweeps.find("mine").curves()
        >>> last = curves.groupby("trial").last()
        >>> bool((last["tokens"] > 0).all())
        True
        """
        return frame(self.curve_rows(), CURVE_COLUMNS)

    def answer(self, records: Sequence[TrialRecord]) -> Verdict:
        """The answer if these were all trials, as they were at some time.

        Parameters
        ----------
        records : sequence of TrialRecord
            Of this sweep.

        Returns
        -------
        Verdict
            As `verdict` gives it for all trials.
        """
        return answered(self.spec, self.folders, self.ledger, records)

    @property
    def ended_by(self) -> str | None:
        """What ended the search the last time: the name of a setting of the budget, or `search`."""
        return next((each.ended_by for each in reversed(self.ledger.study.completions)), None)

    @property
    def used_up(self) -> tuple[str, float] | None:
        """The limit of the budget that ended the search before its trials did, with its value."""
        limits = self.ledger.spec.budget.limits.items()
        return next((limit for limit in limits if limit[0] == self.ended_by), None)
