"""All that knows Ray: trials on Ray Tune, jobs on a cluster, and whether one answers.

Promises: Ray carries out what the schedule hands it, and may be lost at any moment. Never decides what runs.
"""

__all__ = [
    "callbacks",
    "cluster_nodes",
    "gauges",
    "head_node",
    "jobs_server",
    "killing",
    "metric_names",
    "packing",
    "peers",
    "searcher",
    "stall_monitor",
    "submit",
    "temp_dirs",
    "tuner",
]
