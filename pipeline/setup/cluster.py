"""Asks an Elasticsearch as its output is configured to: hosts, credentials, certificates.

Plain requests, one after the other: setting up takes a few dozen of them. A command makes them itself (`connect`); the
daemon has its output make them, over the connections that this has and closes.
"""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from http.client import HTTPException
from typing import Any

import orjson
from pydantic import SecretStr

SECONDS = 30.0
"""How long an answer may take; the cluster's own timeout for changes of its state is the same."""


_NOBODY = {502, 503, 504}
"""What a proxy answers without a server behind it, and a node without a cluster."""


class Away(Exception):
    """No node gives an answer as Elasticsearch does."""


class Refused(Exception):
    """The cluster answers a request with an error."""

    def __init__(self, what: str, status: int, type_: str, reason: str) -> None:
        self.status, self.type = status, type_
        super().__init__(f"{what}: {reason}{_remedy(status)}")


def _remedy(status: int) -> str:
    if status == 401:
        return "; look at api_key, or username and password"
    if status == 403:
        return "; config/elasticsearch/role.json holds the role that setup needs"
    return ""


class Cluster:
    """One cluster, asked through `answer`: method, path and JSON body of a request → status and body of the answer.

    It raises `Away` where there is none.
    """

    def __init__(self, answer: Callable[[str, str, bytes | None], tuple[int, bytes]]) -> None:
        self._answer = answer

    def ask(self, method: str, path: str, body: Any = None, *, missing: Any = None) -> Any:
        """The answer to a request; `missing` where there is no such thing (404).

        Raises `Away` and `Refused`.
        """
        status, text = self._answer(method, path, None if body is None else orjson.dumps(body))
        if status == 404:
            return missing
        if status in _NOBODY:
            raise Away(f"answers {status}")
        if status >= 300:
            raise Refused(f"{method} /{path.partition('?')[0]}", status, *_reason(text, status))
        try:
            return orjson.loads(text or b"null")
        except ValueError as error:
            raise Away(f"the answer is not JSON: {error}") from error


class _Hosts:
    """The hosts of one cluster: asks the one that answered last, or the next one that does."""

    def __init__(self, options: Any, seconds: float) -> None:
        self._hosts = [host.rstrip("/") for host in options.hosts]
        self._headers = {"accept": "application/json", "content-type": "application/json", **authorization(options)}
        self._context = tls(options)
        self._seconds = seconds

    def __call__(self, method: str, path: str, data: bytes | None) -> tuple[int, bytes]:
        """Status and body of an answer; raises `Away`."""
        away: list[str] = []
        for host in [*self._hosts]:
            try:
                status, text = self._ask(f"{host}/{path}", method, data)
            except (OSError, HTTPException, ValueError) as error:
                away.append(f"{host}: {str(getattr(error, 'reason', None) or error).strip()}")
            else:
                if status not in _NOBODY:
                    return status, text
                away.append(f"{host}: answers {status}")
            self._hosts.append(self._hosts.pop(0))  # one that hangs is waited for once, not at each request
        raise Away("; ".join(away))

    def _ask(self, url: str, method: str, data: bytes | None) -> tuple[int, bytes]:
        request = urllib.request.Request(url, data, self._headers, method=method)  # noqa: S310 - the operator's own URL
        try:
            with urllib.request.urlopen(request, timeout=self._seconds, context=self._context) as answer:  # noqa: S310
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()


def connect(options: Any, *, seconds: float = SECONDS) -> Cluster:
    """The cluster of an output `elasticsearch` with these options."""
    return Cluster(_Hosts(options, seconds))


def _reason(text: bytes, status: int) -> tuple[str, str]:
    """The type and the reason of an error as Elasticsearch words them, with the innermost cause."""
    try:
        error = orjson.loads(text)["error"]
        type_, reason = error["type"], error["reason"]
        cause = error.get("caused_by")
        while cause:
            reason, cause = f"{reason}: {cause.get('reason')}", cause.get("caused_by")
    except (ValueError, LookupError, TypeError):
        return "", f"answers {status}: {text[:200].decode(errors='replace')}"
    return type_, str(reason)


def authorization(options: Any) -> dict[str, str]:
    """The header that says who asks."""
    key, user, password = (_plain(getattr(options, name, None)) for name in ("api_key", "username", "password"))
    if key:
        return {"Authorization": f"ApiKey {key}"}
    return {"Authorization": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"} if user else {}


def _plain(secret: Any) -> str:
    return str(secret.get_secret_value()) if isinstance(secret, SecretStr) else str(secret or "")


def tls(options: Any) -> ssl.SSLContext | None:
    """Whom to trust, and what to show; None where all is http: to load the system's authorities takes 20 ms."""
    ca, certificate, key = (getattr(options, name, None) for name in ("ca", "certificate", "key"))
    if not any(host.lower().startswith("https:") for host in options.hosts):
        return None
    context = ssl.create_default_context(cafile=ca)
    if not getattr(options, "verify", True):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(certificate, key)
    return context
