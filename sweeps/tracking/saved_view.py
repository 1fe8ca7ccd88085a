"""The saved view of a sweep's experiment: which columns, which charts, in which order.

MLflow keeps the views that its users save as tags of the experiment, `mlflow.sharedViewState.KEY`, each the
JSON of a name, two times and a state; its button "Views" lists them and an address opens one by its key. The
form is MLflow's own (3.17): a version with another one ignores it, and shows the page as it would be without.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.records import TrialRecord
from sweeps.results.finalists import is_done
from sweeps.tracking.appearance import compared

KEY = "sweep"
TAG = f"mlflow.sharedViewState.{KEY}"
KIND = {"mlflow.experimentKind": "custom_model_development"}  # opens on the runs, not on traces of agents
FILTER = "tags.`sweeps.compared` = 'yes'"
_NAME = "Sweep: gap to the control"
_MADE = 1_700_000_000_000  # milliseconds; any time will do, and one that stays is told once
_COLUMNS = {  # with their widths in pixels
    "metrics.`objective_gap`": 110,
    "params.`grown`": 90,
    "params.`first_weights`": 110,
    "params.`rate`": 80,
    "tags.`sweeps.end`": 190,
    "tags.`sweeps.role`": 90,
}
_ALWAYS = {"attributes.`Run Name`": 230}  # is not chosen
_FEWEST = 3  # complete trials of which an axis is made
_COMPARED, _REST = "compared", "rest"  # sections


Ranges = Mapping[str, tuple[float, float]]


def saved_view(*, ranked: bool, ranges: Ranges | None = None) -> str:
    """The value of the tag.

    Args:
        ranked: whether the sweep has its answer, so that what that hands over comes first, then finalists,
            control and baseline; else it is the lowest loss.
        ranges: the lowest and highest value of a chart's axis, by metric; where left out, MLflow's.
    """
    ranges = ranges or {}
    state = {
        "searchFilter": FILTER,
        "orderByKey": "tags.`sweeps.order`" if ranked else "metrics.`objective_gap`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "selectedColumns": list(_COLUMNS),
        "columnOrder": [*_ALWAYS, *_COLUMNS],
        "columnWidths": {**_ALWAYS, **_COLUMNS},
        "runsHiddenMode": "FIRST_20_RUNS",
        "hideEmptyCharts": True,
        "compareRunCharts": [
            *(_line(each, **_axis(ranges.get(each))) for each in ("control_gap", "eval_loss")),
            _chart("BAR", "objective_gap", _COMPARED),
            _line("train_loss", _REST),
            _line("tokens_per_second", _REST),
        ],
        "compareRunSections": [
            _section(_COMPARED, "Compared with the control", display=True, columns=2, cardHeight=340),
            _section(_REST, "Model metrics", display=False),
        ],
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state, separators=(",", ":")).encode(), 9)).decode()
    return json.dumps({"name": _NAME, "createdAt": _MADE, "updatedAt": _MADE, "state": f"deflate;{packed}"})


def figure_ranges(records: Sequence[TrialRecord], control: int | None) -> Ranges:
    """The axes of the charts by step, cut to where trials differ: diverging ones and first steps leave them.

    Args:
        records: of a sweep that has ended.
        control: number of the one that gaps are to.
    """
    reference = next((record for record in records if record.number == control), None)
    ended = [r for r in records if compared(r) and is_done(r) and r.value is not None]
    if reference is None or reference.value is None or len(ended) < _FEWEST:
        return {}
    values = sorted(r.value for r in ended if r.value is not None)
    low, high = values[0], values[len(values) // 2]
    later = [loss for step, loss in reference.losses.items() if step >= reference.steps / 4]
    tall = (max(high, reference.value) - low) / 2
    bottom, top = low - tall, max(high, reference.value) + tall  # the control's own line well inside
    gaps = (bottom - reference.value, top - reference.value)
    return {"control_gap": gaps, "eval_loss": (bottom, max(*later, top))}


# -- inside ----------------------------------------------------------------------------------------


def _chart(kind: str, metric: str, section: str, **more: Any) -> dict[str, Any]:
    return {
        "uuid": f"{kind.lower()}-{metric}",
        "type": kind,
        "runsCountToCompare": 20,
        "metricSectionId": section,
        "deleted": False,
        "isGenerated": False,
        "metricKey": metric,
        "displayName": metric,
        **more,
    }


def _line(metric: str, section: str = _COMPARED, **more: Any) -> dict[str, Any]:
    defaults = {
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "range": {},
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }
    return _chart("LINE", metric, section, **{**defaults, **more})


def _axis(found: tuple[float, float] | None) -> dict[str, Any]:
    if found is None:
        return {"ignoreOutliers": True}
    return {"range": {"yMin": found[0], "yMax": found[1]}}


def _section(uuid: str, name: str, **more: Any) -> dict[str, Any]:
    return {"uuid": uuid, "name": name, "isReordered": False, "deleted": False, "isGenerated": False, **more}
