"""The sweep of the packaged quickstarts as a user would write it today, without `sweeps`: Ray Tune, Optuna, MLflow.

A function trainable that loads the base with `from_pretrained`, upscales and trains it by `tli`, reports, and saves
the model; OptunaSearch on SQLite, ASHA, MLflowLoggerCallback on SQLite. `bench_engine` gives it base, data, recipe
and slots as JSON, so that both sides do the same work: `python -m tests.bench.plain_sweep SETTINGS.json`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import optuna
import ray
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch


def space(trial: optuna.Trial) -> None:
    """The search section of the packaged specs."""
    trial.suggest_categorical("k", [1, 2, 4, 8])
    init = trial.suggest_categorical("init", ["copy", "identity", "damped", "mean", "random"])
    if init == "damped":
        trial.suggest_float("scale", 0.1, 0.9)
    trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)


def train(config: dict[str, Any]) -> None:
    """One trial."""
    from transformers import AutoModelForCausalLM

    from tli.data.batches import open_tokens
    from tli.data.settings import DataSettings
    from tli.growth.in_memory import grow, injected_parameters
    from tli.models.base import find
    from tli.planning.injection import Injection
    from tli.planning.plan import plan_for
    from tli.training.loop import Training
    from tli.training.recipe import Recipe

    given = config["given"]
    recipe = Recipe(**{**given["recipe"], "learning_rate": config["learning_rate"]})
    data = DataSettings(**given["data"])
    base = find(given["base"])
    model = AutoModelForCausalLM.from_pretrained(base.folder)
    injection = Injection(method="tli", k=config["k"], init=config["init"], scale=config.get("scale"))
    plan = plan_for(injection, model.config.num_hidden_layers)
    grown = grow(model, plan, seed=given["seed"])
    tokens = open_tokens(data, base, Path(given["tokens"]))
    length = data.sequence_length
    training = Training(
        grown,
        recipe,
        tokens.batches(sequence_length=length, batch_tokens=recipe.batch_tokens, seed=given["seed"]),
        tokens.heldout_windows(sequence_length=length, eval_tokens=data.eval_tokens),
        injected=injected_parameters(grown, plan),
        seed=given["seed"],
    )
    for progress in training.run(given["report_steps"]):
        if progress.step == recipe.steps:
            grown.save_pretrained(Path(tune.get_context().get_trial_dir()) / "final")
        tune.report(
            {
                "step": progress.step,
                "eval_loss": progress.eval_loss,
                "train_loss": progress.train_loss[-1][1] if progress.train_loss else 0.0,
                "seconds": progress.seconds,
                "measuring": progress.measuring,
            }
        )


def main() -> int:
    """Run it, and write what it took as JSON."""
    given = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(given["folder"])
    ray.init(num_cpus=given["slots"], include_dashboard=False)
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/study.db")
    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space={"given": given},
        tune_config=tune.TuneConfig(
            metric="eval_loss",
            mode="min",
            num_samples=given["trials"],
            search_alg=OptunaSearch(
                space=space,
                metric="eval_loss",
                mode="min",
                points_to_evaluate=[
                    {"k": 4, "init": "identity", "learning_rate": given["recipe"]["learning_rate"]}
                ],
                sampler=optuna.samplers.TPESampler(seed=0),
                study_name="plain",
                storage=storage,
            ),
            scheduler=ASHAScheduler(
                time_attr="step",
                max_t=given["report_steps"][-1],
                grace_period=given["grace"],
                reduction_factor=3,
            ),
        ),
        run_config=tune.RunConfig(
            name="plain",
            storage_path=str(folder / "results"),
            callbacks=[
                MLflowLoggerCallback(tracking_uri=f"sqlite:///{folder}/mlflow.db", experiment_name="plain")
            ],
        ),
    )
    rows = []
    for result in tuner.fit():
        points = result.metrics_dataframe
        rows.append(
            {
                "steps": int(points["step"].iloc[-1]),
                "loss": float(points["eval_loss"].iloc[-1]),
                "training": float(points["seconds"].iloc[-1]),
                "measuring": float(points["measuring"].sum()),
                "begun": float(points["timestamp"].iloc[0] - points["measuring"].iloc[0]),
            }
        )
    (folder / "rows.json").write_text(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
