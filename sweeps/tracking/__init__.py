"""MLflow sees the sweep through this room alone, and only a process of its own ever imports it.

The driver appends events to the outbox on disk (`Tracker`); a delivering process (`python -m
sweeps.tracking`) reads them and carries them to the tracking server. A server that is slow, away or broken
costs freshness only.
"""

from __future__ import annotations

from sweeps.tracking.interface import NullTracker, Tracking
from sweeps.tracking.store import store_uri, tracking_problems
from sweeps.tracking.tracker import LOG, Tracker, open_tracker

__all__ = ["LOG", "NullTracker", "Tracker", "Tracking", "open_tracker", "store_uri", "tracking_problems"]
