"""Data classes shared by all folders: a trial's record, assignment, point, outcome."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from statistics import fmean
from typing import Any

from sweeps.by_text import Sources, sources_from_json, sources_to_json
from sweeps.promotion import Promotion
from sweeps.task_scores import Aimed, TaskScores, all_scores, scores_to_json
from tli.json_values import number, whole

_SELDOM = {"test_losses", "system", "sources", "tasks"}  # of a point, left out where there are none
METRIC = "eval_loss"  # what trials are compared by, in nats per token


class Role(StrEnum):
    """Why a trial exists. The stopping rule sees BASELINE and SEARCH trials, the sampler OTHER ones too."""

    CONTROL = "control"  # the original model, trained on as it is for the same tokens; one a learning rate
    MATCHED = "matched control"  # the original model, trained on with the FLOPs of a grown one
    BASELINE = "baseline"  # the spec's `trial:` as written
    SEARCH = "search"  # asked from the sampler, or enqueued from outside and taken
    REPLICATE = "replicate"  # another trial's settings under another seed
    EVALUATION = "evaluation"  # scores another run, made again, or the base, on the tasks of the spec
    PROMOTION = "promotion"  # a trial's settings with more tokens, asked for by `sweeps promote`
    PROMOTED_CONTROL = "promoted control"  # the control's, with the FLOPs of a promotion
    RUNG = "ladder rung"  # a finalist's or the control's settings with the tokens of a longer budget
    OTHER = "not run here"  # added to the study, or asked, by another program: no result of this sweep

    @property
    def fresh(self) -> bool:
        """Whether it runs under a seed that chose nothing, and is measured on the test text."""
        return self in (Role.REPLICATE, Role.MATCHED)

    @property
    def promoted(self) -> bool:
        """Whether it is a long run after the sweep: no trial of it, in no answer, driven by `promote`."""
        return self in (Role.PROMOTION, Role.PROMOTED_CONTROL)

    @property
    def after(self) -> bool:
        """Whether it runs once the search is over: on top of the budget, hidden from sampler and Optuna."""
        return self.fresh or self.promoted or self in (Role.RUNG, Role.EVALUATION)


class State(StrEnum):
    """How a trial stands; the values are the names of Optuna's states."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"  # stopped early by the stopping rule
    FAIL = "FAIL"

    @property
    def finished(self) -> bool:
        """Whether nothing more will be reported."""
        return self in (State.COMPLETE, State.PRUNED, State.FAIL)


@dataclass(frozen=True)
class Point:
    """One held-out measurement of a trial and the train losses since the one before.

    Losses are nats per token. `flops` and `seconds` are totals since the trial's first step; seconds count
    training steps alone, not evaluation. `time` is the wall clock in seconds since the epoch;
    `measuring` the seconds that this held-out loss took, 0 where a model grown alike had it already.
    `test_losses` (on equal blocks of the test text) and `tasks` (scores) are of a fresh run's last step;
    `system` how busy the GPUs were since the point before: means by name, empty without a GPU.
    `sources` are the losses on each of several texts by name; `eval_loss` is their weighted mean.
    """

    step: int
    tokens: int
    flops: float
    seconds: float
    eval_loss: float
    train_loss: tuple[tuple[int, float], ...] = ()
    time: float = 0.0
    measuring: float = 0.0
    test_losses: tuple[float, ...] = ()
    tasks: Mapping[str, TaskScores] = field(default_factory=dict, hash=False)
    system: Mapping[str, float] = field(default_factory=dict, hash=False)
    sources: Sources = field(default_factory=dict)

    @property
    def tokens_per_second(self) -> float:
        """Training speed so far."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def totals(self) -> dict[str, float]:
        """What was spent up to here."""
        return {"seconds": self.seconds, "tokens": self.tokens, "flops": self.flops}

    @property
    def finite(self) -> bool:
        """Whether every loss in it is a number."""
        losses = (self.eval_loss, *self.test_losses, *(loss for _, loss in self.train_loss))
        return all(map(math.isfinite, losses)) and all(each.finite for each in self.sources.values())

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; without what there is nothing of."""
        named = {"sources": sources_to_json(self.sources), "tasks": scores_to_json(self.tasks)}
        return {name: each for name, each in (asdict(self) | named).items() if each or name not in _SELDOM}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Point:
        """The inverse of `to_json`; raises ValueError, TypeError, KeyError or AttributeError else."""
        train_loss = tuple((whole(step), number(loss)) for step, loss in value["train_loss"])
        numbers = {name: number(value[name]) for name in ("flops", "seconds", "eval_loss")}
        numbers |= {name: number(value[name]) for name in ("time", "measuring") if name in value}
        known = {*numbers, "step", "tokens", "train_loss"}
        if value.keys() - _SELDOM != known:
            raise ValueError("other values than those of a point")
        test_losses = tuple(number(loss) for loss in value.get("test_losses", ()))
        system = {str(name): number(each) for name, each in dict(value.get("system", {})).items()}
        sources = sources_from_json(value.get("sources", {}))
        step, tokens, tasks = whole(value["step"]), whole(value["tokens"]), all_scores(value.get("tasks", {}))
        told = cls(step, tokens, **numbers, train_loss=train_loss)  # type: ignore[arg-type]
        return replace(told, test_losses=test_losses, system=system, sources=sources, tasks=tasks)


@dataclass(frozen=True)
class Assignment:
    """One execution of one trial, as handed to a worker."""

    study: str
    number: int
    attempt: int
    role: Role
    settings: Mapping[str, Any]  # the whole `trial:` section with this trial's values in place
    steps: int
    report_steps: tuple[int, ...]  # steps at which the held-out loss is measured; the last is `steps`
    micro_batch_tokens: int | None = None  # in place of the recipe's, once the device's memory was too small
    begins: tuple[int, str] | None = None  # a trial whose state it goes on from, and what that state bears
    study_uuid: str = ""  # of the study
    owner: str = ""  # what its states, curve and model bear
    token: str = ""  # of this one handing out


@dataclass(frozen=True)
class TrialRecord:
    """All that the ledger knows of one trial.

    Attributes
    ----------
    number : int
        Of the trial in its study, from 0.
    role : Role
        Why it exists; `Role` has them all, with what each is for.
    state : State
        WAITING, RUNNING, COMPLETE, PRUNED (stopped early) or FAIL.
    params, settings : mapping
        What was searched, by dotted path, empty for the control; the whole ``trial:`` section it ran with.
    seed, steps : int
        Of its batches and of all that is drawn; optimizer steps of its budget.
    losses : mapping of int to float
        Held-out loss by step, nats per token.
    value, aim, front_score : float or None, and Aimed or None
        Of COMPLETE trials: the last held-out loss; the score in its place where the objective is a task; and
        the one that losses are set against.
    reason, waits : str or None
        Why it was stopped or failed; what it waits for since it was handed out, as free resources.
    replicate_of : int or None
        The trial whose settings it has under another seed or, a rung, with more tokens; or whose FLOPs.
    test_losses : tuple of float
        On equal blocks of the test text after the last step, nats per token; of replicates, matched controls
        and promotions.
    attempt, retries : int, and mapping of str to int
        The number of its execution, from 1, and ends without a result, by cause.
    micro_batch_tokens : int or None
        In place of the recipe's, once the device's memory was too small.
    seconds, tokens, flops : float, int and float, or None
        Of training steps; trained on so far; spent on that.
    started, finished : float or None
        Seconds since the epoch.
    request : str or None
        The key under which this sweep made or took it.
    costs : mapping of str to float
        ``flops_per_token`` of training, and ``parameters``; empty in studies of earlier versions.
    sources, tasks : mapping of str to TextLoss, and to TaskScores
        The latest losses on each of several texts, by name; scores of its model by downstream task.
    promotion, evaluation : Promotion or None, and mapping or None
        What it makes longer; the ``tasks``, ``shots`` and ``limit`` that a run of that role was made for.

    Examples
    --------
    >>> import sweeps
    >>> control, baseline = sweeps.find("mine").records[:2]
    >>> str(control.role), baseline.settings["injection"]["k"]
    ('control', 2)
    >>> baseline.loss == baseline.losses[baseline.steps] == baseline.value
    True
    """

    number: int
    role: Role
    state: State
    params: Mapping[str, Any]
    settings: Mapping[str, Any]
    seed: int
    steps: int
    losses: Mapping[int, float] = field(default_factory=dict)
    value: float | None = None
    reason: str | None = None
    replicate_of: int | None = None
    attempt: int = 1
    retries: Mapping[str, int] = field(default_factory=dict)
    micro_batch_tokens: int | None = None
    seconds: float | None = None
    tokens: int | None = None
    flops: float | None = None
    started: float | None = None
    finished: float | None = None
    request: str | None = None
    test_losses: tuple[float, ...] = ()
    costs: Mapping[str, float] = field(default_factory=dict)
    promotion: Promotion | None = None
    waits: str | None = None
    tasks: Mapping[str, TaskScores] = field(default_factory=dict)
    evaluation: Mapping[str, Any] | None = None
    sources: Sources = field(default_factory=dict)
    aim: Aimed | None = None
    front_score: Aimed | None = None

    @property
    def test_loss(self) -> float | None:
        """Loss on the test text after the last step, nats per token; None where it was not measured."""
        return fmean(self.test_losses) if self.test_losses else None

    @property
    def minimised(self) -> float | None:
        """What the search minimises: the loss, or the negative score of a task; None before the end."""
        return self.value if self.aim is None else self.aim.minimised

    @property
    def ours(self) -> bool:
        """Whether this sweep runs it, ran it, or will: enqueued trials are taken in their turn."""
        return self.role is not Role.OTHER

    @property
    def budgeted(self) -> bool:
        """Whether it counts against the budget's trials.

        What runs after the search does not, nor what was not run here, nor what cannot be run.
        """
        return not self.role.after and bool(self.settings)

    @property
    def original(self) -> bool:
        """Whether it trains the original model on: the control, or a searched method that injects nothing."""
        return self.role is Role.CONTROL or self.settings.get("injection", {}).get("method") == "none"

    @property
    def step(self) -> int:
        """The last step with a held-out loss; 0 before the first report."""
        return max(self.losses, default=0)

    @property
    def loss(self) -> float | None:
        """The latest held-out loss."""
        return self.losses[self.step] if self.losses else None

    @property
    def initial_loss(self) -> float | None:
        """Held-out loss before the first step."""
        return self.losses.get(0)


class Cause(StrEnum):
    """Why an execution ended without a result; what is done about it follows from this alone."""

    LOST = "lost"  # its worker died, or the node under it
    PREEMPTED = "preempted"  # told to go, and went after a checkpoint
    HUNG = "hung"  # made no step within the time that steps were seen to take
    OUT_OF_MEMORY = "out of memory"  # of the device
    DIVERGED = "diverged"  # a loss or gradient that is no number, or far above where it began
    REFUSED = "refused"  # settings that this base cannot run with, now or at any other time
    ERROR = "error"  # anything else that was raised


@dataclass(frozen=True)
class Outcome:
    """How one execution ended.

    COMPLETE and PRUNED are what they say; FAIL has its reason and its cause, and the agenda decides by the
    cause whether the trial runs again, from its last checkpoint. `fatal` marks a worker that cannot run any
    trial: the sweep ends, and the trial is left for the next run.
    """

    state: State
    reason: str | None = None
    cause: Cause | None = None
    fatal: bool = False
