"""Addresses, host names and ports at which the pages are served, and their token."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sweeps.errors import InputError, Problem


@dataclass(frozen=True)
class Door:
    """Where the pages are served, and to which requests."""

    host: str = "127.0.0.1"
    port: int = 5000  # of MLflow
    dashboard_port: int = 8080
    names: Sequence[str] = ()  # that this machine is known under elsewhere

    @property
    def known_as(self) -> list[str]:
        """The names that a request may ask for, beside the address that it came to and, here, localhost."""
        if not self.outside:
            return [*self.names]
        own = [socket.gethostname(), socket.getfqdn()]
        return [*own, *self.names] if self._address else [self.host, *own, *self.names]

    @property
    def outside(self) -> bool:
        """Whether other machines can reach it."""
        return not self._address.is_loopback if self._address else self.host != "localhost"

    @property
    def _address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The host, where it is no name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None


HERE = Door()


def sockets(door: Door, stores: Collection[str]) -> dict[str, socket.socket]:
    """A listening socket for each of the views.

    Args:
        door: where.
        stores: the views by name, "MLflow" or "Optuna".

    Raises:
        InputError: ports that cannot be had, all of them.
    """
    flags = {"MLflow": ("--port", door.port), "Optuna": ("--dashboard-port", door.dashboard_port)}
    problems, found = [], dict[str, socket.socket]()
    for name in stores:
        flag, port = flags[name]
        try:
            found[name] = _listen(door.host, port)
        except (OSError, OverflowError) as error:
            number = getattr(error, "errno", None)
            reason = os.strerror(number) if number and number > 0 else str(error)
            twice = port in [each.getsockname()[1] for each in found.values()]
            got = f"{port} ({'asked for twice' if twice else reason})"
            problems.append(Problem(flag, got, "a free port", f"{flag} {_free(door.host)}"))
    if problems:
        for each in found.values():
            each.close()
        raise InputError(*problems)
    return found


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, reuse_port=False)


def _free(host: str) -> int:
    try:
        with _listen(host, 0) as found:
            return int(found.getsockname()[1])
    except OSError:
        return 5001
