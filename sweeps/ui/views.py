"""The process of one page, `python -m sweeps.ui.views`: MLflow or optuna-dashboard behind the gate.

`sweeps ui` starts one for each page, hands it a socket that listens already and says by a pipe what to serve:
an address may hold a password, and the token is one, which a process list would show.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from sweeps.ui.gate import App, Gate, Message, Send

_SHOWING = ("GET", "HEAD")
_STATIC = "/static-files/"
_FOUND, _FOR_EVER = 200, b"private, max-age=31536000, immutable"  # their names bear a hash of what is in them
# What MLflow's pages ask for by POST, and what of it is no part of looking: programs of others and files.
_SEARCHES = ("/search", "/search-datasets", "/graphql", "/traces/metrics")
_CLOSED = ("artifact", "gateway", "assistant", "/jobs", "mcp")
# What MLflow's pages ask for at every start and is closed, or is not there: an error would stand on the page.
_NOTHING: dict[str, dict[str, Any]] = {
    "/ajax-api/3.0/mlflow/assistant/config": {
        "providers": {},
        "projects": {},
        "remote_access_allowed": False,
    },
    "/ajax-api/3.0/mlflow/assistant/providers": {
        "providers": [],
        "resolved": None,
        "gateway_vendor_options": {},
    },
    "/ajax-api/2.0/mlflow/gateway-proxy": {"endpoints": []},
    "/ajax-api/2.0/mlflow/users/current": {},
}
# At the first visit MLflow opens its assistant, which is closed here, over a third of the window, shows
# a run among pages for agents, and says above a saved view how to change it, which cannot be done here.
_CALM = (
    b'<script>localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1","true");'
    b'localStorage.setItem("mlflow.workflowType_v1",\'"machine_learning"\')</script>'
    b'<style>#root [data-component-id="mlflow.experiment_page.shared_view.banner"],'
    b"#root [data-assistant-ui]{display:none!important}</style>"
)


def main() -> None:
    """Serve until the pipe ends."""
    given = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_pipe, daemon=True).start()
    import uvicorn

    build, shows = _VIEWS[given["view"]]
    listening = socket.socket(fileno=given["socket"])
    gate = Gate(
        build(given["store"]),
        token=given["token"],
        port=listening.getsockname()[1],
        names=given["names"],
        shows=shows,
    )
    # The log of accesses would hold the token; headers of a proxy are what the client says.
    quiet = {"log_level": "warning", "access_log": False, "proxy_headers": False, "server_header": False}
    uvicorn.Server(uvicorn.Config(gate, ws="none", **quiet)).run(sockets=[listening])  # type: ignore[arg-type]


def shows_mlflow(method: str, path: str) -> bool:
    """Whether a request to MLflow only looks, at what the tracking store itself holds."""
    if method in _SHOWING and path.startswith(_STATIC):
        return True
    if path in _NOTHING:
        return method in _SHOWING
    if any(part in path for part in _CLOSED):
        return False
    return method in _SHOWING or (method == "POST" and path.endswith(_SEARCHES))


def shows_study(method: str, _path: str) -> bool:
    """Whether a request to optuna-dashboard only looks."""
    return method in _SHOWING


def _mlflow(uri: str) -> Any:
    """MLflow's own application over a store. Only the environment says what it serves."""
    from sweeps.tracking.store import from_within

    for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE"):
        os.environ[name] = "true"  # its checks of hosts and origins are the gate's, which knows more
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    os.environ["GIT_PYTHON_REFRESH"] = "quiet"
    from mlflow.server.constants import ARTIFACT_ROOT_ENV_VAR, BACKEND_STORE_URI_ENV_VAR

    os.environ[BACKEND_STORE_URI_ENV_VAR] = from_within(uri)
    os.environ[ARTIFACT_ROOT_ENV_VAR] = "mlflow-artifacts:/"  # no folder; nothing is written to it
    from mlflow.server.fastapi_app import app

    return _ForLooking(app)


class _ForLooking:
    """MLflow's application without what is no part of looking.

    Queries of GraphQL that list files are refused, as a store may name any folder. What the pages ask of
    parts that are closed has an empty answer. Scripts are sent from their files: through MLflow's threads
    they would take longer than all else of a page, and again at each visit.
    """

    def __init__(self, app: App) -> None:
        import mlflow.server
        from starlette.staticfiles import StaticFiles

        built = Path(mlflow.server.__file__).parent / mlflow.server.REL_STATIC_DIR
        self._app, self._static = app, StaticFiles(directory=built)

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: Callable[[], Awaitable[Message]], send: Send
    ) -> None:
        """Serve one connection of the ASGI protocol."""
        from starlette.requests import Request
        from starlette.responses import JSONResponse, PlainTextResponse

        if scope["type"] == "http" and scope["path"] in _NOTHING:
            await JSONResponse(_NOTHING[scope["path"]])(scope, receive, send)
            return
        if scope["type"] == "http" and scope["path"].startswith(_STATIC):
            inside = {**scope, "path": scope["path"].removeprefix(_STATIC.rstrip("/")), "root_path": ""}
            await self._static(inside, receive, _with_header(send, b"cache-control", _FOR_EVER))
            return
        if scope["type"] == "http" and scope["path"] == "/":
            await self._app(scope, receive, _with_calm(send))
            return
        if scope["type"] != "http" or not scope["path"].endswith("/graphql"):
            await self._app(scope, receive, send)
            return

        body = await Request(scope, receive).body()
        if _lists_files(body):
            await PlainTextResponse("Artifacts are not served.", 403)(scope, receive, send)
            return
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def again() -> Message:
            return next(messages, None) or await receive()

        await self._app(scope, again, send)


def _with_header(send: Send, name: bytes, value: bytes) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == _FOUND:
            message = {**message, "headers": [*message["headers"], (name, value)]}
        await send(message)

    return sending


def _with_calm(send: Send) -> Send:
    """Sends a page with `_CALM` in its head, once all of it is there: its length stands before it."""
    begun: list[Message] = []
    body = bytearray()

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            begun.append(message)
            return
        body.extend(message.get("body", b""))
        if message.get("more_body"):
            return
        page = bytes(body).replace(b"</head>", _CALM + b"</head>", 1)
        kept = [pair for pair in begun[0]["headers"] if pair[0].lower() not in (b"content-length", b"etag")]
        await send({**begun[0], "headers": [*kept, (b"content-length", str(len(page)).encode())]})
        await send({"type": "http.response.body", "body": page})

    return sending


def _lists_files(body: bytes) -> bool:
    """Whether a body asks for artifacts, however its characters are written, or cannot be read."""
    try:
        return "artifacts" in json.dumps(json.loads(body), ensure_ascii=False).lower()
    except (ValueError, RecursionError):
        return True


def _dashboard(url: str) -> Any:
    """optuna-dashboard over a store that it can read only."""
    from optuna_dashboard import wsgi
    from starlette.middleware.wsgi import WSGIMiddleware  # MLflow stands on it, too

    from sweeps.ledger import look

    storage = look(url, shown=True)
    assert storage is not None, "its study was found a moment ago"
    return WSGIMiddleware(wsgi(storage))


_VIEWS: dict[str, tuple[Callable[[str], Any], Callable[[str, str], bool]]] = {
    "MLflow": (_mlflow, shows_mlflow),
    "Optuna": (_dashboard, shows_study),
}


def _end_with_the_pipe() -> None:
    """When it breaks, `sweeps ui` is gone; all that was started here goes, too."""
    sys.stdin.read()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
