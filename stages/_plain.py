"""Texts without escapes in undecoded JSON, told by the bytes around them: what `redact` edits without decoding it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stages._pairs import Names

_MOST_KEYS = 65536  # whose verdict is kept
# From the quote that closes a key on: its value, where that is a text without escapes.
PLAIN_VALUE = re.compile(rb'": ?"([^"\\]*)"')


class PlainKeys:
    """Tells secret keys in JSON; keeps the verdict by key."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._known: dict[bytes, bool] = {}

    def secret(self, block: bytes, closes: int, spared: frozenset[bytes]) -> bool:
        """Whether the quote there closes a secret key that is a plain text.

        The quote before the key opens it, unless it is escaped. Were it the end of a text instead, the key behind it
        would stand outside of any text, which no valid JSON has.
        """
        opens = block.rfind(b'"', 0, closes)
        key = block[opens:closes]
        if (secret := self._known.get(key)) is None:
            secret = self._judge(key)
        return secret and key[1:] not in spared and block[opens - 1] != 0x5C

    def _judge(self, key: bytes) -> bool:
        """Whether a key, with the quote that opens it, is secret and has no escapes."""
        if len(self._known) >= _MOST_KEYS:
            self._known.clear()
        secret = self._known[key] = b"\\" not in key and key[1:].decode(errors="replace") in self._names
        return secret


def plain_text(block: bytes, at: int, spared: frozenset[bytes]) -> tuple[int, int] | None:
    """Where the value stands that is a text without escapes and has an offset in it; None: it may be something else.

    What is between two quotes and begins with none of the characters that follow a text is a text itself.
    """
    start, end = block.rfind(b'"', 0, at) + 1, block.find(b'"', at)
    if start < 2 or end < 0 or block[start - 2] == 0x5C or block[start] in b':,}] \t\r\n"':
        return None
    if block.find(b"\\", start, end) >= 0 or block[end + 1] not in b",}]":
        return None
    before = block[start - 3 : start - 1].rstrip()[-1:]
    if before == b":":
        closes = block.rfind(b'"', 0, start - 2)
        opens = block.rfind(b'"', 0, closes)
        if (key := block[opens + 1 : closes]) in spared or b"\\" in key or block[opens - 1] == 0x5C:
            return None
    elif before != b"," and before != b"[":  # noqa: PLR1714 - a set would take longer
        return None
    return start, end
