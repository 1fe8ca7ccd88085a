"""The only door to lm-evaluation-harness: its tasks made ready, and a model in memory scored on them."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tli.errors import DataError, InputError, Problem
from tli.json_files import reason_of
from tli.tasks.available import Wanted, installed, local_problems, missing_extra
from tli.tasks.batching import batch_size
from tli.tasks.kobest import documents, files_of
from tli.tasks.scores import Metric, TaskScore

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tli.models.base import Base

OnBatch = Callable[[], None]
_MEAN = 1e-9  # a metric is the mean of its documents where it differs from that by no more
# Standard errors of means have a closed form; of the few others the harness makes so many resamples.
_RESAMPLES = 1000


class Harness:
    """Tasks made ready once, to score one model after the other on them."""

    def __init__(self, wanted: Wanted, where: str = "tasks") -> None:
        """Read the tasks and all of their documents into memory.

        Args:
            wanted: which, and how.
            where: what the names are called in problems.

        Raises:
            InputError: a task that is not known, data that is not there, more shots than examples, or no
                harness.
        """
        if problems := local_problems(wanted, where):
            raise InputError(*problems)
        from lm_eval.defaults import DEFAULT_OTHER_SEED

        self.wanted, self._seed = wanted, DEFAULT_OTHER_SEED
        self._tasks = {name: _loaded(name, wanted, where) for name in wanted.names}

    def score(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        *,
        batch: int | None = None,
        on_batch: OnBatch = lambda: None,
    ) -> TaskScore:
        """Score a model on one task, on its own device and in the precision of its weights.

        Args:
            model: in memory; its mode and its weights are kept. One over several ranks takes part with all.
            tokenizer: its own.
            name: of the task, one of those made ready.
            batch: documents at once; as many as fit where left out.
            on_batch: called before each pass; what it raises ends the evaluation.
        """
        # `simple_evaluate` reseeds this process, and asks the machine for its versions.
        from lm_eval.evaluator import evaluate

        started, training, task = time.perf_counter(), model.training, self._tasks[name]
        try:
            with _quiet():
                task.set_fewshot_seed(seed=self._seed)
                found = evaluate(
                    lm=_wrapped(model, tokenizer, batch, on_batch),
                    task_dict={"tasks": {name: task}, "groups": {}, "group_map": {}},
                    limit=self.wanted.limit,
                    bootstrap_iters=_RESAMPLES,
                    log_samples=True,
                    fewshot_as_multiturn=True,
                )
        finally:
            model.train(training)
        assert found is not None, "on rank 0 there are results"
        return _score(name, found, self.wanted.limit, time.perf_counter() - started)

    def requests(self, name: str) -> list[Any]:
        """What the harness asks of a model on a task: the choices of each document, or a text to go on."""
        with _quiet():
            self._tasks[name].set_fewshot_seed(seed=self._seed)
            self._tasks[name].build_all_requests(limit=self.wanted.limit, fewshot_as_multiturn=True)
        return list(self._tasks[name].instances)


def evaluate_tasks(base: Base, wanted: Wanted, *, batch: int | None = None) -> Iterator[TaskScore]:
    """Score a model on tasks, one after the other.

    Args:
        base: a model that was found (`tli.find`): of a folder, the hub, or the packaged one.
        wanted: which tasks, and how.
        batch: documents at once; as many as fit where left out.

    Raises:
        InputError: as for `Harness`; or the model has no tokenizer that can be loaded.
    """
    from tli.models.loading import load_model, load_tokenizer

    tokenizer = load_tokenizer(base.folder)
    harness = Harness(wanted)
    model = load_model(base)
    for name in wanted.names:
        yield harness.score(model, tokenizer, name, batch=batch)


def known_tasks(wanted: Wanted) -> list[str]:
    """Names of all tasks that the harness has, and of those in the folder."""
    with _quiet():
        return [*_own_manager().all_subtasks, *wanted.written]


def examples_of(name: str, wanted: Wanted) -> int:
    """How many examples a task has for its shots; its data is looked for, and perhaps downloaded.

    Raises:
        DataError: it is not there.
    """
    return _examples(_loaded(name, wanted, "tasks"))


def metrics_of(name: str, wanted: Wanted) -> dict[str, bool | None]:
    """The metrics of a task as its scores name them, each with whether higher is better, where that is said.

    Raises:
        InputError: the task cannot be loaded.
    """
    task = _loaded(name, wanted, "tasks")
    higher = task.higher_is_better()
    kinds = [each.name for each in task._filters]
    return {
        m if kind == "none" else f"{m}.{kind}": higher.get(m) for kind in kinds for m in task.aggregation()
    }


def _examples(task: Any) -> int:
    with _quiet():
        return len(list(task.fewshot_docs() or ()))


def _loaded(name: str, wanted: Wanted, where: str) -> Any:
    """A task with its documents in memory."""
    if not installed():
        raise InputError(missing_extra(where))
    official = name in wanted.official
    with tempfile.TemporaryDirectory(prefix="tli-tasks-") as scratch:
        try:
            with _quiet():
                if official:
                    assert wanted.folder is not None
                    manager = _manager(_written(name, wanted.folder, Path(scratch)))
                else:
                    manager = _manager(wanted.folder) if name in wanted.written else _own_manager()
                task = manager.load([name])["tasks"][name]
        except InputError:
            raise
        except Exception as error:
            got = f"{name}, which the harness cannot load ({reason_of(error)})"
            raise DataError(Problem(where, got, "a task whose data is on this machine")) from error
    if task.get_config("num_fewshot") == 0:  # its file holds it at none
        return task
    if wanted.shots > (count := _examples(task)):
        expected = f"at most {count}, the examples of {name}"
        raise InputError(Problem("shots", str(wanted.shots), expected, str(count)))
    task.set_config(key="num_fewshot", value=wanted.shots)
    return task


@lru_cache(maxsize=1)
def _own_manager() -> Any:
    """The task manager of all that the harness brings, which takes it seconds to find."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _manager(folder: Path | None) -> Any:
    """The task manager of the task files of one folder alone, or of none."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=None if folder is None else str(folder), include_defaults=False)


def _written(name: str, root: Path, scratch: Path) -> Path:
    """The task file of an official task, and its documents beside it, in the columns of the hub."""
    import lm_eval

    files = {}
    for split, path in files_of(name, root).items():
        files[split] = str(scratch / f"{split}.jsonl")
        lines = [
            json.dumps(document, ensure_ascii=False, allow_nan=False) for document in documents(name, path)
        ]
        Path(files[split]).write_text("\n".join(lines) + "\n", encoding="utf-8")
    base = Path(str(lm_eval.__file__)).parent / "tasks" / "kobest" / f"{name}.yaml"
    called = {"training_split": "train", "validation_split": "validation", "test_split": "test"}
    splits = {key: split if split in files else None for key, split in called.items()}
    metrics = ["acc", *(["acc_norm"] if name == "kobest_hellaswag" else [])]
    # As the task file has them, but for `hf_evaluate`, for which the harness would ask the hub for a program.
    listed = [f"  - {{metric: {each}, aggregation: mean, higher_is_better: true}}" for each in metrics]
    macro = "!function lm_eval.tasks.kobest.utils.macro_f1_score"
    listed.append(f"  - {{metric: f1, aggregation: {macro}, average: macro, higher_is_better: true}}")
    given = {
        "include": str(base),
        "task": name,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files, "cache_dir": str(scratch / "cache"), "keep_in_memory": True},
        **splits,
    }
    lines = [
        f"{key}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}" for key, value in given.items()
    ]
    (scratch / f"{name}.yaml").write_text("\n".join([*lines, "metric_list:", *listed]) + "\n", "utf-8")
    return scratch


def _wrapped(model: Any, tokenizer: Any, batch: int | None, on_batch: OnBatch) -> Any:
    """A model in memory as the harness takes one, which says when it is about to be run."""
    from lm_eval.models.huggingface import HFLM

    class Watched(HFLM):  # type: ignore[misc] # the harness is untyped
        def _model_call(self, *given: Any, **named: Any) -> Any:
            on_batch()
            return super()._model_call(*given, **named)

        def _model_generate(self, *given: Any, **named: Any) -> Any:
            on_batch()
            return super()._model_generate(*given, **named)

    # What is no module is not tied anew: that would take weights apart which lie on several ranks.
    stand_in = SimpleNamespace(device=next(model.parameters()).device, config=model.config)
    made = Watched(pretrained=stand_in, tokenizer=tokenizer, batch_size=1)
    made._model = made.pretrained = model.eval()
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    made.batch_size_per_gpu = batch or batch_size(vocabulary, made.max_length)
    return made


def _score(name: str, found: Mapping[str, Any], limit: int | None, seconds: float) -> TaskScore:
    """The harness's results of one task; it calls metrics `acc,none`, by the filter of the answers."""
    results, samples = found["results"][name], found["samples"][name]
    higher = found["higher_is_better"].get(name, {})
    metrics, by_document = {}, {}
    for key, value in results.items():
        metric, comma, kind = key.partition(",")
        if not comma or metric.endswith("_stderr") or isinstance(value, bool | str):
            continue
        stderr = results.get(f"{metric}_stderr,{kind}")
        called = metric if kind == "none" else f"{metric}.{kind}"
        error = float(stderr) if isinstance(stderr, int | float) else None
        metrics[called] = Metric(float(value), error, higher.get(metric))
        values = [sample[metric] for sample in samples if sample["filter"] == kind]
        plain = all(isinstance(each, int | float) or hasattr(each, "item") for each in values)
        if plain and values and abs(fmean(map(float, values)) - float(value)) < _MEAN:
            by_document[called] = tuple(map(float, values))
    prompts = sha256()
    for sample in samples:
        prompts.update(f"{sample['doc_id']} {sample['prompt_hash']} {sample['target_hash']}\n".encode())
    return TaskScore(
        task=name,
        shots=found["n-shot"][name],  # a task file may hold it at none
        limit=limit,
        metrics=metrics,
        documents=by_document,
        chance=_chance(samples) if "acc" in metrics else None,
        data=prompts.hexdigest()[:16],
        seconds=seconds,
    )


def _chance(samples: Sequence[Mapping[str, Any]]) -> float | None:
    """Accuracy of a guess among the choices; None where there are no choices."""
    choices = [len(sample["arguments"]) for sample in samples]
    return fmean(1 / count for count in choices) if choices and min(choices) > 1 else None


@contextmanager
def _quiet() -> Iterator[None]:
    """The harness says what it does on standard output and error, in bars and in its log."""
    logging.getLogger("lm_eval").setLevel(logging.CRITICAL)
    with Path(os.devnull).open("w", encoding="utf-8") as sink, redirect_stderr(sink), redirect_stdout(sink):
        yield
