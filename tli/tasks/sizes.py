"""What it takes to score a model on a task, counted before there is a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tli.tasks.harness import Harness

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LONGEST = 2048  # tokens of a sequence, where the model's configuration sets no limit: the harness's own
_GENERATED = 256  # tokens of an answer at most, where a task does not say


@dataclass(frozen=True)
class TaskSize:
    """What goes through one model that is scored on a task, padding aside.

    Attributes:
        task: its name.
        documents: how many are scored.
        sequences: one for each document and choice; one for all choices of a document that are a single token
            each, and for those that are alike.
        tokens: of all sequences, those that a task lets the model write at most among them.
    """

    task: str
    documents: int
    sequences: int
    tokens: int


def size_of(
    harness: Harness, tokenizer: PreTrainedTokenizerBase, name: str, longest: int | None = None
) -> TaskSize:
    """Count what goes through a model that is scored on a task.

    Args:
        harness: with the task made ready.
        tokenizer: of the model.
        name: of the task.
        longest: tokens of a sequence that the model takes, to which the harness cuts; None where it sets no
            limit.
    """
    most, requests, generated = longest or _LONGEST, harness.requests(name), 0
    sequences = set[tuple[int, ...]]()
    for request in requests:
        text, second = (*request.args, "")[:2]
        ids = tokenizer.encode(
            text + (second if isinstance(second, str) else ""), add_special_tokens=False, verbose=False
        )
        sequences.add(tuple(ids[-most - 1 : -1]))  # of the last token only the loss is asked for
        if isinstance(second, dict):
            generated += int(second.get("max_gen_toks") or _GENERATED)
    documents = len({request.doc_id for request in requests})
    return TaskSize(name, documents, len(sequences), sum(map(len, sequences)) + generated)
