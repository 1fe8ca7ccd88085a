"""Addresses of stores and servers, with and without their secrets; names under which secrets are kept.

An address is read as both readers of it would, Python's `urlsplit` and SQLAlchemy's `make_url`, and what
either takes for a password is hidden. Of a query only the keys are shown that are known to hold none.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, unquote_plus, urlsplit, urlunsplit

MASK = "***"  # in the place of a secret

_START = re.compile(r"\s*(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")
_AUTHORITY = re.compile(r"[^/?#]*")
_SQLALCHEMYS = re.compile(r"[^:/]*:[^@]*@")  # user and password to `make_url`, which takes / and ? for theirs
_DATABASES = ("postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle")  # whose user is no secret
_NAME = re.compile(r"[\w.-]{1,40}")

# Keys of a query that hold no secret: those of libpq, of SQLite, and of SQLAlchemy's drivers.
_SHOWN = frozenset({
    "application_name", "async_fallback", "autocommit", "cache", "channel_binding", "charset",
    "check_same_thread", "client_encoding", "connect_timeout", "dbname", "driver",
    "fallback_application_name", "gssdelegation", "gssencmode", "gsslib", "host", "hostaddr",
    "immutable", "isolation_level", "keepalives", "keepalives_count", "keepalives_idle",
    "keepalives_interval", "krbsrvname", "load_balance_hosts", "mode", "nolock", "options", "passfile",
    "port", "prepare_threshold", "require_auth", "requirepeer", "service", "ssl_max_protocol_version",
    "ssl_min_protocol_version", "sslcert", "sslcertmode", "sslcompression", "sslcrl", "sslcrldir",
    "sslkey", "sslmode", "sslnegotiation", "sslrootcert", "sslsni", "target_session_attrs",
    "tcp_user_timeout", "timeout", "uri", "user", "vfs",
})  # fmt: skip

# A name that says that its value is a secret. Short words count alone only: `auth_mode`, but not `author`.
_SECRET = re.compile(
    r"""(?ix)
    (?: password | passwd | passphrase | secret | token | credentials? | authorization
      | (?: api | access | private | account | storage | signing | encryption ) [_-]? key
      | connection [_-]? string | (?<=_) pwd
      | (?<![a-z]) (?: pass | pwd | pw | auth | sig | signature | jwt | cookie | key ) )
    (?! [a-z] )""",
)


def secret_name(name: str) -> bool:
    """Whether what a query, a variable or a setting of this name holds is a secret."""
    return _SECRET.search(unquote_plus(name)) is not None


def masked_address(address: str) -> str:
    """An address with `***` in the place of every secret; text that is no address stays as it is.

    What is masked once stays as it is. Where it is not certain what is the password, more is hidden: a
    database's name with an @ in it, say.
    """
    start = _START.match(address)
    if start is None:
        return address
    scheme, rest = start["scheme"].lower().partition("+")[0], address[start.end() :]
    if scheme == "sqlite" and rest.startswith("/"):  # a path, in which @, : and # mean nothing
        place, mark, query = rest.partition("?")
        return address[: start.end()] + place + mark + _masked_query(query, bare=True)
    end = _end_of_userinfo(rest)
    if {"?", "#"} & set(rest[:end]):
        # To one reader a host and a query, to the other a user and a password: any part may be the secret.
        return address[: start.end()] + MASK
    user = _masked_user(rest[: end - 1], scheme) + "@" if end else ""
    place, mark, query = rest[end:].partition("?")
    if not mark:
        place, mark, query = place.partition("#")
        return address[: start.end()] + user + place + mark + (MASK if query else "")
    query, fragment, _ = query.partition("#")
    masked = _masked_query(query) + (f"#{MASK}" if fragment else "")
    return address[: start.end()] + user + place + mark + masked


def holds_secret(address: str) -> bool:
    """Whether an address holds a password, a token or an unknown key of a query."""
    return masked_address(address) != address


def without_userinfo(address: str) -> str:
    """An address without user and password, for readers that would quote them: `http.client` takes a password
    for a port, and says so.
    """
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _end_of_userinfo(rest: str) -> int:
    """Where the host begins, behind the last @ that ends a user or password in either reading; 0 without."""
    authority = _AUTHORITY.match(rest)
    ends = [0] if authority is None else [authority[0].rfind("@") + 1]
    if (read := _SQLALCHEMYS.match(rest)) is not None:
        ends.append(read.end())
    if max(ends):  # a password may hold an @ and a / too
        ends.append(rest.partition("?")[0].rfind("@") + 1)
    return max(ends)


def _masked_user(userinfo: str, scheme: str) -> str:
    """User and password; a user is shown where it is none but the name."""
    user, colon, password = userinfo.partition(":")
    if not colon:
        return user if scheme in _DATABASES else MASK
    if scheme in _DATABASES:
        return f"{user}:{MASK if password else ''}"
    # Some servers take a token as the user of an empty or a fixed password.
    return f"{MASK if password in ('', 'x-oauth-basic') else user}:{MASK}"


def _masked_query(query: str, *, bare: bool = False) -> str:
    """The fields of a query; `bare`: those without a value are shown."""
    return "".join(
        each if each in "&;" else _masked_field(each, bare=bare) for each in re.split("([&;])", query)
    )


def _masked_field(field: str, *, bare: bool) -> str:
    key, equals, value = field.partition("=")
    if not equals:
        return field if bare or not field else MASK
    name = unquote_plus(key).strip().lower()
    if name in _SHOWN and not ("=" in unquote_plus(value) and secret_name(unquote_plus(value))):
        return field
    return f"{key if _NAME.fullmatch(key) and key != MASK else MASK}={MASK}"


_NOT_IN_CLEAR = "!password,!md5"  # libpq's words; SCRAM proves the password without sending it


_ESCAPED = {ord(letter): quote(letter) for letter in "%?{}"}


_MASKED = re.compile(r":\*\*\*(?=@)|(?<=[?&;])[^=&;]+=\*\*\*(?:[&;]|$)")


def driven(url: str) -> str:
    """The URL as it is opened: with the PostgreSQL driver named, and a password that it lacks kept safe.

    SQLAlchemy's own choice of a driver changed between its versions. A password that is not in the address
    comes from PGPASSWORD or ~/.pgpass, and the server that asks for it need not be the one that was meant: it
    is never sent in a form that could be used again. `require_auth` in the address says otherwise.
    """
    url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    if not url.startswith("postgresql+psycopg://"):
        return url
    parts = urlsplit(url)
    if parts.password or {"password", "require_auth"} & set(parse_qs(parts.query)):
        return url
    return f"{url}{'&' if parts.query else '?'}require_auth={quote(_NOT_IN_CLEAR)}"


def server(url: str) -> bool:
    """Whether a store is a server, to which a password may be sent, and not a file."""
    return not url.startswith("sqlite")


def without_masks(url: str) -> str:
    """A URL that was kept with its password masked, without it.

    PostgreSQL's client then looks for one where it always does: PGPASSWORD, ~/.pgpass.
    """
    return _MASKED.sub("", url).rstrip("?&;")


def file_of(url: str) -> Path:
    """The file of a `sqlite:///` URL, decoded as SQLAlchemy decodes it."""
    return Path(unquote(url.partition(":///")[2].partition("?")[0]))


def url_of(file: Path, scheme: str = "sqlite", query: str = "") -> str:
    """The `sqlite:///` URL of a file: what SQLAlchemy or Optuna take for more than a name is escaped."""
    return f"{scheme}:///{str(file).translate(_ESCAPED)}{'?' if query else ''}{query}"


def absolute(url: str) -> str:
    """The URL of a store, a file's from the root, so that it means the same in every working folder."""
    if not url.startswith("sqlite"):
        return url
    scheme, _, rest = url.partition(":///")
    return url_of(file_of(url).absolute(), scheme, rest.partition("?")[2])


def may_exist(url: str) -> bool:
    """Whether a store may already be there: a file that exists, or a server."""
    return server(url) or file_of(url).exists()
