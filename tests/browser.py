"""A headless Chromium driven through its DevTools protocol: pages opened, clicked, looked at, their errors kept."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_START_SECONDS = 60.0
# What a browser says where a layout takes one more frame; no page is wrong for it.
_NO_ERROR = "ResizeObserver loop"


class Browser:
    """One page of one browser; `errors` are what its console calls errors, and what was thrown."""

    def __init__(self, width: int = 1200, height: int = 800) -> None:
        self.errors: list[str] = []
        self._size = (width, height)
        self._loop = asyncio.new_event_loop()
        self._count = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        profile = Path(self._folder.name)
        self._process = subprocess.Popen(
            [
                str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
                "--disable-dev-shm-usage", "--disable-background-networking", "--hide-scrollbars",
                f"--window-size={self._size[0]},{self._size[1]}", f"--user-data-dir={profile}",
                "--remote-debugging-port=0", "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            self._loop.run_until_complete(self._connect(profile / "DevToolsActivePort"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            self._loop.run_until_complete(self._session.close())
        self._process.kill()
        self._process.wait()
        self._loop.close()
        self._folder.cleanup()

    def open(self, address: str) -> None:
        """Load a page; its scripts may still be at work afterwards."""
        self.call("Page.navigate", url=address)

    def evaluate(self, script: str) -> Any:
        """The value of an expression of JavaScript, awaited where it is a promise."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(json.dumps(answer["exceptionDetails"])[:2000])
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 30.0) -> float:
        """The seconds until an expression is true."""
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            with contextlib.suppress(AssertionError):  # while a page is replaced by another
                if self.evaluate(f"Boolean({script})"):
                    return time.monotonic() - begun
            self._loop.run_until_complete(asyncio.sleep(0.05))
        raise AssertionError(f"not within {seconds:g} s: {script}\n{self.text()[:2000]}")

    def rest(self, seconds: float) -> None:
        """Let the page work."""
        self._loop.run_until_complete(asyncio.sleep(seconds))

    def text(self) -> str:
        """All words that the page shows."""
        return str(self.evaluate("document.body.innerText"))

    def click(self, script: str) -> None:
        """A real click in the middle of the element that an expression gives."""
        x, y = self.evaluate(
            f"(e => {{e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();"
            f" return [b.x + b.width / 2, b.y + b.height / 2]}})({script})"
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def hover(self, script: str) -> None:
        """The pointer in the middle of the element that an expression gives."""
        x, y = self.evaluate(
            f"(e => {{const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]}})({script})"
        )
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def size(self, width: int, height: int) -> None:
        """The window from here on, in pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def dark(self, dark: bool) -> None:
        """What the page learns of the colours that its reader prefers."""
        value = "dark" if dark else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def shot(self, path: Path) -> None:
        """What is seen now, as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol, and its answer."""
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, params), 120.0))

    # -- inside ----------------------------------------------------------------------------------------

    async def _connect(self, port_file: Path) -> None:
        import aiohttp

        deadline = time.monotonic() + _START_SECONDS
        while not (port_file.exists() and len(port_file.read_text().splitlines()) > 1):
            assert self._process.poll() is None, "Chromium has ended"
            assert time.monotonic() < deadline, "Chromium did not start"
            await asyncio.sleep(0.05)
        port = port_file.read_text().splitlines()[0]
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json") as answer:
            (page, *_) = [each for each in await answer.json() if each["type"] == "page"]
        self._socket = await self._session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)
        self._reader = self._loop.create_task(self._read())
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self._call(f"{domain}.enable", {})

    async def _call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        number = self._count
        self._answers[number] = self._loop.create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        return await self._answers[number]

    async def _read(self) -> None:
        async for message in self._socket:
            said = json.loads(message.data)
            if (future := self._answers.pop(said.get("id", -1), None)) is not None:
                if "error" in said:
                    future.set_exception(AssertionError(str(said["error"])))
                else:
                    future.set_result(said["result"])
            elif (found := _ERRORS.get(said.get("method", ""))) and (text := found(said["params"])):
                self.errors += [] if _NO_ERROR in text else [text]


def _thrown(params: dict[str, Any]) -> str:
    details = params["exceptionDetails"]
    return f"thrown: {details.get('exception', {}).get('description', details['text'])}"


def _written(params: dict[str, Any]) -> str:
    if params["type"] != "error":
        return ""
    said = (str(each.get("value", each.get("description", ""))) for each in params["args"])
    return f"console: {' '.join(said)}"


def _logged(params: dict[str, Any]) -> str:
    entry = params["entry"]
    return f"log: {entry['text']} {entry.get('url', '')}" if entry["level"] == "error" else ""


_ERRORS: dict[str, Callable[[dict[str, Any]], str]] = {
    "Runtime.exceptionThrown": _thrown,
    "Runtime.consoleAPICalled": _written,
    "Log.entryAdded": _logged,
}
