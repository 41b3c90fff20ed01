"""Who may send to the HTTP input."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping

from pydantic import BaseModel, Field, SecretStr


class Auth(BaseModel, extra="forbid", frozen=True):
    """Who may send; any one of these is enough."""

    basic: dict[str, SecretStr] = Field(default={}, description="Users and their passwords (HTTP Basic).")
    bearer: list[SecretStr] = Field(default=[], description="Tokens (`Authorization: Bearer …`).")
    api_keys: list[SecretStr] = Field(
        default=[],
        description="Keys (`Authorization: ApiKey …`, as Elasticsearch's clients send them, or `x-api-key`).",
    )

    def credentials(self) -> list[bytes]:
        """What a client may send, as `scheme credential`."""
        basic = [
            base64.b64encode(f"{user}:{word.get_secret_value()}".encode()).decode() for user, word in self.basic.items()
        ]
        return [
            *(f"basic {text}".encode() for text in basic),
            *(f"bearer {token.get_secret_value()}".encode() for token in self.bearer),
            *(f"apikey {key.get_secret_value()}".encode() for key in self.api_keys),
        ]


def known(headers: Mapping[str, str], credentials: list[bytes]) -> bool:
    """Whether a request comes with one of the credentials."""
    scheme, _, credential = headers.get("Authorization", "").partition(" ")
    offered = [f"{scheme.lower()} {credential.strip()}".encode()]
    if key := headers.get("x-api-key"):
        offered.append(f"apikey {key}".encode())
    # All are compared, in constant time, so that how long it takes says nothing about them.
    return sum(hmac.compare_digest(one, known) for one in offered for known in credentials) > 0
