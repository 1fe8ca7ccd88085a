"""What users get wrong in specs, bases and data: each answered by exact lines, exit code 2, and nothing made."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.__main__ import main
from sweeps.checks import machine
from sweeps.spec.packaged_specs import packaged

GOOD = """\
name: my-sweep
base: {model: base}
data: {source: train.txt, heldout: test.txt, sequence_length: 32, eval_tokens: 256}
trial:
  injection: {k: 2, init: identity}
  recipe: {learning_rate: 1e-3, tokens: 2048, batch_tokens: 256}
search:
  injection.k: {choice: [1, 2]}
  recipe.learning_rate: {log: [1e-4, 1e-2]}
budget: {trials: 6}
stopping: {rule: asha, grace: 0.2, keep: 0.33}
finalists: {top: 1, seeds: 2}
"""
SECTIONS = (
    "name, base, data, trial, search, objective, sampler, warm_start, budget, stopping, control, finalists, evaluation, "
    "resources, retries, storage, tracking"
)
INJECTION = "method, k, place, layers, after, least_important_sets, block, m, g, init, scale, source, noise, identity, experts"
RECIPE = (
    "learning_rate, injected_learning_rate, rates, optimizer, tokens, batch_tokens, micro_batch_tokens, "
    "warmup, warmup_tokens, schedule, decay, weight_decay, clip, train, precision, "
    "activation_checkpointing, compile"
)
FORMS = "one of {choice: [...]}, {uniform: [low, high]}, {log: [low, high]}, {int: [low, high]}"
INITS = "one of copy, identity, damped, mean, slerp, aligned, predicted, random"
K = "injection.k: {choice: [1, 2]}"
LR = "recipe.learning_rate: {log: [1e-4, 1e-2]}"
NAME = "1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or a digit"
NONE = "with injection.method: 'none', injection.after: null, injection.init: null, injection.experts.count: null"
BRACKETS = "closing every bracket and quote, and a space after every colon"

# What stands in GOOD, what a user wrote instead, and what is said: lines without `error: spec.yaml:`.
MISTAKES: dict[str, tuple[str, str, list[str]]] = {
    # -- the text --
    "empty": (GOOD, "", [": got an empty file; expected a spec in YAML; try `sweeps run quickstart` for one that works"]),
    "only comments": (GOOD, "# later\n", [": got an empty file; expected a spec in YAML; try `sweeps run quickstart` for one that works"]),
    "list at the root": (GOOD, "- name\n", ["1:1: got a list at the root; expected a mapping; try lines such as `name: my-sweep`"]),
    "two documents": ("finalists:", "---\nfinalists:", ["12:1: got a second document; expected one document; try one file for each spec"]),
    "tab": ("  recipe: {", "\trecipe: {", ["6:1: got a tab in the indentation; expected spaces; try two spaces for each level"]),
    "open bracket": ("{trials: 6}", "{trials: 6", [f"11:9: got broken YAML (expected ',' or '}}', but got ':', while parsing a flow mapping from line 10); expected YAML; try {BRACKETS}"]),
    "duplicate key": ("finalists:", "budget: {trials: 8}\nfinalists:", ["12:1: got 'budget' a second time; expected every name once; try deleting this one or the one on line 10"]),
    "tag": ("name: my-sweep", "name: !!python/object/apply:os.getcwd []", ["1:7: got the tag tag:yaml.org,2002:python/object/apply:os.getcwd; expected no tags; try the plain value"]),
    "alias": ("{trials: 6}", "&b {trials: 6}\nresources: *b", ["10:9: got the anchor &b; expected no anchors; try writing the value out", "11:12: got the alias *b; expected no aliases; try writing the value out"]),
    "no-break space": ("name: my-sweep", "name:\u00a0my-sweep", ["1:6: got the invisible character U+00A0 (no-break space); expected a plain space; try typing the line again"]),
    "nesting": ("[1, 2]}", f"{'[' * 30}{']' * 30}}}", ["8:42: got more than 20 levels of nesting; expected at most three or four"]),
    # -- names and types --
    "unknown section": ("budget:", "budgets:", ["1:1 budget: got nothing; expected a mapping of trials, tokens, flops, gpu_hours, wall, ladder; try budget: {trials: 24}", f"10:1 budgets: got an unknown setting; expected one of {SECTIONS}; try budget"]),
    "unknown setting": ("tokens: 2048", "tokens: 2048, lrr: 3", [f"6:47 trial.recipe.lrr: got an unknown setting; expected one of {RECIPE}; try trial.recipe.learning_rate"]),
    "renamed setting": ("k: 2, init: identity", "sets: 2, init: identity", [f"5:15 trial.injection.sets: got an unknown setting; expected one of {INJECTION}; try trial.injection.least_important_sets"]),
    "setting in the wrong section": ("budget:", "k: 4\nbudget:", [f"10:1 k: got an unknown setting; expected one of {SECTIONS}; try trial.injection.k"]),
    "missing data": ("data: {source: train.txt, heldout: test.txt, sequence_length: 32, eval_tokens: 256}\n", "", ["1:1 data: got nothing; expected a mapping of source, heldout, heldout_fraction, text_field, split, configuration, revision, heldout_split, heldout_configuration, heldout_revision, max_tokens, packing, sequence_length, eval_tokens, test_tokens, sources, measured_only; try data: {source: builtin:stdlib}"]),
    "null section": ("{k: 2, init: identity}", "", [f"5:3 trial.injection: got null; expected a mapping of {INJECTION}; try deleting the line, or indenting its settings below it"]),
    "number for a section": ("{trials: 6}", "6", ["10:1 budget: got 6; expected a mapping of trials, tokens, flops, gpu_hours, wall, ladder; try {trials: 6}"]),
    "text for a number": ("tokens: 2048", 'tokens: "2048"', ["6:33 trial.recipe.tokens: got the text '2048'; expected a whole number of at least 1; try 100000"]),
    "fraction for a whole number": ("k: 2", "k: 2.5", ["5:15 trial.injection.k: got 2.5; expected a whole number of at least 1 (layers per injected layer); try 4"]),
    "boolean for a whole number": ("seeds: 2", "seeds: true", ["12:21 finalists.seeds: got true; expected a whole number from 1 to 1000; try 3"]),
    "more seeds than memory": ("seeds: 2", "seeds: 1000000000", ["12:21 finalists.seeds: got 1000000000; expected a whole number from 1 to 1000; try 3"]),
    "1:30 for a number": ("trials: 6", "trials: 1:30", ["10:10 budget.trials: got the text '1:30'; expected a whole number of at least 2 (the control and the baseline come first); try 24"]),
    "no for a name": ("rule: asha", "rule: no", ["11:12 stopping.rule: got 'no'; expected one of learned, asha, hyperband, median, none; try none"]),
    "misspelt name": ("init: identity", "init: identiy", [f"5:21 trial.injection.init: got 'identiy'; expected {INITS}; try identity"]),
    "name that climbs": ("my-sweep", "../my-sweep", [f"1:1 name: got '../my-sweep'; expected {NAME}; try my-sweep"]),
    "absolute name": ("my-sweep", "/tmp/x", [f"1:1 name: got '/tmp/x'; expected {NAME}; try my-sweep"]),
    "name with a line break": ("my-sweep", '"my-sweep\\n"', [f"1:1 name: got 'my-sweep\\n'; expected {NAME}; try my-sweep"]),
    "long name": ("my-sweep", "x" * 65, [f"1:1 name: got '{'x' * 57}...'; expected {NAME}; try my-sweep"]),
    "name of a store": ("my-sweep", "tokens", ["1:1 name: got 'tokens'; expected a name that no store has; try my-sweep"]),
    # -- trial --
    "K of 0": ("k: 2", "k: 0", ["5:15 trial.injection.k: got 0; expected a whole number of at least 1 (layers per injected layer); try 4"]),
    "K null": ("k: 2", "k: null", ["5:15 trial.injection.k: got null; expected a whole number of layers per set; try 4"]),
    "K above the depth": ("k: 2", "k: 5", ["5:15 trial.injection.k: got 5; expected at most 4, the model's number of layers; try 4"]),
    "scale above 1": ("k: 2", "k: 2, scale: 1.5", ["5:21 trial.injection.scale: got 1.5; expected a residual scale between 0 and 1, or 1/n or 1/sqrt(n); try 0.5"]),
    "negative rate": ("learning_rate: 1e-3", "learning_rate: -1e-3", ["6:12 trial.recipe.learning_rate: got -0.001; expected a finite number above 0; try 0.001"]),
    "infinite rate": ("learning_rate: 1e-3", "learning_rate: .inf", ["6:12 trial.recipe.learning_rate: got inf; expected a finite number above 0; try 0.001"]),
    "unknown schedule": ("tokens: 2048", "tokens: 2048, schedule: cosin", ["6:47 trial.recipe.schedule: got 'cosin'; expected one of linear, cosine, constant, wsd; try cosine"]),
    "tokens below a batch": ("tokens: 2048", "tokens: 100", ["6:33 trial.recipe.tokens: got 100; expected at least one batch of 256 tokens; try 12800"]),
    "batch of part sequences": ("batch_tokens: 256", "batch_tokens: 250", ["6:47 trial.recipe.batch_tokens: got 250; expected a multiple of the sequence length 32; try 512"]),
    "micro batch that does not divide": ("batch_tokens: 256", "batch_tokens: 256, micro_batch_tokens: 96", ["6:66 trial.recipe.micro_batch_tokens: got 96; expected a multiple of the sequence length that divides batch_tokens; try null"]),
    "rate of an unknown group": ("tokens: 2048", "tokens: 2048, rates: {injceted: 2}", ["6:55 trial.recipe.rates.injceted: got an unknown setting; expected one of injected, original, norms, embeddings, router; try trial.recipe.rates.injected"]),
    "rate of a group below 0": ("tokens: 2048", "tokens: 2048, rates: {norms: -1}", ["6:55 trial.recipe.rates.norms: got -1; expected a finite number of at least 0 (times learning_rate; 0 freezes); try 1.0"]),
    "two rates of injected layers": ("tokens: 2048", "tokens: 2048, rates: {injected: 2}, injected_learning_rate: 1e-2", ["6:55 trial.recipe.rates.injected: got 2.0 beside injected_learning_rate 0.01; expected one of the two; try injected_learning_rate: null"]),
    "rate of routers in a dense model": ("tokens: 2048", "tokens: 2048, rates: {router: 0.5}", ["6:55 trial.recipe.rates.router: got 0.5, of a model without routers; expected groups that it has: injected, original, norms, embeddings; try router: 1.0"]),
    "searched rate of routers in a dense model": (LR, f"{LR}\n  recipe.rates.router: {{log: [0.1, 1.0]}}", ["10:3 search.recipe.rates.router: got a range for 'router'; expected groups that its models have: injected, original, norms, embeddings; try deleting it"]),
    "warm-up with a unit": ("tokens: 2048", "tokens: 2048, warmup_tokens: 1k", ["6:47 trial.recipe.warmup_tokens: got the text '1k'; expected a whole number of at least 0 (tokens), or null for warmup; try 1000"]),
    "two warm-ups": ("tokens: 2048", "tokens: 2048, warmup: 0.2, warmup_tokens: 512", ["6:60 trial.recipe.warmup_tokens: got 512 beside warmup 0.2; expected one of the two; try null"]),
    "warm-up longer than the budget": ("tokens: 2048", "tokens: 2048, warmup_tokens: 4096", ["6:47 trial.recipe.warmup_tokens: got 4096; expected tokens in which the rate rises, from 0 to below tokens (2048); try 204"]),
    "unknown optimizer": ("tokens: 2048", "tokens: 2048, optimizer: adam8bit", ["6:47 trial.recipe.optimizer: got 'adam8bit'; expected one of adamw, adamw8bit; try adamw8bit"]),
    "unknown packing": ("eval_tokens: 256", "eval_tokens: 256, packing: document", ["3:85 data.packing: got 'document'; expected one of stream, documents; try documents"]),
    "sequence above the context": ("sequence_length: 32", "sequence_length: 128", ["3:46 data.sequence_length: got 128; expected at most 64, the context of base; try 64"]),
    "less than one held-out sequence": ("eval_tokens: 256", "eval_tokens: 16", ["3:67 data.eval_tokens: got 16; expected at least one sequence of 32 tokens; try 2048"]),
    # -- search --
    "no search": (f"search:\n  {K}\n  {LR}\n", "", ["1:1 search: got no ranges; expected at least one range for a budget of 6 trials; try injection.k: {choice: [1, 2, 4, 8]}"]),
    "search null": (f"search:\n  {K}\n  {LR}\n", "search:\n", ["7:1 search: got null; expected a mapping from dotted paths in trial to ranges; try deleting the line, or indenting its settings below it"]),
    "searched path unknown": (LR, "recipe.lrr: {log: [1e-4, 1e-2]}", ["9:3 search.recipe.lrr: got 'recipe.lrr', which is not a setting of trial; expected a dotted path in trial; try recipe.learning_rate"]),
    "searched path is a section": (LR, "recipe: {log: [1e-4, 1e-2]}", ["9:3 search.recipe: got 'recipe', which is a section; expected the dotted path of one setting; try recipe.learning_rate: ..."]),
    "search of the seed": (LR, "seed: {int: [0, 3]}", ["9:3 search.seed: got 'seed'; expected a setting that may differ between trials; all see the same text for the same tokens; try finalists.seeds for more seeds"]),
    "search of the budget": (LR, "recipe.tokens: {choice: [2048, 4096]}", ["9:3 search.recipe.tokens: got 'recipe.tokens'; expected a setting that may differ between trials; all see the same text for the same tokens; try setting it once, as trial.recipe.tokens"]),
    "a list as a range": (K, "injection.k: [1, 2]", [f"8:3 search.injection.k: got [1, 2]; expected {FORMS}; try {{choice: [1, 2]}}"]),
    "a value as a range": (K, "injection.k: 2", [f"8:3 search.injection.k: got 2; expected {FORMS}; try deleting it and setting the value under trial"]),
    "unknown form": (K, "injection.k: {choices: [1, 2]}", ["8:17 search.injection.k.choices: got the unknown name 'choices'; expected one of choice, uniform, log, int, step, when; try choice"]),
    "two forms": (K, "injection.k: {choice: [1, 2], int: [1, 2]}", [f"8:3 search.injection.k: got choice and int together; expected {FORMS}"]),
    "empty choices": (K, "injection.k: {choice: []}", ["8:17 search.injection.k.choice: got []; expected a list of at least one value; try [1, 2, 4]"]),
    "choice twice": (K, "injection.k: {choice: [1, 2, 1]}", ["8:32 search.injection.k.choice[2]: got 1 a second time; expected every choice once; try deleting one of them"]),
    "mixed choices": (K, "injection.k: {choice: [1, two]}", ['8:17 search.injection.k.choice: got choices of several kinds, [1, "two"]; expected only numbers or only texts']),
    "choice that no trial takes": (K, "injection.init: {choice: [copy, coppy]}", [f"8:35 search.injection.init.choice[1]: got 'coppy'; expected {INITS}; try copy"]),
    "searched K of 0": (K, "injection.k: {int: [0, 2]}", ["8:23 search.injection.k.int[0]: got 0; expected a whole number of at least 1 (layers per injected layer)"]),
    "searched K above the depth": (K, "injection.k: {choice: [1, 8]}", ["8:29 search.injection.k.choice[1]: got 8; expected at most 4, the model's number of layers; try 4"]),
    "fractions for whole numbers": (K, "injection.k: {uniform: [1, 4]}", ["8:17 search.injection.k.uniform: got uniform for a setting of whole numbers; expected choice or int; try int in its place"]),
    "log from 0": (LR, "recipe.learning_rate: {log: [0, 1e-2]}", ["9:32 search.recipe.learning_rate.log[0]: got 0; expected a number above 0, as a log range needs; try 1.0e-5 or uniform"]),
    "low above high": (LR, "recipe.learning_rate: {log: [1e-2, 1e-4]}", ["9:26 search.recipe.learning_rate.log: got low 0.01 and high 0.0001; expected low below high; try [0.0001, 0.01]"]),
    "negative rate searched": (LR, "recipe.learning_rate: {uniform: [-1, 1]}", ["9:36 search.recipe.learning_rate.uniform[0]: got -1.0; expected a finite number above 0"]),
    "bound not finite": (LR, "recipe.learning_rate: {log: [1e-4, .inf]}", ["9:38 search.recipe.learning_rate.log[1]: got inf; expected a finite number"]),
    "one bound": (LR, "recipe.learning_rate: {log: 1e-4}", ["9:26 search.recipe.learning_rate.log: got 0.0001; expected two numbers, [low, high]; try [1.0e-4, 1.0e-2]"]),
    "text as a bound": (LR, "recipe.learning_rate: {log: [1e-4, '1e-2']}", ["9:38 search.recipe.learning_rate.log[1]: got the text '1e-2'; expected a number"]),
    "2^70": (K, "injection.k: {int: [1, 1180591620717411303424]}", ["8:26 search.injection.k.int[1]: got 1180591620717411303424; expected a whole number of at most 9007199254740992"]),
    "step 0": (K, "injection.k: {int: [1, 3], step: 0}", ["8:30 search.injection.k.step: got 0; expected a whole number of at least 1"]),
    "step beyond the range": (K, "injection.k: {int: [1, 3], step: 4}", ["8:30 search.injection.k.step: got 4; expected a step of at most 2, the whole range"]),
    "step that misses the end": (K, "injection.scale: {uniform: [0.1, 0.9], step: 0.3}", ["8:42 search.injection.scale.step: got a step of 0.3, which misses 0.9; expected a step that reaches the upper end; try 0.7 as the upper end"]),
    "step of choices": (K, "injection.k: {choice: [1, 2], step: 1}", ["8:33 search.injection.k.step: got a step with choice; expected a step only with uniform or int; try deleting it"]),
    "condition on what is not searched": (K, "injection.scale: {uniform: [0.1, 0.9], when: {injection.init: damped}}", ["8:49 search.injection.scale.when.injection.init: got 'injection.init', which is not searched; expected a path under search; try adding it, or deleting search.injection.scale.when.injection.init"]),
    "condition never met": (K, "injection.init: {choice: [copy, damped]}\n  injection.scale: {uniform: [0.1, 0.9], when: {injection.init: dampd}}", ["9:49 search.injection.scale.when.injection.init: got 'dampd'; expected one of its choices 'copy', 'damped'; try damped"]),
    "conditions in a circle": (f"{K}\n  {LR}", "injection.k: {choice: [1, 2], when: {injection.init: copy}}\n  injection.init: {choice: [copy, mean], when: {injection.k: 1}}", ["8:33 search.injection.k.when: got a circle, injection.k -> injection.init -> injection.k; expected conditions that end somewhere; try deleting one of them"]),
    # -- budget, stopping, finalists, resources, stores --
    "budget of 1": ("trials: 6", "trials: 1", ["10:10 budget.trials: got 1; expected a whole number of at least 2 (the control and the baseline come first); try 24"]),
    "budget not a number": ("trials: 6", "trials: .nan", ["10:10 budget.trials: got nan; expected a whole number of at least 2 (the control and the baseline come first); try 24"]),
    "no tokens": ("trials: 6", "trials: 6, tokens: 0", ["10:21 budget.tokens: got 0; expected a whole number of at least 1, or null for no limit; try null"]),
    "tokens that are used up before the search": ("trials: 6", "trials: 6, tokens: 4096", ["10:21 budget.tokens: got 4,096; expected more than 4,096, which the control and the baseline take; try 12288"]),
    "infinite FLOPs": ("trials: 6", "trials: 6, flops: .inf", ["10:21 budget.flops: got inf; expected a finite number above 0, or null for no limit; try null"]),
    "GPU-hours without a GPU": ("trials: 6", "trials: 6, gpu_hours: 2", ["10:21 budget.gpu_hours: got 2.0; expected no limit of GPU-hours where trials have no GPU; try wall"]),
    "time as on a clock": ("trials: 6", "trials: 6, wall: 1h30", ["10:21 budget.wall: got the text '1h30'; expected a finite number above 0 (seconds), or null for no limit; try null"]),
    "grace of 1": ("grace: 0.2", "grace: 1", ["11:24 stopping.grace: got 1; expected a share of the steps between 0 and 1; try 0.2"]),
    "keep of 0": ("keep: 0.33", "keep: 0", ["11:36 stopping.keep: got 0; expected a share of the trials between 0 and 1; try 0.33"]),
    "no finalist": ("top: 1", "top: 0", ["12:13 finalists.top: got 0; expected a whole number of at least 1; try 3"]),
    "more finalists than trials": ("top: 1", "top: 6", ["12:13 finalists.top: got 6; expected at most 5, the budget's trials without the control; try 5"]),
    "nothing to train": ("k: 2, init: identity}\n  recipe: {", "method: none}\n  recipe: {train: injected, ", ["5:15 trial.injection.method: got 'none', of which recipe.train: injected trains nothing; expected all of it trained, or another method; try recipe.train: all", f"8:3 search.injection.k: got 'injection.k', which no trial reads ({NONE}); expected a setting that changes the model; try deleting it"]),
    "nothing to train in some trials": (K, "injection.method: {choice: [tli, none]}\n  recipe.train: {choice: [all, injected]}", ["8:3 search.injection.method: got 'none', of which recipe.train: injected trains nothing; expected all of it trained, or another method; try recipe.train: all"]),
    "finalists of each value of nothing": ("seeds: 2", "seeds: 2, per: injection.kk", ["12:31 finalists.per: got 'injection.kk'; expected a path under search that has choices: injection.k; try injection.k"]),
    "finalists of each rate": ("seeds: 2", "seeds: 2, per: recipe.learning_rate", ["12:31 finalists.per: got 'recipe.learning_rate', a range of numbers; expected a path under search that has choices: injection.k; try null"]),
    "unknown sampler": ("budget:", "sampler: {name: tpee}\nbudget:", ["10:11 sampler.name: got 'tpee'; expected one of gp, tpe, random, qmc, grid; try tpe"]),
    "unknown metric": ("budget:", "objective: {metric: loss}\nbudget:", ["10:13 objective.metric: got 'loss'; expected eval_loss, or a task and its metric, as in kobest_copa/acc; try eval_loss"]),
    "no cpu": ("budget:", "resources: {cpus: 0}\nbudget:", ["10:13 resources.cpus: got 0; expected a whole number of at least 1; try 1"]),
    "cores that are not there": ("budget:", "resources: {cpus: 4096}\nbudget:", [f"10:13 resources.cpus: got 4096; expected at most {machine.cores()}, the cores of this machine; try {machine.cores()}"]),
    "more GPUs than a trial uses": ("budget:", "resources: {gpus: 99}\nbudget:", ["10:13 resources.gpus: got 99; expected at most 1: a rank trains on one GPU, and others would stand idle and count as GPU-hours; try 1, with resources.workers: 99"]),
    "none at once": ("budget:", "resources: {parallel: 0}\nbudget:", ["10:13 resources.parallel: got 0; expected a whole number of at least 1, or null for as many as fit; try null"]),
    "store of another kind": ("budget:", "storage: {study: 'mysql://me:secret@db/x'}\nbudget:", ["10:11 storage.study: got 'mysql://me:***@db/x'; expected sqlite, or an address sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE; try sqlite"]),
    "store in memory": ("budget:", "storage: {study: 'sqlite:///:memory:'}\nbudget:", ["10:11 storage.study: got 'sqlite:///:memory:'; expected sqlite, or an address sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE; try sqlite"]),
    "store away": ("budget:", "storage: {study: 'postgresql://me:secret@127.0.0.1:1/x'}\nbudget:", ["10:11 storage.study: got 'postgresql://me:***@127.0.0.1:1/x' (127.0.0.1:1: Connection refused); expected a PostgreSQL server that answers; try starting it"]),
    "store that is text": ("budget:", "storage: {study: 'sqlite:///train.txt'}\nbudget:", ["10:11 storage.study: got 'train.txt', which is no SQLite file; expected a SQLite file or a new one; try another name"]),
    "store of another program": ("budget:", "storage: {study: 'sqlite:///other.db'}\nbudget:", ["10:11 storage.study: got 'other.db', which holds something else (no table 'studies'); expected a SQLite file or a new one; try another name"]),
    "store that is broken": ("budget:", "storage: {study: 'sqlite:///broken.db'}\nbudget:", ["10:11 storage.study: got 'broken.db', which is broken (file is not a database); expected a SQLite file; try its last copy"]),
    "one store for both": ("budget:", "storage: {study: 'sqlite:///x.db'}\ntracking: {uri: 'sqlite:///x.db'}\nbudget:", ["11:12 tracking.uri: got 'sqlite:///x.db', the study's own store; expected a store of its own: Optuna and MLflow would take each other's tables for theirs; try another database, or sqlite"]),
    "artifacts in a bucket": ("budget:", "storage: {artifacts: 's3://bucket/x'}\nbudget:", ["10:11 storage.artifacts: got 's3://bucket/x'; expected a folder that all trials can reach; try runs"]),
    "artifacts in a file": ("budget:", "storage: {artifacts: train.txt}\nbudget:", ["10:11 storage.artifacts: got '{cwd}/train.txt', a file; expected a folder; try another folder"]),
    "tracking in a folder": ("budget:", "tracking: {uri: mlruns}\nbudget:", ["10:12 tracking.uri: got 'mlruns'; expected sqlite, null, or an address http(s)://HOST or sqlite:///FILE; try sqlite"]),
    # -- many at once --
    "all at once": ("k: 2, init: identity", "k: 0, init: idntity, kk: 1", ["5:15 trial.injection.k: got 0; expected a whole number of at least 1 (layers per injected layer); try 4", f"5:21 trial.injection.init: got 'idntity'; expected {INITS}; try identity", f"5:36 trial.injection.kk: got an unknown setting; expected one of {INJECTION}; try trial.injection.k"]),
    "type and search at once": ("trials: 6", "trials: x, trial: 3", ["10:10 budget.trials: got the text 'x'; expected a whole number of at least 2 (the control and the baseline come first); try 24", "10:21 budget.trial: got an unknown setting; expected one of trials, tokens, flops, gpu_hours, wall, ladder; try budget.trials"]),
}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a base and text that GOOD runs on."""
    shutil.copytree(tiny_model("llama"), tmp_path / "base")
    (tmp_path / "train.txt").write_text("Some text to train on.\n" * 200)
    (tmp_path / "test.txt").write_text("Other text, held out.\n" * 50)
    (tmp_path / "broken.db").write_bytes(b"SQLite format 3\x00" + b"\x55" * 5000)
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE notes (text TEXT)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWEEPS_RUNS", raising=False)
    return tmp_path


def refused(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    spec: str | bytes | None = GOOD,
    *more: str,
    name: str = "spec.yaml",
) -> list[str]:
    """Validate a spec that must be refused, in time and without traces; returns its lines."""
    if spec is not None:
        (place / name).write_bytes(spec if isinstance(spec, bytes) else spec.encode())
    before = tree(place)
    started = time.perf_counter()
    code = main(["validate", name, *more])
    seconds = time.perf_counter() - started
    out, err = capsys.readouterr()
    assert code == 2, out + err
    assert out == ""
    assert seconds < 2
    assert "Traceback" not in err
    assert tree(place) == before
    lines = err.splitlines()
    assert all(line.startswith("error: ") for line in lines), err
    return [line.removeprefix("error: ") for line in lines]


def tree(place: Path) -> dict[str, int]:
    """Every path below a folder and when it was last written."""
    return {str(path): path.lstat().st_mtime_ns for path in [place, *place.rglob("*")]}


def test_the_good_one_is_fine(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "spec.yaml").write_text(GOOD)
    before = tree(place)
    assert main(["validate", "spec.yaml"]) == 0, capsys.readouterr().err
    assert tree(place) == before


@pytest.mark.parametrize("mistake", MISTAKES)
def test_spec(mistake: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there, instead, expected = MISTAKES[mistake]
    assert GOOD.count(there) == 1, "the table names a text that stands once in GOOD"
    spec = GOOD.replace(there, instead)
    lines = [line.replace("{cwd}", str(place)) for line in expected]
    lines = [f"spec.yaml{line}" if line.startswith(": ") else f"spec.yaml:{line}" for line in lines]
    assert refused(place, capsys, spec) == lines


def test_the_table_is_long_enough() -> None:
    assert len(MISTAKES) >= 40


# -- the file ---------------------------------------------------------------------------------------------------


def test_missing_file_names_the_nearest(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "my-sweep.yaml").write_text(GOOD)
    expected = f"expected a YAML file, or one of {', '.join(packaged())}"
    assert refused(place, capsys, None, name="my-sweeep.yaml") == [
        f"my-sweeep.yaml: got no such file; {expected}; try my-sweep.yaml"
    ]
    assert refused(place, capsys, None, name="quickstrat") == [
        f"quickstrat: got no such file; {expected}; try quickstart"
    ]


def test_folder_in_place_of_a_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(place, capsys, None, name="base") == [
        "base: got a folder; expected a YAML file; try naming the file in it"
    ]


def test_not_utf8(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(place, capsys, GOOD.encode("utf-16")) == [
        "spec.yaml:1:1: got the byte 0xff, which is not UTF-8; expected UTF-8 text; try saving the file as UTF-8"
    ]


def test_too_large_a_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refused(place, capsys, GOOD + "#" * 1_000_001)
    assert line.startswith(
        f"spec.yaml: got a file of {len(GOOD) + 1_000_001:,} bytes, larger than 1,000,000;"
    )
    assert line.endswith("; expected a YAML file of at most 1,000,000 bytes")


# -- options ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("budget.trials=x", ": got the text 'x'; expected a whole number of at least 2 (the control and the baseline come first); try 24"),
        ("budget.trial=40", ": got an unknown setting; expected one of trials, tokens, flops, gpu_hours, wall, ladder; try budget.trials"),
        ("recipe.learning_rate=1e-3", ": got an unknown setting; expected one of name, base, data, trial, search, objective, sampler, warm_start, budget, stopping, control, finalists, evaluation, resources, retries, storage, tracking; try trial.recipe.learning_rate"),
        ("budget.trials", ": got no dotted path and value; expected dotted.path=value; try --set budget.trials=40"),
        ("name.x=1", ": got a path through name, which holds one value; expected a path to a setting"),
        ("finalists={top: 0}", " finalists.top: got 0; expected a whole number of at least 1; try 3"),
        ("search.injection.k.choice=[0]", " search.injection.k.choice[0]: got 0; expected a whole number of at least 1 (layers per injected layer)"),
        ("tracking.uri=[1", ": got broken YAML (expected ',' or ']', but got '<stream end>', while parsing a flow sequence from line 1); expected YAML; try closing every bracket and quote, and a space after every colon"),
    ],
)  # fmt: skip
def test_set(option: str, line: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(place, capsys, GOOD, "--set", option) == [f"--set {option}{line}"]


@pytest.mark.parametrize(
    ("option", "remedy"),
    [
        ("recipe.lr=1", "trial.recipe.learning_rate"),
        ("lr=1", "trial.recipe.learning_rate"),
        ("trial.lr=1", "trial.recipe.learning_rate"),
        ("injection.k=2", "trial.injection.k"),
        ("recipe={learning_rate: 1}", "trial.recipe.learning_rate"),
        ("recipe={learning_rate: 1, tokens: 9}", "trial.recipe"),
        ("trial.recipe.batch_size=8", "trial.recipe.batch_tokens"),
        ("batch_size=8", "trial.recipe.batch_tokens"),
        ("data.seq_len=8", "data.sequence_length"),
        ("mlflow=http://h", "tracking.uri"),
        ("finalists.seed=2", "finalists.seeds"),
        ("stopping=null", "{rule: none}"),
        ("stopping=none", "{rule: none}"),
        ("stopping=false", "{rule: none}"),
        ("trial.stopping=null", "stopping: {rule: none}"),
        ("finalists=null", "{top: 1, seeds: 1}"),
        ("retries=null", "{lost: 0, hung: 0, error: 0}"),
        ("stopping=median", "{rule: median}"),
        ("stopping=medain", "{rule: median}"),
        ("sampler=random", "{name: random}"),
        ("budget=8", "{trials: 8}"),
        ("tracking=http://h:5", "{uri: http://h:5}"),
        ("tracking=http://u:PW77@h", "{uri: http://u:***@h}"),
        ("storage=postgresql://h/d", "{study: postgresql://h/d}"),
        ("storage=elsewhere", "{artifacts: elsewhere}"),
        ("base=some/model", "{model: some/model}"),
        ("budget.wall=1h", "3600"),
        ("budget.wall=90 min", "5400"),
        ("budget.wall=1.5h", "5400"),
        ("budget.wall=1x", "null"),
        ("budget.gpu_hours=30m", "0.5"),
        ("budget.tokens=5M", "5000000"),
        ("budget.trials=1k", "1000"),
    ],
)
def test_the_remedy_is_what_to_type(
    option: str, remedy: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = refused(place, capsys, GOOD, "--set", option)
    assert line.rpartition("; try ")[2] == remedy
    assert "PW77" not in line


def test_options_that_cannot_be_laid_over_hide_no_other_mistake(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["budget.trials", "name.x=1", "budget.wall=1h"]
    lines = refused(place, capsys, GOOD.replace("k: 2", "k: 0"), *(w for o in options for w in ("--set", o)))
    assert [line.partition(": got")[0] for line in lines] == [
        "--set budget.trials",
        "--set name.x=1",
        "spec.yaml:5:15 trial.injection.k",
        "--set budget.wall=1h",
    ]


ONE_RANGE = GOOD.replace(f"  {K}\n", "")


@pytest.mark.parametrize(
    "option",
    ["search.recipe.learning_rate=3", "search.recipe.learning_rate.log=[1]", "search={injection.k: 3}"],
)
def test_the_only_range_is_wrong(option: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One mistake: that no range is left is no second one."""
    (line,) = refused(place, capsys, ONE_RANGE, "--set", option)
    assert line.startswith(f"--set {option}")


@pytest.mark.parametrize(
    ("options", "path"),
    [
        (["trial.injection.after='0'"], "injection.k"),
        (["trial.injection.method=dus", "trial.injection.m=1"], "injection.k"),
        (["search.injection.m={choice: [1, 2]}"], "injection.m"),
        (["search.injection.experts.top_k={choice: [1, 2]}"], "injection.experts.top_k"),
        (["search.injection.scale={uniform: [0.1, 0.9]}"], "injection.scale"),
        (["search.injection.init={choice: [copy, damped]}", "search.injection.scale={uniform: [0.1, 0.9], when: {injection.init: copy}}"], "injection.scale"),
    ],
)  # fmt: skip
def test_a_range_that_no_trial_reads(
    options: list[str], path: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = refused(place, capsys, GOOD, *(word for each in options for word in ("--set", each)))
    assert f"'{path}', which no trial reads" in line
    assert f"search.{path}" in line


def test_a_method_that_needs_what_is_not_given(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    option = "search.injection.method={choice: [tli, dus]}"
    (line,) = refused(place, capsys, GOOD, "--set", option)
    assert "search.injection.method.choice[1]: got 'dus', which needs m" in line


@pytest.mark.parametrize(
    "address", ["postgresql:/u:PW77@h/db", "postgresql//u:PW77@h/db", "u:PW77@h/db", "http:u:PW77@h"]
)
def test_a_mistyped_address_shows_no_password(
    address: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for setting in ("storage.study", "tracking.uri"):
        (place / "spec.yaml").write_text(
            f"{GOOD}{setting.split('.')[0]}: {{{setting.split('.')[1]}: '{address}'}}\n"
        )
        assert main(["validate", "spec.yaml"]) == 2
        told = capsys.readouterr().err
        assert "PW77" not in told
        assert setting in told


def test_a_range_that_some_trials_read_is_fine(place: Path) -> None:
    (place / "spec.yaml").write_text(GOOD)
    options = ["search.injection.method={choice: [tli, dus]}", "search.injection.m={choice: [0, 1]}"]
    assert main(["validate", "spec.yaml", *(word for each in options for word in ("--set", each))]) == 0


def test_an_error_answers_programs_too(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "spec.yaml").write_text(GOOD.replace("k: 2", "k: 0"))
    assert main(["run", "spec.yaml", "--set", "budget.trials=x", "--json"]) == 2
    out, told = capsys.readouterr()
    answer = json.loads(out)
    first, second = answer["problems"]
    assert [first[name] for name in ("file", "line", "column", "path", "got", "try")] == ["spec.yaml", 5, 15, "trial.injection.k", "0", "4"]  # fmt: skip
    assert (second["file"], second["path"], second["got"]) == (None, "--set budget.trials=x", "the text 'x'")
    assert answer["error"].splitlines() == [line.removeprefix("error: ") for line in told.splitlines()]
    for command, problems in (
        (["status", "nothing-here", "--json"], 1),
        (["best", "nothing-here", "--json"], 1),
        (["best", "--jsno", "--json"], 1),
    ):
        with contextlib.suppress(SystemExit):
            assert main(command) == 2
        assert len(json.loads(capsys.readouterr().out)["problems"]) == problems


@pytest.mark.parametrize(
    "words",
    [
        "export tiny --out {}",
        "trial spec.yaml 1 --out {}",
        "submit spec.yaml --working-dir {}",
        "run spec.yaml --runs {}",
        "list --runs {}",
        "validate spec.yaml --set storage.artifacts={}",
        "validate spec.yaml --set base.model={}",
        "validate spec.yaml --set data.source={}.txt",
        "validate spec.yaml --set storage.study=sqlite:///{}",
        "validate spec.yaml --set tracking.uri=sqlite:///{}",
        "validate spec.yaml --set tracking.uri=sqlite:///~/x",
    ],
)
def test_the_home_folder_of_no_user_is_no_folder(
    words: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "spec.yaml").write_text(GOOD)
    before = sorted(place.rglob("*"))
    with contextlib.suppress(SystemExit):
        assert main(words.format("~nobody-of-this-name/x").split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --")
    assert "~" in line
    assert sorted(place.rglob("*")) == before


def test_runs_option_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(place, capsys, GOOD, "--runs", "test.txt") == [
        f"--runs test.txt: got '{place}/test.txt', a file; expected a folder; try another folder"
    ]


# -- bases ------------------------------------------------------------------------------------------------------


def with_base(place: Path, change: Callable[[Path], None]) -> Path:
    base = place / "base"
    change(base)
    return base


def weights_of(base: Path) -> Path:
    return base / "model.safetensors"


def set_config(base: Path, **values: object) -> None:
    path = base / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_base_missing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = GOOD.replace("{model: base}", "{model: ./basis}")
    assert refused(place, capsys, spec) == [
        (
            "spec.yaml:2:8 base.model: got './basis', which does not exist; "
            "expected a folder, a hub id or the built-in model; try base"
        )
    ]


def test_base_unknown_builtin(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refused(place, capsys, GOOD.replace("{model: base}", "{model: builtin:huge}"))
    assert line.startswith("spec.yaml:2:8 base.model: got 'builtin:huge'; expected one of ")


def test_base_is_a_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(place, capsys, GOOD.replace("{model: base}", "{model: train.txt}")) == [
        "spec.yaml:2:8 base.model: got 'train.txt', a file; expected a model folder; try ."
    ]


def test_base_is_no_model(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = with_base(place, lambda base: [path.unlink() for path in base.iterdir()] and None)
    assert refused(place, capsys) == [
        "base: got no config.json; expected the folder of a causal language model"
    ]
    assert not list(base.iterdir())


def test_base_truncated(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = weights_of(place / "base")
    whole = weights.stat().st_size
    os.truncate(weights, whole - 100)
    lines = refused(place, capsys)
    assert len(lines) == 1
    assert lines[0].startswith("base/model.safetensors: got ")
    assert lines[0].endswith(f"expected {whole}, as its header says; try downloading it again")


def test_base_pickle(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = weights_of(place / "base")
    weights.unlink()
    (place / "base/pytorch_model.bin").write_bytes(b"PK\x03\x04 and so on")
    (line,) = refused(place, capsys)
    assert line.startswith("base/pytorch_model.bin: got weights as a pickle; expected safetensors; try ")


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"PK\x03\x04\0\0\x08\x08" + b"\0" * 200, "a pickle in a zip (torch.save) under another name"),
        (b"\x80\x02" + b"\xff" * 200, "a pickle under another name"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "a git-lfs pointer, not the file it points to"),
    ],
)  # fmt: skip
def test_base_in_disguise(content: bytes, got: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights_of(place / "base").write_bytes(content)
    (line,) = refused(place, capsys)
    assert line.startswith(f"base/model.safetensors: got {got}; expected safetensors; try ")


def test_base_header_beyond_the_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights_of(place / "base").write_bytes(struct.pack("<Q", 10_000) + b"{}")
    (line,) = refused(place, capsys)
    assert line.startswith("base/model.safetensors: got ")
    assert "expected more than 10008" in line


def test_base_encoder(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_config(place / "base", model_type="bert", architectures=["BertModel"])
    lines = refused(place, capsys)
    assert (
        "base/config.json: architectures: got BertModel; expected a causal language model (...ForCausalLM)"
        in lines
    )


def test_base_of_an_unknown_family(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_config(place / "base", model_type="my_own")
    (line,) = refused(place, capsys)
    assert line.startswith(
        "spec.yaml:2:8 base.model (base/config.json): got 'my_own' (not known which of its weights"
    )


def test_base_with_code_of_its_own(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_config(place / "base", auto_map={"AutoModelForCausalLM": "modeling.Mine"})
    assert refused(place, capsys) == [
        (
            "base/config.json: auto_map: got code of its own; expected none; "
            "try allowing remote code, if you trust it"
        )
    ]


def test_base_with_a_missing_shard(
    place: Path, save_model: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(place / "base")
    save_model(place / "base", shard="40KB")
    capsys.readouterr()
    shards = sorted((place / "base").glob("model-*.safetensors"))
    assert len(shards) > 1
    shards[1].unlink()
    assert refused(place, capsys) == [
        f"base/{shards[1].name}: got no such file; expected a safetensors file; try downloading it again"
    ]


def test_base_config_that_is_no_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "base/config.json").write_text("{not json")
    (line,) = refused(place, capsys)
    assert line.startswith("base/config.json: got no JSON (")


def test_base_folder_with_a_revision(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(place, capsys, GOOD.replace("{model: base}", "{model: base, revision: main}")) == [
        "spec.yaml:2:21 base.revision: got 'main'; expected none, as base is a folder"
    ]


# -- data -------------------------------------------------------------------------------------------------------


def test_data_missing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "train.txt").unlink()
    assert refused(place, capsys) == [
        "spec.yaml:3:8 data.source: got 'train.txt', which matches no file; expected files that exist; try ls train.txt"
    ]


def test_data_glob_without_a_match(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(place, capsys, GOOD.replace("train.txt", "parts/*.txt")) == [
        "spec.yaml:3:8 data.source: got 'parts/*.txt', which matches no file; expected files that exist; try ls parts/*.txt"
    ]


def test_data_empty(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "train.txt").write_text("")
    assert refused(place, capsys) == [
        "spec.yaml:3:8 data.source: got 'train.txt', which is empty; expected text; try another file"
    ]


def test_data_on_both_sides(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(place, capsys, GOOD.replace("heldout: test.txt", "heldout: t*.txt")) == [
        f"spec.yaml:3:27 data.heldout: got '{place}/train.txt', which is also trained on; expected text of its own; try another file"
    ]


def test_data_of_an_unknown_kind(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "train.docx").write_bytes(b"PK")
    assert refused(place, capsys, GOOD.replace("train.txt", "train.docx")) == [
        "spec.yaml:3:8 data.source: got 'train.docx'; expected one of .txt, .md, .jsonl, .parquet; try convert it to jsonl"
    ]


def test_data_without_the_column(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "train.jsonl").write_text('{"body": "some text"}\n')
    assert refused(place, capsys, GOOD.replace("train.txt", "train.jsonl")) == [
        "train.jsonl:1: got fields body; expected text in the field 'text'; try data.text_field: NAME"
    ]


def test_data_that_is_no_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "train.jsonl").write_text("some text\n")
    (line,) = refused(place, capsys, GOOD.replace("train.txt", "train.jsonl"))
    assert line.startswith("train.jsonl:1: got no JSON (")


def test_base_data_and_machine_at_once(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights_of(place / "base").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (place / "test.txt").unlink()
    lines = refused(place, capsys, GOOD + "resources: {cpus: 4096}\n")
    assert [line.split(": got ")[0] for line in lines] == [
        "base/model.safetensors",
        "spec.yaml:3:27 data.heldout",
        "spec.yaml:13:13 resources.cpus",
    ]


# -- real processes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mistake", ["K of 0", "K above the depth"])
def test_as_a_command(mistake: str, place: Path) -> None:
    there, instead, expected = MISTAKES[mistake]
    (place / "spec.yaml").write_text(GOOD.replace(there, instead))
    before = tree(place)
    done = subprocess.run(
        [sys.executable, "-m", "sweeps", "validate", "spec.yaml"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: spec.yaml:{expected[0]}\n"
    assert tree(place) == before


def test_a_reader_that_has_seen_enough_and_a_full_disk(place: Path) -> None:
    (place / "spec.yaml").write_text(GOOD)
    command = [sys.executable, "-m", "sweeps", "plan", "spec.yaml"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


def test_checking_loads_no_heavy_library(place: Path) -> None:
    (place / "spec.yaml").write_text(GOOD)
    heavy = (
        "torch",
        "transformers",
        "ray",
        "optuna",
        "mlflow",
        "numpy",
        "sqlalchemy",
        "pyarrow",
        "huggingface_hub",
    )
    code = (
        "import sys; from sweeps.__main__ import main; code = main(['validate', 'spec.yaml']); "
        f"print([name for name in {heavy!r} if name in sys.modules], code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[] 0", done.stdout + done.stderr
