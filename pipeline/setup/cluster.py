"""Asks an Elasticsearch as its output is configured to: hosts, credentials, certificates.

Plain requests, one after the other: setting up takes a few dozen of them. The daemon makes them in a thread of their
own, so that nothing waits for them.
"""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from base64 import b64encode
from http.client import HTTPException
from typing import Any

import orjson
from pydantic import SecretStr

SECONDS = 30.0
"""How long an answer may take; the cluster's own timeout for changes of its state is the same."""


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
    """One cluster, asked through the first of its hosts that answers."""

    def __init__(self, options: Any, *, seconds: float = SECONDS) -> None:
        """`options` are those of the output `elasticsearch`."""
        self._hosts = [host.rstrip("/") for host in options.hosts]
        self._headers = {"accept": "application/json", "content-type": "application/json", **authorization(options)}
        self._context = tls(options)
        self._seconds = seconds

    def ask(self, method: str, path: str, body: Any = None, *, missing: Any = None) -> Any:
        """The answer to a request; `missing` where there is no such thing (404).

        Raises `Away` and `Refused`.
        """
        data = None if body is None else orjson.dumps(body)
        away: list[str] = []
        for host in self._hosts:
            request = urllib.request.Request(  # noqa: S310 - the operator's own URL
                f"{host}/{path}", data, self._headers, method=method
            )
            try:
                with urllib.request.urlopen(request, timeout=self._seconds, context=self._context) as answer:  # noqa: S310
                    return orjson.loads(answer.read() or b"null")
            except urllib.error.HTTPError as error:
                with error:
                    text = error.read()
                if error.code == 404:
                    return missing
                if error.code not in {502, 503, 504}:
                    type_, reason = _reason(text, error.code)
                    raise Refused(f"{method} /{path.partition('?')[0]}", error.code, type_, reason) from error
                away.append(f"{host}: {error.code} {error.reason}")
            except (OSError, HTTPException, ValueError) as error:
                away.append(f"{host}: {str(getattr(error, 'reason', None) or error).strip()}")
        raise Away("; ".join(away))


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


def tls(options: Any) -> ssl.SSLContext:
    """Whom to trust, and what to show."""
    ca, certificate, key = (getattr(options, name, None) for name in ("ca", "certificate", "key"))
    context = ssl.create_default_context(cafile=ca)
    if not getattr(options, "verify", True):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(certificate, key)
    return context
