"""Authorization of web pages: an ASGI application in front of another, with a token and an origin check.

A port of this machine is open to every user of it, and to every page in a browser on it. So a request has
to be made to a name of this machine (a foreign one that was made to point here is refused), by no page of
another origin, with the token of this start, and has to ask for something that only shows.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Callable[[], Awaitable[Message]], Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

TOKEN = "token"  # noqa: S105 - the name of a parameter
_OURS = [
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),  # an address may hold the token
]
_LOGIN = (b"www-authenticate", b'Basic realm="sweeps ui", charset="UTF-8"')


@dataclass(frozen=True)
class Answer:
    """What the gate says by itself."""

    status: int
    text: str
    headers: Sequence[tuple[bytes, bytes]] = ()


class Gate:
    """The application in front; see the module."""

    def __init__(
        self, app: App, *, token: str, port: int, names: Collection[str], shows: Callable[[str, str], bool]
    ) -> None:
        """Guard an application.

        Args:
            app: what is behind, an ASGI application.
            token: asked of every request: `?token=` once, then a cookie; or as bearer token or password.
            port: that it is served on, for cookies are shared by all ports of a host.
            names: under which the machine may be asked for, beside the address that a request came to and,
                from the machine itself, localhost.
            shows: whether a method and a path ask for something that may be had.
        """
        self._app, self._token, self._shows = app, token, shows
        self._names = {each for name in names for each in (name.lower(), _name(name)) if each}
        self._cookie = f"sweeps-ui-{port}"

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: Callable[[], Awaitable[Message]], send: Send
    ) -> None:
        """Serve one connection of the ASGI protocol."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif (answer := self._answer(scope)) is not None:
            await _say(answer, send)
        else:
            await self._app(scope, receive, _with_headers(send))

    def _answer(self, scope: Mapping[str, Any]) -> Answer | None:
        """What the gate has to say; None lets the request through."""
        headers = list(scope["headers"])
        hosts = list(_values(headers, b"host"))
        if len(hosts) != 1 or not self._is_here(_name(hosts[0]), (scope.get("server") or ("",))[0]):
            names = "the address that `sweeps ui` printed, or a name given with --allowed-hosts"
            return Answer(403, f"This machine was asked for under another name; use {names}.")
        if any(_netloc(origin) != hosts[0].lower() for origin in _values(headers, b"origin")):
            return Answer(403, "Pages of another origin get nothing here.")
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == TOKEN]
        if given and scope["method"] == "GET" and self._right(given[0]):
            return self._welcome(scope["path"], [pair for pair in query if pair[0] != TOKEN])
        if not any(self._right(each) for each in self._tokens(headers)):
            text = "Open the address that `sweeps ui` printed, with its token; or give the token as password."
            return Answer(401, text, [_LOGIN])
        if not self._shows(scope["method"], scope["path"]):
            return Answer(403, "`sweeps ui` shows and changes nothing; artifacts are not served.")
        return None

    def _is_here(self, name: str, local: str) -> bool:
        """Whether a name means this machine to a client that connected to one of its addresses."""
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(local.partition("%")[0])
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        if name == "localhost":
            return address.is_loopback
        try:
            return ipaddress.ip_address(name) == address
        except ValueError:
            return False

    def _welcome(self, path: str, query: list[tuple[str, str]]) -> Answer:
        """The page without the token in its address; the browser has it as a cookie from here on."""
        cookie = f"{self._cookie}={self._token}; HttpOnly; SameSite=Lax; Path=/"
        # One slash: two, or a backslash that a browser takes for one, would name another host.
        place = f"/{quote(path.lstrip('/'))}{'?' if query else ''}{urlencode(query)}"
        headers = {"location": place, "set-cookie": cookie, "cache-control": "no-store"}
        return Answer(303, "", [(name.encode(), value.encode("latin-1")) for name, value in headers.items()])

    def _tokens(self, headers: Headers) -> Iterator[str]:
        for value in _values(headers, b"authorization"):
            scheme, _, rest = value.partition(" ")
            if scheme.lower() == "bearer":
                yield rest.strip()
            elif scheme.lower() == "basic":
                yield _password(rest)
        for value in _values(headers, b"cookie"):
            cookies = SimpleCookie()
            try:
                cookies.load(value)
            except CookieError:
                continue
            if self._cookie in cookies:
                yield cookies[self._cookie].value

    def _right(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode())


def _values(headers: Headers, name: bytes) -> Iterator[str]:
    return (value.decode("latin-1") for each, value in headers if each.lower() == name)


def _netloc(origin: str) -> str | None:
    """Host and port of an origin; None for what is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _name(host: str) -> str:
    """The name in a Host header, without its port; "" for what is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _password(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode("utf-8", "replace").partition(":")[2]
    except binascii.Error:
        return ""


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            ours = {name for name, _ in _OURS}
            kept = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in ours]
            message = {**message, "headers": [*kept, *_OURS]}
        await send(message)

    return sending


async def _say(answer: Answer, send: Send) -> None:
    body = answer.text.encode()
    headers = [
        *answer.headers,
        *_OURS,
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
