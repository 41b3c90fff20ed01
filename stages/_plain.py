"""Texts without escapes in undecoded JSON, told by the bytes around them: what `redact` edits without decoding it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stages._pairs import Names

_MOST_KEYS, _LONGEST_KEY = 65536, 256  # whose verdict is kept


class PlainKeys(dict[bytes, bool]):
    """Tells secret keys in JSON: each from the byte before its quotes to its colon → whether it is secret, a plain text
    and not spared. Keeps the verdicts.

    The quote before the one that closes a key opens it, unless it is escaped. Were it the end of a text instead, the
    key behind it would stand outside of any text, which no valid JSON has.
    """

    def __init__(self, names: Names, spared: frozenset[bytes] = frozenset()) -> None:
        self._names, self.spared = names, spared

    def __missing__(self, text: bytes) -> bool:
        key = text[2:-2]
        plain = text == text[:1] + b'"%b":' % key and b"\\" not in text
        secret = plain and key not in self.spared and key.decode(errors="replace") in self._names
        if len(text) <= _LONGEST_KEY:
            if len(self) >= _MOST_KEYS:
                self.clear()
            self[text] = secret
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
