"""What every key of a spec means, by its dotted path: the text of the reference in the documentation.

What may stand there is said beside the field in `sweeps.spec.settings`; the two are joined by
`docs/generate_reference.py`, and a test holds that every key has its meaning here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_TOP = {
    "name": "Name of the sweep: of its study in the store, and of its folder under `storage.artifacts`.",
    "base": "The pretrained model that is grown.",
    "data": "The text that trials are trained on, and the held-out text that they are measured on.",
    "trial": "One complete trial. As written it is the baseline, which runs first.",
    "search": "What is varied: dotted paths in `trial`, each with a range. See [ranges](#ranges).",
    "objective": "What is minimised, and at what trials are made equal. A list such as "
    "`[eval_loss, flops_per_token]` means `{metric: eval_loss, cost: flops_per_token}`, and "
    "`[eval_loss, kobest_copa/acc]` means `{metric: eval_loss, score: kobest_copa/acc}`.",
    "sampler": "What proposes the settings of the next trial.",
    "warm_start": "Names of finished sweeps in the same folder of results, of sibling models or other text: "
    "their trials are a prior of the search, never results of this sweep. They are copied into the study "
    "when it is made.",
    "budget": "When the search ends: at the first limit that is used up. Controls and the baseline count; "
    "runs under fresh seeds come on top.",
    "stopping": "Which trials are stopped early, and when.",
    "control": "The original trained on: what of it, at how many learning rates, and whether also with the "
    "winner's FLOPs.",
    "finalists": "Which trials run again under fresh seeds, so that differences get intervals.",
    "evaluation": "Downstream tasks that models are scored on after their training, by lm-evaluation-harness "
    "(the extra `eval`); nothing of what is trained changes, so it may be added to a finished sweep.",
    "resources": "What each process of one trial gets, how many there are, and how many trials run at once.",
    "retries": "How often a trial that ended without a result runs again, from its last checkpoint.",
    "storage": "Where the study and the files of the sweep are kept.",
    "tracking": "Where MLflow is; `tracking: null` sends nothing to MLflow.",
}

_BASE = {
    "model": "The model: an id on the Hugging Face hub, a folder with safetensors, or the packaged base.",
    "revision": "Commit, tag or branch on the hub. Pin a commit where results have to be comparable later.",
}

_OF_DATASETS = ("text_field", "split", "configuration", "revision")
_OF_SOURCES = ("heldout", "heldout_split", "heldout_configuration", "heldout_revision", "max_tokens")
_DATA = {
    "source": "Training text: files (txt, jsonl, parquet) by name or glob, a dataset of the Hugging Face "
    "hub, or the text of Python's own standard library.",
    "heldout": "Held-out text from another place. Without it a share of the source's documents is held out, "
    "chosen by a hash of their text.",
    "heldout_fraction": "Share of the documents that is held out where `heldout` is null.",
    "text_field": "Column or JSON key that holds the text.",
    "split": "Split of a dataset.",
    "configuration": "Configuration (subset) of a dataset.",
    "revision": "Commit, tag or branch of a dataset on the hub.",
    "heldout_split": "Split of the held-out dataset; null: `split`.",
    "heldout_configuration": "Configuration of the held-out dataset; null: that of `source`, if it is the "
    "same dataset.",
    "heldout_revision": "Commit, tag or branch of the held-out dataset; null: that of `source`, if it is the "
    "same dataset.",
    "max_tokens": "Training tokens after which no more text is read.",
    "sources": "Several training texts by name, in place of `source`, each with its weight: a batch has "
    "their sequences in the proportion of the weights. A text that is used up begins again. Held-out text "
    "comes from each; the loss that is minimised is the mean of the texts' losses by the same weights.",
    "sources.NAME": "One of several training texts. A single value is its `source`, of weight 1.",
    "sources.NAME.source": "Its text, as `data.source`.",
    "sources.NAME.weight": "Its part of the trained tokens, beside the weights of the others: 7 and 3 are "
    "the same as 0.7 and 0.3.",
    **{f"sources.NAME.{name}": f"As `data.{name}`, of this text." for name in (*_OF_DATASETS, *_OF_SOURCES)},
    "measured_only": "Texts by name that are never trained on: their losses are reported beside the others, "
    "for instance on text of the base's own kind, which tells whether it was forgotten.",
    "measured_only.NAME": "One text that is only measured; all of it is held-out and test text. A single "
    "value is its `source`.",
    "measured_only.NAME.source": "Its text, as `data.source`.",
    **{f"measured_only.NAME.{name}": f"As `data.{name}`, of this text." for name in _OF_DATASETS},
    "packing": "`stream`: sequences are cut from the text as it runs, whatever documents they cross; "
    "`documents`: the same sequences, in which no document sees another, and the first token of none is "
    "predicted. Refused for models that mix documents all the same, which is tried.",
    "sequence_length": "Tokens of one training sequence: what the model sees at once.",
    "eval_tokens": "Held-out tokens of every measurement, the same ones each time; of several texts each has "
    "as many.",
    "test_tokens": "Tokens of the test text that each run under a fresh seed is measured on after its last "
    "step. Nothing is chosen by them; every claim of the answer rests on them.",
}

_INJECTION = {
    "method": "How the model is grown: a layer into every set of K (`tli`), depth up-scaling (`dus`), the "
    "whole stack again (`stack`), each layer again (`repeat`), experts alone (`moe`), or the model as it "
    "is (`none`).",
    "k": "`tli`: layers in a set; each set gets one new layer. Need not divide the depth, the last set may "
    "be shorter.",
    "place": "`tli`: where in its set a new layer goes.",
    "layers": "`tli`, `repeat`: the range of layers that is grown, counted from 0, the last one excluded.",
    "after": "`tli`, instead of `k`: the layers that a new one follows.",
    "least_important_sets": "`tli`: only so many sets get a new layer, those whose layers change "
    "the hidden state least (block influence).",
    "block": "`tli`: layers injected together, for stacks that repeat a pattern of several layers.",
    "m": "`dus`: layers dropped from the end of the first copy and from the start of the second.",
    "g": "`stack`: how often the whole stack stands; `repeat`: how often each layer does.",
    "init": "First weights of a new layer; null: `identity` for `tli`, `copy` for the others.",
    "scale": "Residual scale: what a new layer adds to the residual stream is multiplied by it. A number "
    "from 0 to 1, or `1/n` or `1/sqrt(n)`, where the layer's source stands n times in the new stack; "
    "null: 0.5 for `damped`, 1 for the others. `copy` and `identity` do not read it.",
    "source": "Old layer that `copy`, `identity` and `damped` start from: the previous, the next, or the "
    "mean of both.",
    "noise": "Standard deviation of normal noise on the matrices of a new layer, relative to that of each "
    "matrix.",
    "identity": "How `identity` is reached where a norm follows a sublayer: zero what is normed, or zero the "
    "gain of the norm. Elsewhere both are the same.",
    "experts": "Feed-forward parts become experts, after layers were injected, when `count` is given.",
}

_EXPERTS = {
    "count": "Experts of a layer, before they are cut finer; null: the model stays dense (`moe`: 8).",
    "top_k": "Experts that a token goes through, before they are cut finer.",
    "router_scale": "Standard deviation of the router's first weights, relative to the model's initializer.",
    "drop": "Share of each expert's neurons that is drawn anew (drop-upcycling).",
    "noise": "Standard deviation of normal noise on the experts' matrices, relative to that of each matrix.",
    "granularity": "Parts that each expert is cut into along its neurons; `top_k` grows with it.",
}

_RECIPE = {
    "learning_rate": "Peak learning rate of AdamW.",
    "injected_learning_rate": "Peak learning rate of the injected layers; null: `learning_rate`. In its "
    "place, `rates.injected` says it as a multiple.",
    "rates": "Learning rates of groups of parameters, as multiples of `learning_rate`; 0 freezes a group. "
    "Each parameter is in one group.",
    "optimizer": "`adamw`, or `adamw8bit`: its moments in 8 bits a value, which takes the extra `adamw8bit`.",
    "tokens": "Training budget of one trial in predicted tokens, rounded up to whole batches.",
    "batch_tokens": "Tokens of one optimizer step.",
    "micro_batch_tokens": "Tokens of one forward pass (gradient accumulation). The batch stays the same.",
    "warmup": "Share of the steps in which the learning rate rises.",
    "warmup_tokens": "Tokens in which the learning rate rises, rounded up to whole batches, in place of "
    "`warmup`.",
    "schedule": "How the learning rate falls to zero by the end of the budget; `constant`: it does not; "
    "`wsd` (warm-up, stable, decay): it stays at its peak until the last `decay` of the steps.",
    "decay": "`wsd`: share of the steps in which the learning rate falls, linearly; no more than the warm-up "
    "leaves.",
    "weight_decay": "Weight decay of matrices; norms and biases are never decayed.",
    "clip": "Largest global norm of the gradient; null does not clip.",
    "train": "Which parameters move: all, those of the injected layers alone, or these and all norms. What "
    "does not move has no gradient and no moments.",
    "precision": "`fp32`, or `bf16`: computation in bfloat16 over weights, gradients and moments in float32. "
    "Frozen matrices are kept in bfloat16 where that loses nothing. Held-out losses are measured in float32 "
    "whatever it is.",
    "activation_checkpointing": "Every how many layers one keeps nothing but its input for the backward "
    "pass: 0 none, 1 all, 2 every second one. Less memory, more time, the same result. `auto`: the fewest "
    "layers with which every trial fits, by the estimate, into the memory of this machine or its GPUs; the "
    "same for all trials of a sweep.",
    "compile": "Whether layers are compiled (`torch.compile`): the first pass of a worker takes up to a "
    "minute, those after it less time. Needs a C++ compiler, and Triton on a GPU.",
}

_RATES = {
    "injected": "Injected layers, their norms too, and new experts. Not beside `injected_learning_rate`.",
    "original": "Matrices and biases of the layers that the base had.",
    "norms": "Norms outside injected layers.",
    "embeddings": "Embeddings, and the output head, tied or not.",
    "router": "Routers of mixtures of experts. Refused where no trial has one.",
}

_TRIAL = {
    "injection": "How the model is grown.",
    "recipe": "How the grown model is trained.",
    "seed": "Seed of the order of batches and of all weights that are drawn.",
}

_REST = {
    "objective.metric": "Held-out loss in nats per token, `eval_loss`; or a task of `evaluation.tasks` with "
    "its metric, as `kobest_copa/acc`: every trial is scored after its last step.",
    "objective.at": "Trials are compared after the same number of training tokens.",
    "objective.answer": "What the search is to answer: `best`, which configuration, or `each`, which value "
    "of every choice, such as K, with trials for each value that may still be the best one.",
    "objective.cost": "Losses are minimised against this cost: the search, the finalists and the answer are "
    "about the front, the lowest loss at each cost. `flops_per_token`: of training; `parameters`: of the "
    "whole model; null: loss alone.",
    "objective.score": "Losses are minimised against the score on a task of `evaluation.tasks` with its "
    "metric, as `kobest_copa/acc`: every trial is scored after its last step, and the search, the finalists "
    "and the answer are about the front, the models of which none is better in both. Not beside a cost.",
    "sampler.name": "`gp`: a Gaussian process over the searched settings, which first tries each value of "
    "each choice near the control's best rate; `tpe`: Optuna's tree-structured Parzen estimator; `random`: "
    "independent draws, and over a finite space each configuration once; `qmc`: points spread evenly; "
    "`grid`: every configuration of a finite space in turn.",
    "sampler.seed": "Seed of the sampler.",
    "budget.trials": "Trials in all, the baseline and the controls at all their rates included.",
    "budget.tokens": "Training tokens of all trials together.",
    "budget.flops": "Training FLOPs of all trials together.",
    "budget.gpu_hours": "Hours of training steps, times the GPUs that a trial has.",
    "budget.wall": "Seconds in which a driver searched, over all its runs.",
    "budget.ladder": "Longer budgets, in tokens of one trial. Once the search and the runs under fresh seeds "
    "are over, all finalists and the control at its best rate run again at each of them, from the start, "
    "their schedule stretched, in the same order of data; then it is said whether the ranking held. They "
    "come on top of the budget. Rungs may be added to a sweep that was run.",
    "stopping.rule": "`learned`: a trial is stopped once its final loss, forecast from the sweep's own whole "
    "curves, will hardly come near the best; `asha`: asynchronous successive halving; `hyperband`; `median`: "
    "below the median of the others; `none`: whole curves.",
    "stopping.on": "Not with `learned`: what trials are compared at: equal steps, tokens, FLOPs or seconds.",
    "stopping.grace": "Not with `learned`: share of the steps before which no trial is stopped.",
    "stopping.keep": "Not with `learned`: share of the trials that passes each rung, to the nearest 1/n; "
    "`median` keeps half.",
    "finalists.top": "How many of the best trials run again; with `per`, so many of each value.",
    "control.train": "What of the original the control trains: `all` of it; or, where trials train injected "
    "layers alone and memory lacks for more, `layers`: those of its own that the baseline's new ones are "
    "made of. Then the answer says nothing about training all of the original.",
    "control.rates": "Learning rates at which the original is trained on: the baseline's, then those of a "
    "line search within the searched range, at most a quarter of `budget.trials` in all. 1 where the rate "
    "is not searched. Where the search tries the original itself (method `none`), what it trained counts in "
    "the line search. May be raised on a sweep that was run.",
    "control.matched": "Whether the original, at its best rate, also trains with the FLOPs of the winner, to "
    "the end of its own schedule, under the same fresh seeds.",
    "finalists.seeds": "Fresh seeds of each finalist, of the best control and of the baseline. The seed of "
    "the search, which chose them, is none. A finished sweep may be given more.",
    "finalists.margin": "Within which losses count as equally good: nats per token, or `0.1%` of the "
    "control's test loss; null: from the noise of the fresh runs. It may be changed after a sweep.",
    "finalists.per": "A searched path with choices, such as `injection.method`: each of its values has "
    "finalists of its own.",
    "evaluation.tasks": "Names of tasks: those of lm-evaluation-harness, as `kobest_copa`, or of the files "
    "in `tasks_from`; `kobest` stands for its five. None: nothing is evaluated.",
    "evaluation.shots": "Solved examples that stand before each document.",
    "evaluation.limit": "Documents of each task at most, the first ones; null: all.",
    "evaluation.on": "`finalists`: each run of a finalist and of the baseline under a fresh seed; `control`: "
    "each such run of the best control, and those with the winner's FLOPs; `base`: the base, once.",
    "evaluation.tasks_from": "A folder of the harness's task files (YAML; functions that they name are run), "
    "or one that holds KoBEST's official TSV files as `COPA/train.tsv`, `dev.tsv`, `test.tsv`; null: the "
    "hub, or its cache.",
    "resources.cpus": "CPU cores of each process of one trial.",
    "resources.gpus": "GPUs of each process of one trial: 0, 1, or a share of one where it has one process.",
    "resources.workers": "Processes (ranks) that train one trial together, each with its rows of the model.",
    "resources.parallel": "Trials at once; null: as many as fit.",
    "retries.lost": "Times that a trial runs again after its worker process died at one place.",
    "retries.hung": "Times that a trial runs again after it made no progress and was ended.",
    "retries.error": "Times that a trial runs again after an error of its own.",
    "retries.halve_micro_batch": "Whether a trial that ran out of device memory goes on with half the micro "
    "batch.",
    "retries.silence": "Seconds without a step that are always allowed before a trial counts as hung.",
    "storage.study": "The store of the Optuna study: a SQLite file under `artifacts`, or an address.",
    "storage.artifacts": "Folder of curves, checkpoints and models; the option `--runs` goes before it.",
    "tracking.uri": "MLflow: a SQLite file under `storage.artifacts`, or the address of a server.",
}


def _under(prefix: str, meanings: Mapping[str, str]) -> dict[str, str]:
    return {f"{prefix}.{name}": meaning for name, meaning in meanings.items()}


MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        **_TOP,
        **_under("base", _BASE),
        **_under("data", _DATA),
        **_under("trial", _TRIAL),
        **_under("trial.injection", _INJECTION),
        **_under("trial.injection.experts", _EXPERTS),
        **_under("trial.recipe", _RECIPE),
        **_under("trial.recipe.rates", _RATES),
        **_REST,
    }
)
