"""All kinds of faults, by name."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from tests.faults import cluster, crowds, kills, ranks, spoiled, stores
from tests.faults.world import Arena

Kind = Callable[[Arena, random.Random, int], None]

KINDS: Mapping[str, Kind] = {
    "driver-at-write": kills.driver_at_write,
    "driver-twice": kills.driver_twice,
    "killed-before-state": kills.before_state,
    "killed-during-state": kills.during_state,
    "killed-after-state": kills.after_state,
    "killed-any-moment": kills.any_moment,
    "terminated": kills.terminated,
    "driver-frozen": kills.frozen,
    "not-a-number": spoiled.not_a_number,
    "damaged-state": spoiled.damaged_state,
    "planted-rows": spoiled.planted_rows,
    "deleted-study": spoiled.deleted_study,
    "moved-clock": spoiled.moved_clock,
    "many-drivers": crowds.many_drivers,
    "many-submissions": crowds.many_submissions,
    "mlflow-down": stores.mlflow_down,
    "mlflow-slow": stores.mlflow_slow,
    "mlflow-reply-lost": stores.mlflow_reply_lost,
    "postgres-restarted": stores.postgres_restarted,
    "disk-full": stores.disk_full,
    "disk-read-only": stores.disk_read_only,
    "worker-killed": cluster.worker_killed,
    "worker-killed-around-state": cluster.worker_killed_around_a_state,
    "worker-killed-after-report": cluster.worker_killed_after_report,
    "worker-hangs": cluster.worker_hangs,
    "worker-frozen": cluster.worker_frozen,
    "raylet-killed": cluster.raylet_killed,
    "head-killed": cluster.head_killed,
    **ranks.KINDS,
    "own-cluster-killed": cluster.own_cluster_killed,
}
