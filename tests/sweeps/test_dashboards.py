"""Grafana boards and Prometheus rules ask only for what is exported, and a real Prometheus answers them."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeps.driver.on_ray import metric_names
from sweeps.driver.on_ray.gauges import Gauges
from sweeps.driver.on_ray.metric_names import METRICS
from sweeps.folders import Folders
from sweeps.records import Cause, State, TrialRecord
from sweeps.results.standing import Aim, Board
from tests.sweeps.made_records import trial

ROOT = Path(__file__).parent.parent.parent
DASHBOARDS = ROOT / "dashboards"
PROMETHEUS = DASHBOARDS / "prometheus"
BOARDS = sorted((DASHBOARDS / "grafana" / "boards").glob("*.json"))
# Scraped from a Ray 2.60 on one machine, without GPU; then what it exports where there is one.
RAY = set((Path(__file__).parent / "ray_metric_names.txt").read_text().split())
RAY_ON_GPUS = {"ray_node_gpus_utilization", "ray_node_gram_used"}
OURS = {metric.exported: metric for metric in METRICS}
OF_PROMETHEUS = {"up"}
NAME = re.compile(r"\b(ray_[a-z0-9_]+|up)\b")
SELECTOR = re.compile(r"\b(ray_sweeps_[a-z0-9_]+)\{([^}]*)\}")

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def panels(board: Path) -> list[dict[str, Any]]:
    return [each for each in json.loads(board.read_text())["panels"] if each["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Where something is asked for, and what."""
    for board in BOARDS:
        for panel in panels(board):
            for target in panel["targets"]:
                yield f"{board.name}: {panel['title']}", target["expr"]
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


def test_what_boards_and_rules_ask_for_is_exported() -> None:
    known = {*OURS, *RAY, *RAY_ON_GPUS, *OF_PROMETHEUS}
    asked = {(where, name) for where, expression in queries() for name in NAME.findall(expression)}
    assert {(where, name) for where, name in asked if name not in known} == set()
    assert all(NAME.search(expression) for _, expression in queries())
    assert set(OURS) - {name for _, name in asked} == set(), "and nothing is exported that is shown nowhere"


def test_labels_that_are_asked_for_are_labels_of_that_gauge() -> None:
    for where, expression in queries():
        for name, inside in SELECTOR.findall(expression):
            labels = set(re.findall(r"(\w+)\s*=", inside))
            assert labels <= {"sweep", *OURS[name].labels}, where
        grouped = {
            label for found in re.findall(r"by \(([^)]*)\)", expression) for label in found.split(", ")
        }
        if set(NAME.findall(expression)) <= set(OURS):
            names = NAME.findall(expression)
            assert grouped <= {"sweep", *itertools.chain(*(OURS[name].labels for name in names))}, where


def test_there_are_few_series_whatever_the_number_of_trials(tmp_path: Path) -> None:
    gauges = of(tmp_path, [*ENDED, trial(70, None, state=State.RUNNING)])
    more = of(tmp_path, [*many(5_000), trial(5_000, None, state=State.RUNNING)])
    allowed = {"state", "role", "reason", "slot", "bound"}
    assert set(itertools.chain(*(metric.labels for metric in METRICS))) <= allowed
    few, lots = series(gauges), series(more)
    assert set(few) == set(lots)
    assert len(lots) < 60


ENDED = [
    trial(0, 3.5, rate=1e-3),
    trial(1, 3.25),
    trial(2, None, state=State.FAIL, reason="diverged: loss is nan"),
    trial(3, 3.75, state=State.PRUNED, retries={"lost": 2, "at": 8}),
]


def many(count: int) -> list[TrialRecord]:
    return [replace(ENDED[number % 4], number=number) for number in range(count)]


def of(root: Path, records: list[TrialRecord], slots: int = 2) -> Gauges:
    aim = Aim("mine", len(records) + 4, 2)
    gauges = Gauges(Board(aim), Folders(root, "mine"), slots, lambda: 512)
    gauges.update(records, "search")
    gauges.measured(time.time() - 3.0)
    return gauges


def series(gauges: Gauges) -> dict[tuple[str, ...], float | None]:
    standing = gauges._board.standing(time.time(), 0)
    found = {}
    for metric, value, labels in gauges._values(standing):
        assert tuple(sorted(labels)) == tuple(sorted(metric.labels)), metric.name
        found[(metric.name, *labels.values())] = value
    return found


def test_the_numbers_are_those_of_the_trials(tmp_path: Path) -> None:
    running = [trial(number, None, state=State.RUNNING) for number in (4, 5)]
    gauges = of(tmp_path, [*ENDED, *running])
    found = series(gauges)
    expected = {
        ("sweeps_trials", "complete"): 2,
        ("sweeps_trials", "running"): 2,
        ("sweeps_trials", "fail"): 1,
        ("sweeps_best_loss",): 3.25,
        ("sweeps_slots", "busy"): 2,
        ("sweeps_slots", "idle"): 0,
        ("sweeps_running_trial", "0"): 4,
        ("sweeps_running_loss", "1"): 4.0,
        ("sweeps_tokens",): 6_000,
        ("sweeps_failures", "diverged"): 1,
        ("sweeps_failures", "lost"): 2,
        ("sweeps_failures", "hung"): 0,
        ("sweeps_tracking_lag_bytes",): 512,
    }
    assert {key: found[key] for key in expected} == expected
    assert found["sweeps_ledger_lag_seconds",] == pytest.approx(3.0, abs=1.0)
    assert found["sweeps_usual_silence_seconds",] is None, "one measurement has none before it"
    gauges.measured(time.time())
    assert 0 <= (series(gauges)["sweeps_usual_silence_seconds",] or 0.0) < 1.0
    assert {key[1] for key in found if key[0] == "sweeps_failures"} == set(Cause)
    gauges.update([*ENDED, replace(running[0], state=State.PRUNED), running[1]], "search")
    after = series(gauges)
    assert math.isnan(after["sweeps_running_trial", "0"] or 0.0), "an empty slot shows nothing"
    assert after["sweeps_running_trial", "1"] == 5, "a trial stays in its slot"
    assert after["sweeps_slots", "idle"] == 1


def test_gauges_cost_little(tmp_path: Path) -> None:
    """On the driver's path a change of 5,000 trials; beside it, in a thread, all values."""
    records = many(5_000)
    gauges = of(tmp_path, records)
    told, worked = [], []
    for _ in range(5):
        began = time.process_time()
        gauges.update(records, "search")
        told.append(time.process_time() - began)
        began = time.process_time()
        series(gauges)
        worked.append(time.process_time() - began)
    assert min(told) < 0.005
    assert min(worked) < 0.1, "every five seconds"


@pytest.mark.parametrize("board", BOARDS, ids=lambda path: path.stem)
def test_a_board_is_one_that_grafana_takes(board: Path) -> None:
    """The rules of its schema that a slip would break; the types were checked against @grafana/schema once."""
    shown = json.loads(board.read_text())
    assert re.fullmatch(r"[a-z-]{1,40}", shown["uid"])
    assert isinstance(shown["schemaVersion"], int)
    assert all(isinstance(shown[key], list) for key in ("panels", "links", "tags"))
    variables = {each["name"] for each in shown["templating"]["list"]}
    numbers = [panel["id"] for panel in shown["panels"]]
    assert len(numbers) == len(set(numbers))
    taken = set[tuple[int, int]]()
    for panel in shown["panels"]:
        place = panel["gridPos"]
        cells = set(
            itertools.product(
                range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
            )
        )
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, f"{panel['title']} lies over another"
        taken |= cells
    for panel in panels(board):
        assert panel["title"]
        assert panel["type"] in {"stat", "timeseries"}
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters) > 0
        for target in panel["targets"]:
            assert (
                target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            )
            assert set(re.findall(r"\$\{?(\w+)", target["expr"])) <= variables
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= {
                label
                for found in re.findall(r"by \(([^)]*)\)", target["expr"])
                for label in found.split(", ")
            }
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert steps[0]["value"] is None


def test_grafana_is_provisioned_with_the_boards_and_their_source() -> None:
    provisioning = DASHBOARDS / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "sweeps.yml").read_text())["providers"]
    assert (provider["type"], provider["options"]["path"]) == ("file", "${SWEEPS_BOARDS}")
    assert {board.stem for board in BOARDS} == {"cluster", "sweep"}


@needs_promtool
def test_the_rules_hold_and_fire_when_they_should() -> None:
    for words in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run(
            ["promtool", *words], cwd=PROMETHEUS, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
    rules = [
        rule
        for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
        for rule in group["rules"]
    ]
    tested = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"][0]["alert_rule_test"]
    assert {rule["alert"] for rule in rules} == {each["alertname"] for each in tested if each["exp_alerts"]}


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed")
def test_a_real_prometheus_has_data_for_every_panel_of_a_real_sweep() -> None:
    """Scraped through the packaged configuration while the sweep runs on a Ray of its own; but for GPU panels."""
    with tempfile.TemporaryDirectory(prefix="prom-") as place:
        root = Path(place)
        shutil.copytree(PROMETHEUS, root / "dashboards" / "prometheus")
        config = root / "dashboards" / "prometheus" / "prometheus.yml"
        config.write_text(config.read_text().replace("10s", "2s"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={root / 'data'}"]
        server = subprocess.Popen(
            [*words, f"--web.listen-address=127.0.0.1:{port}"], stderr=subprocess.DEVNULL
        )
        run = [sys.executable, "-m", "sweeps", "run", "quickstart-small", "--runs", str(root / "runs")]
        given = {**os.environ, "TMPDIR": tempfile.gettempdir()}
        sweep = subprocess.Popen([*run, "--set", "budget.trials=8"], cwd=ROOT, env=given)
        try:
            missing = unanswered(port, sweep)
            names = {
                name for name in asked_of(port, "/api/v1/label/__name__/values") if name.startswith("ray_")
            }
            assert missing == {}
            asked = {name for _, expression in queries() for name in NAME.findall(expression)}
            assert asked - OF_PROMETHEUS - RAY_ON_GPUS <= names
            assert (
                not (root / "runs" / "prometheus" / "quickstart-small.json").exists() or sweep.poll() is None
            )
        finally:
            for process, number in ((sweep, signal.SIGINT), (server, signal.SIGTERM)):
                process.send_signal(number)
                process.wait(60)


def unanswered(port: int, sweep: subprocess.Popen[bytes]) -> dict[str, str]:
    """The panels' queries that had no finite number while the sweep ran."""
    wanted = {
        (where, expression): expression.replace("$sweep", "quickstart-small")
        for where, expression in queries()
        if where.partition(":")[0].endswith(".json") and not RAY_ON_GPUS & set(NAME.findall(expression))
    }
    deadline = time.monotonic() + 800
    while wanted and time.monotonic() < deadline and sweep.poll() is None:
        time.sleep(2)
        for key, expression in list(wanted.items()):
            try:
                found = asked_of(port, f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
            except OSError:  # it is not there yet
                break
            if any(math.isfinite(float(each["value"][1])) for each in found["result"]):
                del wanted[key]
    return dict(wanted)


def asked_of(port: int, what: str) -> Any:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}{what}", timeout=10) as answer:
        return json.load(answer)["data"]


def test_the_names_are_those_that_prometheus_allows() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert all(re.fullmatch(r"sweeps_[a-z_]+", metric.name) for metric in METRICS)
    assert {value for value in vars(metric_names).values() if isinstance(value, metric_names.Metric)} == set(
        METRICS
    )
