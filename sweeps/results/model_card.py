"""The model card of an exported folder: its README.md, with the metadata that the Hugging Face hub reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.records import TrialRecord
from sweeps.results.card_tables import markdown_table, source_section, task_section
from sweeps.results.claims import Claim
from sweeps.results.sentence import named, sentence, span
from sweeps.results.tasks import TaskTable
from sweeps.results.text_losses import BySource
from sweeps.results.verdict import Verdict
from sweeps.spec import Spec
from sweeps.text import counted
from sweeps.wording import masked

_TAGS = ("tli-sweeps", "depth-upscaling")
_SAYS = {"as good": "as good within the margin", "not shown": "no difference is shown"}
_SAME = {"equal compute": "with the same FLOPs", "equal tokens": "for the same tokens"}


def _measured(verdict: Verdict) -> str:
    """What the losses are of, and what chose."""
    if verdict.objective is not None:
        chose = f"Scores of {verdict.objective} chose settings."
        return f"Losses in nats per token, on validation text and on test text. {chose}"
    return (
        "Losses in nats per token, on validation text, which chose settings, and on test text, which did not."
    )


def model_card(
    spec: Spec,
    verdict: Verdict,
    records: Sequence[TrialRecord],
    number: int,
    *,
    said: str,
    lineage: Mapping[str, Any],
    tables: tuple[TaskTable | None, BySource | None] = (None, None),
) -> str:
    """The whole file, in Markdown.

    Args:
        spec: of the sweep.
        verdict: its answer.
        records: every trial of it.
        number: of the trial whose model is exported.
        said: what the trial is, in one line.
        lineage: what the folder's ``lineage.json`` has: base, plan, training.
        tables: scores on downstream tasks and losses on each of several texts, with this model among them;
            None where nothing is scored, or there is one text.
    """
    by_number = {record.number: record for record in records}
    record, base = by_number[number], lineage["base"]
    return "\n".join(
        [
            *_metadata(base),
            f"# {spec.name}, trial {number}: {named(record)}",
            "",
            f"{_capital(masked(said))}.",
            "",
            "```python",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            'model = AutoModelForCausalLM.from_pretrained("PATH", dtype="auto")',
            'tokenizer = AutoTokenizer.from_pretrained("PATH")',
            "```",
            "",
            "## How it was made",
            "",
            *markdown_table(("", ""), list(_made(spec, record, lineage))),
            "",
            "## How good it is",
            "",
            f"{_measured(verdict)} {'Each is of one run.' if record.promotion else _fresh(verdict)}",
            "",
            *markdown_table(
                ("model", "validation", "test" if record.promotion else "test, fresh seeds"),
                list(_losses(verdict, by_number, number)),
            ),
            "",
            *[f"- {_claim(claim)}" for claim in verdict.claims if number in (claim.trial, claim.against)],
            "",
            f"The sweep's answer: {masked(sentence(verdict, records))}",
            *task_section(tables[0], number),
            *source_section(tables[1], number),
            *_list("What to know before believing it", verdict.warnings),
            "",
            "## Licence",
            "",
            _licence_words(base["name"], base.get("licence")),
            "",
            "`lineage.json` beside this file has the base's fingerprint, versions, a digest of every file.",
            "",
        ]
    )


def _metadata(base: Mapping[str, Any]) -> list[str]:
    """As the hub reads it."""
    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation"]
    if base.get("revision"):  # so it is one of the hub's
        lines += [f"base_model: {base['name']}", "base_model_relation: finetune"]
    if licence := base.get("licence"):
        lines.append(f"license: {licence}")
    return [*lines, "tags:", *(f"- {tag}" for tag in _TAGS), "---", ""]


def _made(spec: Spec, record: TrialRecord, lineage: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    base, plan, recipe = lineage["base"], lineage["plan"], record.settings["recipe"]
    revision = f" at {base['revision']}" if base.get("revision") else ""
    yield "base", f"{_code(base['name'])}{revision}, {base['parameters']:,} parameters"
    injected = plan.get("injected") or []
    grown = f"{plan['depth']} to {plan['new_depth']}" if injected else f"{plan['depth']}, none added"
    yield "layers", grown
    if injected:
        yield "new layers", ", ".join(map(str, injected))
        yield "method", f"{plan['injection']['method']}, {named(record)}"
    yield "text", _code(masked(spec.data.shown))
    tokens = f"{record.tokens or recipe['tokens']:,} in sequences of {spec.data.sequence_length:,}"
    yield "tokens of training", tokens
    schedule = f"peak rate {recipe['learning_rate']:g}, {recipe['schedule']} schedule"
    yield "recipe", f"{schedule}, batches of {recipe['batch_tokens']:,} tokens, {recipe['precision']}"
    yield "trained weights", str(recipe["train"])
    yield "seed", str(record.seed)


def _losses(
    verdict: Verdict, records: Mapping[int, TrialRecord], number: int
) -> Iterator[tuple[str, str, str]]:
    record = records[number]
    if record.initial_loss is not None:
        yield "before training", f"{record.initial_loss:.4f}", ""
    if record.promotion is not None:  # means under the fresh seeds of the sweep are of shorter runs
        beside = (each for each in records.values() if each.promotion and each.promotion.beside == number)
        for run in (record, *beside):
            name = f"the original beside it, trial {run.number}"
            name = f"**this, trial {number}**" if run is record else name
            yield name, _four(run.value), _four(run.test_loss)
        return
    listed = {each.number: each for each in (*verdict.finalists, verdict.control, verdict.matched) if each}
    wanted = [number, *(each.number for each in (verdict.control, verdict.matched) if each)]
    for each in dict.fromkeys(wanted):
        found, name = listed.get(each), f"**this, trial {each}**" if each == number else named(records[each])
        if found is not None:
            tested = "" if found.test_loss is None else f"{found.test_loss:.4f}"
            yield name, f"{found.mean:.4f}", tested
        elif records[each].value is not None:
            yield name, f"{records[each].value:.4f}", ""


def _four(loss: float | None) -> str:
    return "" if loss is None else f"{loss:.4f}"


def _fresh(verdict: Verdict) -> str:
    seeds = max((claim.n for claim in verdict.claims), default=0)
    if not seeds:
        return "No run under a fresh seed has ended."
    return f"They are means over {counted(seeds, 'fresh seed')}; this folder's weights are of one run."


def _claim(claim: Claim) -> str:
    pair = f"trial {claim.trial} against the original trained on {_SAME[claim.at]} (trial {claim.against})"
    says = "" if claim.says in ("better", "worse") else f"; {_SAYS[claim.says]}"
    return f"{pair}: {span(claim)}{says}"


def _licence_words(base: str, licence: str | None) -> str:
    known = f"The base's card says `{licence}`. " if licence else ""
    return (
        f"{known}These weights derive from {_code(base)}, whose licence holds for them, too. "
        "Its licence files, where it has any, lie beside this one."
    )


def _list(title: str, sentences: Sequence[str]) -> list[str]:
    return ["", f"## {title}", "", *(f"- {masked(each)}" for each in sentences)] if sentences else []


def _code(text: str) -> str:
    """As code, so that no character of it is Markdown; a folder's path is its name alone."""
    name = Path(text).name if Path(text).is_absolute() else text
    return f"`{name.replace('`', '')}`"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
