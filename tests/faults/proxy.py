"""A small TCP proxy before a server, which can be away, slow, or lose replies after the server has done its work."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress


class Proxy:
    """Forwards connections to a port of this machine; what it does to them may be changed at any time."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.down = False
        self.delay = 0.0  # seconds before a reply
        self.lose: set[int] = set()  # numbers of replies that never arrive
        self.replies = 0
        self.lost = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.down:
                client.close()
                continue
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """One connection: a request goes through at once, its reply as it is wanted."""
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            threading.Thread(target=self._requests, args=(client, server), daemon=True).start()
            asked = True
            with suppress(OSError):
                while reply := server.recv(1 << 20):
                    if asked := self._fate(first=asked):
                        return
                    client.sendall(reply)
                    asked = len(reply) < (1 << 20)

    def _fate(self, *, first: bool) -> bool:
        """Wait as long as a reply has to; whether it is lost."""
        if not first:
            return False
        with self._lock:
            number = self.replies
            self.replies += 1
        time.sleep(self.delay)
        if self.down or number in self.lose:
            self.lost += 1
            return True
        return False

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 20):
                server.sendall(data)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)
