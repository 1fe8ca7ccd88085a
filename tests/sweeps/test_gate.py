"""Who gets in: names, origins, tokens and methods, each by one request to the gate alone."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from sweeps.ui.gate import Gate
from sweeps.ui.login import Door
from sweeps.ui.views import _lists_files, shows_mlflow, shows_study

TOKEN = "right-token"
BEARER = {"authorization": f"Bearer {TOKEN}"}


def basic(text: str) -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


class Reply:
    """What came of one request: the gate's status, or 200 where the application behind was reached."""

    def __init__(
        self,
        path: str = "/",
        headers: dict[str, str] | list[tuple[str, str]] | None = None,
        *,
        method: str = "GET",
        host: str | None = "127.0.0.1:5000",
        local: str = "127.0.0.1",
        names: tuple[str, ...] = (),
        kind: str = "http",
    ) -> None:
        self.messages: list[dict[str, Any]] = []
        self.reached = False
        given = list((headers or {}).items()) if not isinstance(headers, list) else headers
        given += [("Host", host)] if host is not None else []
        path, _, query = path.partition("?")
        scope = {
            "type": kind,
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in given],
            "server": (local, 5000),
        }

        async def behind(_scope: Any, _receive: Any, send: Any) -> None:
            self.reached = True
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"X-Frame-Options", b"no")]}
            )
            await send({"type": "http.response.body", "body": b"secret"})

        async def send(message: Any) -> None:
            self.messages.append(message)

        gate = Gate(behind, token=TOKEN, port=5000, names=names, shows=lambda how, _: how in ("GET", "HEAD"))
        asyncio.run(gate(scope, None, send))  # type: ignore[arg-type]

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode().lower(): value.decode() for name, value in self.messages[0]["headers"]}


@pytest.mark.parametrize(
    ("host", "local", "names", "status"),
    [
        ("127.0.0.1:5000", "127.0.0.1", (), 200),
        ("localhost:9000", "127.0.0.1", (), 200),  # through a tunnel from another port
        ("LOCALHOST", "::1", (), 200),
        ("[::1]:5000", "::1", (), 200),
        ("127.0.0.1", "::ffff:127.0.0.1", (), 200),
        ("10.0.0.7:5000", "10.0.0.7", (), 200),
        ("head.example:5000", "10.0.0.7", ("Head.example",), 200),
        ("head.example", "10.0.0.7", ("head.example:5000",), 200),
        ("[fd00::7]:5000", "10.0.0.7", ("fd00::7",), 200),
        ("evil.example:5000", "127.0.0.1", (), 403),  # made to point here
        ("localhost.evil.example", "127.0.0.1", (), 403),
        ("localhost:5000", "10.0.0.7", ("head.example",), 403),  # forged from elsewhere
        ("127.0.0.1:5000", "10.0.0.7", (), 403),
        ("10.0.0.8", "10.0.0.7", (), 403),
        ("0.0.0.0:5000", "127.0.0.1", (), 403),
        ("[::1", "::1", (), 403),
        ("", "127.0.0.1", (), 403),
        (None, "127.0.0.1", (), 403),
    ],
)
def test_the_name_that_was_asked_for(
    host: str | None, local: str, names: tuple[str, ...], status: int
) -> None:
    reply = Reply(headers=dict(BEARER), host=host, local=local, names=names)
    assert reply.status == status
    assert reply.reached is (status == 200)


def test_two_names_are_none() -> None:
    assert Reply(headers=[*BEARER.items(), ("Host", "evil.example")]).status == 403


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:5000", 200),
        ("https://127.0.0.1:5000", 200),  # what ends TLS in front of it
        ("http://127.0.0.1:8080", 403),
        ("http://localhost:5000", 403),
        ("http://evil.example", 403),
        ("null", 403),
        ("http://127.0.0.1:5000.evil.example", 403),
        ("http://[", 403),
    ],
)
def test_the_page_that_asks(origin: str, status: int) -> None:
    assert Reply(headers={**BEARER, "Origin": origin}).status == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        (BEARER, 200),
        ({"authorization": f"bearer  {TOKEN} "}, 200),
        (basic(f"anyone:{TOKEN}"), 200),
        (basic(f"{TOKEN}:"), 401),
        (basic("anyone:wrong"), 401),
        ({"authorization": "Basic not base64"}, 401),
        ({"authorization": f"Digest {TOKEN}"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": f"Bearer {TOKEN}x"}, 401),
        ({"authorization": "Bearer \xff"}, 401),
        ({"Cookie": f"other=1; sweeps-ui-5000={TOKEN}"}, 200),
        ({"Cookie": f"sweeps-ui-8080={TOKEN}"}, 401),
        ({"Cookie": "sweeps-ui-5000="}, 401),
        ({"Cookie": "@@@=;;;"}, 401),
    ],
)
def test_the_token(headers: dict[str, str], status: int) -> None:
    reply = Reply(headers=dict(headers))
    assert reply.status == status
    assert reply.reached is (status == 200)
    if status == 401:
        assert reply.headers["www-authenticate"].startswith("Basic ")


def test_the_token_of_an_address_becomes_a_cookie_and_leaves_it() -> None:
    reply = Reply(f"//evil.example/x?a=1&token={TOKEN}&b=2%26")
    assert (reply.status, reply.reached) == (303, False)
    assert reply.headers["location"] == "/evil.example/x?a=1&b=2%26"
    assert "HttpOnly" in reply.headers["set-cookie"]
    assert "SameSite=Lax" in reply.headers["set-cookie"]
    cookie = reply.headers["set-cookie"].partition(";")[0]
    assert Reply(headers={"Cookie": cookie}).status == 200
    assert Reply("/?token=wrong").status == 401
    assert Reply(f"/?token={TOKEN}", method="POST").status == 401
    assert Reply(f"/?token={TOKEN}", host="evil.example").status == 403


def test_what_changes_something_is_refused_and_answers_are_framed_by_no_other_page() -> None:
    assert Reply(headers=dict(BEARER), method="DELETE").status == 403
    assert Reply(headers=dict(BEARER), method="HEAD").status == 200
    assert Reply(headers=dict(BEARER)).headers["x-frame-options"] == "SAMEORIGIN"
    closed = Reply(headers=dict(BEARER), kind="websocket")
    assert (closed.reached, closed.messages) == (False, [{"type": "websocket.close", "code": 1008}])


@pytest.mark.parametrize(
    ("method", "path", "shown"),
    [
        ("GET", "/", True),
        ("GET", "/static-files/static/js/ArtifactPage.1a2b.chunk.js", True),
        ("POST", "/static-files/x", False),
        ("POST", "/ajax-api/2.0/mlflow/runs/search", True),
        ("GET", "/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval", True),
        ("POST", "/ajax-api/2.0/mlflow/experiments/create", False),
        ("POST", "/ajax-api/2.0/mlflow/runs/delete", False),
        ("GET", "/get-artifact", False),
        ("GET", "/ajax-api/2.0/mlflow/artifacts/list", False),
        ("GET", "/api/2.0/mlflow-artifacts/artifacts/../x", False),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/x", False),
        ("GET", "/model-versions/get-artifact", False),
        ("POST", "/ajax-api/2.0/mlflow/upload-artifact", False),
        ("POST", "/ajax-api/3.0/mlflow/assistant/message", False),
        ("POST", "/gateway/x/mlflow/invocations", False),
        ("GET", "/ajax-api/3.0/jobs/1", False),
    ],
)
def test_what_of_mlflow_only_looks(method: str, path: str, shown: bool) -> None:
    assert shows_mlflow(method, path) is shown
    assert shows_study(method, path) is (method == "GET")


def test_the_names_of_a_door() -> None:
    assert Door().known_as == []
    assert not Door("::1").outside
    assert not Door("localhost").outside
    for host in ("0.0.0.0", "10.0.0.7", "::"):
        assert Door(host).outside
        assert host not in Door(host).known_as
    assert Door("head", names=["proxy"]).known_as[0] == "head"
    assert "proxy" in Door("head", names=["proxy"]).known_as


@pytest.mark.parametrize("path", ["/\u20ac", "/\u0100", "/\r\nX", "/\\evil.example", "//evil.example"])
def test_an_odd_path_is_quoted_where_the_browser_is_sent(path: str) -> None:
    reply = Reply(f"{path}?token={TOKEN}")
    headers = dict(reply.messages[0]["headers"])
    assert reply.messages[0]["status"] == 303
    place = headers[b"location"].decode("ascii")
    assert place.startswith("/")
    assert not place.startswith(("//", "/\\"))
    assert "\r" not in place


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        (b'{"query": "{ mlflowListArtifacts(input: {}) { rootUri } }"}', True),
        (b'{"query": "{ mlflowListArt\\u0069facts(input: {}) { rootUri } }"}', True),
        (b"no JSON", True),
        (b'{"query": "query GetRun { mlflowGetRun(input: {}) { run { info { artifactUri } } } }"}', False),
    ],
)
def test_files_are_listed_by_no_query(body: bytes, refused: bool) -> None:
    assert _lists_files(body) == refused
