"""How busy a worker's GPUs are: readings by a thread of its own, off the training path, and their means."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from statistics import fmean

EVERY = 5.0  # seconds between two readings
Read = Callable[[], Mapping[str, float]]


class GpuMetrics:
    """Reads until it is closed. A reading that fails is left out, and the next one is tried."""

    def __init__(self, read: Read, every: float = EVERY) -> None:
        """Begin.

        Args:
            read: the values now, by name.
            every: seconds between two readings.
        """
        self._read, self._every = read, every
        self._readings: list[Mapping[str, float]] = []
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpu metrics", daemon=True)
        self._thread.start()

    def take(self) -> dict[str, float]:
        """The means of the readings since the last time; empty where there were none."""
        with self._lock:
            readings, self._readings = self._readings, []
        by_name = defaultdict(list)
        for reading in readings:
            for name, value in reading.items():
                by_name[name].append(value)
        return {name: fmean(values) for name, values in by_name.items()}

    def close(self) -> None:
        """End the thread; it does not wait for a reading that hangs."""
        self._over.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        while not self._over.wait(self._every):
            try:
                reading = dict(self._read())
            except Exception:  # noqa: BLE001, S112 - a driver's fault must not end a trial
                continue
            with self._lock:
                self._readings.append(reading)
