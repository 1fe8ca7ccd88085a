"""The nodes of the cluster that this process has joined, as trials are counted on them."""

from __future__ import annotations

from collections.abc import Mapping

import ray
from ray._private.state import available_resources_per_node

from sweeps.checks.placement import Node


def nodes() -> list[Node]:
    """The nodes that are alive, with what Ray was told that they have."""
    return [_node(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def free_nodes() -> list[Node]:
    """The same with what no process has of it now."""
    return [_node(resources) for resources in available_resources_per_node().values()]


def _node(resources: Mapping[str, float]) -> Node:
    return Node(resources.get("CPU", 0.0), resources.get("GPU", 0.0))
