"""Texts without their secrets: what `redact` does with a text in which something may be hidden."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from hashlib import blake2b

import hyperscan

from stages._pairs import Names
from stages._patterns import RULES, Rule

KEY, ESCAPE = "key", "escape"

_ESCAPES = re.compile(r"(?<!\\)(\\++)u00([2-7][0-9A-Fa-f])")
_ANCHOR = re.compile(r"(?<!\\)(?:\\\\)*(?:\$|(?<!\[)\^|\\[AZz])")


class Hiding:
    """How a secret is hidden, and what something hidden looks like, so that it is not hidden again."""

    def __init__(self, hide: Callable[[str], str], hidden: str) -> None:
        self.hide, self.hidden = hide, re.compile(hidden, re.DOTALL)
        self.counts: dict[str, int] = {}

    def __call__(self, rule: str, secret: str) -> str:
        """What stands for the secret, which is counted for the rule."""
        self.counts[rule] = self.counts.get(rule, 0) + 1
        return self.hide(secret)

    def end(self, text: str, at: int) -> int:
        """Where something hidden that begins at `at` ends, 0 where nothing does."""
        match = self.hidden.match(text, at)
        return match.end() if match else 0


def replacing(replacement: str) -> Hiding:
    """Every secret becomes the same text."""
    return Hiding(lambda _: replacement, re.escape(replacement))


def hashing(key: str) -> Hiding:
    """A secret becomes its keyed hash: 32 hexadecimal characters in brackets."""
    # blake2b takes keys of up to 64 bytes: the hash of one of any length has 64.
    digest = blake2b(key.encode()).digest()
    return Hiding(
        lambda secret: f"[{blake2b(secret.encode(errors='replace'), digest_size=16, key=digest).hexdigest()}]",
        r"\[[0-9a-f]{32}\]",
    )


def masking() -> Hiding:
    """A secret of 12 characters or more keeps its last 4."""
    return Hiding(lambda secret: f"[****{secret[-4:] if len(secret) >= 12 else ''}]", r"\[\*{4}(?:.{4})?\]")


class Custom:
    """An expression of the user, matched against UTF-8 in linear time. Raises `ValueError` where it can't be used."""

    def __init__(self, name: str, expression: str) -> None:
        if name in RULES or name in {KEY, ESCAPE}:
            raise ValueError(f"{name} is the name of a built-in rule")
        if _ANCHOR.search(expression):
            raise ValueError(f"{name}: no anchors (^, $, \\A, \\Z): the expression is searched for inside of texts")
        try:
            self._database = compiled([expression], hyperscan.HS_FLAG_SOM_LEFTMOST)
        except hyperscan.error as error:
            raise ValueError(f"{name}: {expression!r} is no expression that Hyperscan can use: {error}") from error

    def substitute(self, text: str, name: str, hide: Hiding) -> str:
        """The text with everything hidden that the expression can match."""
        spans: list[tuple[int, int]] = []
        data = text.encode(errors="replace")
        self._database.scan(data, match_event_handler=lambda _id, start, end, *_: spans.append((start, end)))
        pieces, done = [], 0
        for start, end in _merged(spans, data):
            secret = data[start:end].decode()
            if not hide.hidden.fullmatch(secret):
                pieces += [data[done:start].decode(), hide(name, secret)]
                done = end
        return "".join([*pieces, data[done:].decode()]) if pieces else text


def _merged(spans: list[tuple[int, int]], data: bytes) -> list[tuple[int, int]]:
    """Spans that overlap made one, each widened to whole characters."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return [(_character(data, start, -1), _character(data, end, 1)) for start, end in merged]


def _character(data: bytes, at: int, step: int) -> int:
    while at < len(data) and data[at] & 0xC0 == 0x80:
        at += step
    return at


def compiled(expressions: Sequence[str], flags: int = 0) -> hyperscan.Database:
    """A Hyperscan database; the id of a match is the place of its expression."""
    database = hyperscan.Database()
    database.compile(
        expressions=[text.encode() for text in expressions],
        ids=list(range(len(expressions))),
        elements=len(expressions),
        flags=[flags] * len(expressions),
    )
    return database


class Secrets:
    """All that is to be hidden: values of names, built-in rules and own expressions."""

    def __init__(self, names: Names, rules: Sequence[str], custom: dict[str, str], hide: Hiding) -> None:
        self._names, self._hide = names, hide
        self._rules = {name: rule for name, rule in RULES.items() if name in rules}
        self._custom = {name: Custom(name, expression) for name, expression in custom.items()}
        self._every = {KEY, *self._rules, *self._custom}
        triggers = [(KEY, text) for text in names.triggers]
        triggers += [(name, text) for name, rule in self._rules.items() for text in rule.triggers]
        triggers += custom.items()
        triggers.append((ESCAPE, r"\\u00[2-7]"))
        if custom:
            # An own expression may match what JSON escapes, in whatever way: every escape is worth a look.
            triggers.append((ESCAPE, r"\\"))
        self.triggers = triggers
        """Hyperscan expressions, with the name of their rule, one of which matches wherever something may be hidden,
        in decoded texts as well as in JSON, however that is escaped."""

    def hidden_in(self, text: str, rules: set[str]) -> str:
        """The text without the secrets that the rules named find; other rules may be applied as well."""
        every = self._every
        if ESCAPE not in rules:
            # What an own expression hides may uncover anything: it may end in the middle of a word.
            return self._stable(text, every if rules & self._custom.keys() else rules)
        text = self._stable(text, every)
        plain = _ESCAPES.sub(_unescape, text)
        cleaned = self._stable(plain, every)
        # Unescaped it says the same; but a text in which nothing is hidden stays as it is.
        return text if cleaned == plain else cleaned

    def _stable(self, text: str, rules: set[str]) -> str:
        cleaned = self._apply(text, rules)
        # What one rule hides may have touched what another would find if it stood alone.
        while cleaned != text and len(rules) > 1:
            text, cleaned = cleaned, self._apply(cleaned, rules)
        return cleaned

    def _apply(self, text: str, rules: set[str]) -> str:
        if KEY in rules:
            text = self._names.hide(text, KEY, self._hide)
        for name, rule in self._rules.items():
            if name in rules:
                text = _substitute(text, name, rule, self._hide)
        for name, custom in self._custom.items():
            if name in rules:
                text = custom.substitute(text, name, self._hide)
        return text


def _substitute(text: str, name: str, rule: Rule, hide: Hiding) -> str:
    pieces, done, at, search, check = [], 0, 0, rule.find.search, rule.check
    while match := search(text, _word(text, at, rule.sign) if rule.sign else at):
        start, end = match.span("s") if match.lastgroup else match.span()
        length = check(text[start:end])
        # What was no secret may have one inside: `2345 4111 1111 1111 1111`.
        at = start + length if length else match.start() + 1
        if length and not hide.hidden.fullmatch(text, start, start + length):
            pieces += [text[done:start], hide(name, text[start : start + length])]
            done = start + length
    return "".join([*pieces, text[done:]]) if pieces else text


def _word(text: str, at: int, sign: str) -> int:
    """Where the word with the next such character begins; the end of the text where there is none."""
    found = text.find(sign, at)
    return len(text) if found < 0 else max(at, text.rfind(" ", at, found))


def _unescape(match: re.Match[str]) -> str:
    character = chr(int(match[2], 16))
    return match[1] + character if character in '"\\' else character
