"""TLS for whatever listens: one model of options, and a context that follows its files.

A certificate that was renewed is used from the next handshake on, without a restart: each handshake asks whether the
files changed (three `stat`s, some microseconds). Files that can't be used, half written for instance, leave the last
good ones in force and are told about once.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, model_validator

from pipeline.contract import Unusable

log = logging.getLogger("aiologs.tls")

HANDSHAKE_SECONDS = 10.0
"""How long a client may take for its handshake, as in Logstash's http input."""

_AUTH = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class TLS(BaseModel, extra="forbid", frozen=True):
    """What a listener needs to speak TLS, and to know its clients."""

    certificate: Path = Field(description="PEM file: the certificate, followed by those that lead to the root.")
    key: Path | None = Field(default=None, description="PEM file: its private key, not encrypted; null: beside it.")
    ca: Path | None = Field(default=None, description="PEM file: the authorities whose client certificates count.")
    client_auth: Literal["none", "optional", "required"] = Field(
        default="none", description="Whether clients are asked for a certificate, and whether they must have one."
    )
    min_version: Literal["1.2", "1.3"] = Field(default="1.2", description="The oldest version of TLS accepted.")

    @model_validator(mode="after")
    def _complete(self) -> TLS:
        if (self.client_auth == "none") != (self.ca is None):
            raise ValueError(
                "client_auth (optional or required) and ca belong together: one is there without the other"
            )
        return self

    def context(self) -> ssl.SSLContext:
        """A context for a server, which reloads its files when they change.

        Raises `Unusable`, naming the file, where there is nothing to begin with.
        """
        state = _Files(self)
        state.current.sni_callback = state.choose
        return state.current


class _Files:
    """The context made from the files as they were last."""

    def __init__(self, options: TLS) -> None:
        self._options = options
        self._seen = self._look()
        self.current = self._load()

    def choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Give a handshake the newest context; OpenSSL calls it also where the client names no server."""
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            try:
                self.current = self._load()
                log.info("%s: reloaded, it has changed", self._options.certificate)
            except Unusable as error:
                log.warning("the last good certificate stays in use: %s", error)
        connection.context = self.current

    def _look(self) -> list[tuple[int, int, int] | None]:
        """What tells a file from the one that was there before; None: it is missing."""
        options = self._options
        return [_stamp(path) for path in (options.certificate, options.key, options.ca) if path]

    def _load(self) -> ssl.SSLContext:
        options = self._options
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = _VERSIONS[options.min_version]
        try:
            context.load_cert_chain(options.certificate, options.key, password=_no_password)
        except (OSError, ValueError) as error:
            raise Unusable(f"TLS: {_names(options.certificate, options.key)}: {_reason(error)}") from error
        if options.ca:
            try:
                context.load_verify_locations(options.ca)
            except OSError as error:
                raise Unusable(f"TLS: {options.ca}: {_reason(error)}") from error
        context.verify_mode = _AUTH[options.client_auth]
        return context


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _no_password() -> str:
    # Without this OpenSSL would ask on the terminal.
    raise ValueError("the private key is encrypted; give one that is not, readable by this user only")


def _names(certificate: Path, key: Path | None) -> str:
    return f"{certificate} and {key}" if key else f"{certificate}"


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return getattr(error, "strerror", None) or str(error)
