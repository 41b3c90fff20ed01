r"""Names whose values are secret, and such pairs in texts: `password=x`, `"token": "x"`, also of JSON inside JSON.

A text is not parsed: what is cut off, malformed or escaped twice (`{\"password\":\"x\"}`) is understood as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from stages._patterns import LEFT_OF_LAST

_NAME = re.compile(r"\*?[A-Za-z0-9 _-]*[A-Za-z0-9][A-Za-z0-9 _-]*")
# Between a name and what separates it from its value: punctuation, and the escapes of quotes and white space.
_BETWEEN = r"(?P<between>(?:[^0-9A-Za-z:=,;\\\x80-\U0010ffff]|\\++[bfnrt]?+)*+)(?P<sign>:=|=>|={1,3}+|:(?!:))"
_SPACE = r"(?:\s|\\++[nrt])*+"
_QUOTE = re.compile(r"(?:[BbRrUu]{1,2}|[A-Za-z]{1,16}\()?(?P<quote>\\*+[\"'`])")
_QUOTED_NAME = re.compile(r"(?<!\\)\\*+\"")
_SCHEME = r"(?:(?i:bearer|basic|digest|negotiate|apikey|token)[ \t]+(?=[^\s\"'`,;&]))?+"
_WORD = re.compile(_SCHEME + r"(?:[^\s\"'`,;&\\]++|\\++(?![\"'`]))++")
_JSON_WORD = re.compile(r"[^\s\"',}\]\\]++")
_LINE = re.compile(r"[^\r\n\"\\]++")  # cookies: pairs of their own up to the end of the line
_BRACKETS = re.compile(r"(?P<open>[\[{]++)|(?P<close>[\]}]++)|(?<!\\)\\*+\"")
_NOTHING = frozenset({"null", "None", "nil", "undefined", ""})


class Hide(Protocol):
    """How a secret is hidden."""

    def __call__(self, rule: str, secret: str) -> str:
        """What stands for the secret, which is counted for the rule."""
        ...

    def end(self, text: str, at: int) -> int:
        """Where something hidden that begins at `at` ends, 0 where nothing does."""
        ...


class Names:
    """The names of secret values. Letter case, `-`, `_` and spaces make no difference; `*` at the start of a name
    stands for anything before it. Raises `ValueError` on a name that is not ASCII letters and digits.
    """

    def __init__(self, names: Sequence[str]) -> None:
        exact = [_expression(name) for name in names if not name.startswith("*")]
        ending = [_expression(name[1:]) for name in names if name.startswith("*")]
        ways = [*_by_first_letter(exact, rf"{LEFT_OF_LAST}(?<![0-9A-Za-z][-_].)"), *_by_first_letter(ending, "")]
        # A set of characters in front is what Python's matcher skips quickly to.
        first = "".join(sorted({form for name in exact + ending for form in (name[0].lower(), name[0].upper())}))
        found = f"[{first}](?i:{'|'.join(ways)})" if ways else "(?!)"
        self._key = re.compile(rf"{found}[^0-9A-Za-z\x80-\U0010ffff]*+\Z", re.ASCII)
        self._pair = re.compile(f"(?P<name>{found}){_BETWEEN}{_SPACE}", re.ASCII)
        both = "|".join(exact + ending)
        self.triggers = (rf"(?i)(?:{both})[^0-9a-z:=\\]*[:=\\]",) if both else ()
        """A Hyperscan expression that finds every such key in JSON and every such pair in a text."""

    def __contains__(self, key: str) -> bool:
        return self._key.search(key) is not None

    def hide(self, text: str, rule: str, hide: Hide) -> str:
        """The text with the value of each such pair hidden, counted for the rule."""
        pieces, done, at = [], 0, 0
        while pair := self._pair.search(text, at):
            at = pair.end()
            if hidden := hide.end(text, at):
                at = hidden
                continue
            start, end = _value(text, pair)
            at = max(at, end)
            secret = text[start:end]
            if secret in _NOTHING or hide.end(text, start) == end:
                continue
            wrap = _wrapping(pair, start)
            pieces += [text[done:start], wrap, hide(rule, secret), wrap]
            done = end
        return "".join([*pieces, text[done:]]) if pieces else text


def check_name(name: str) -> str:
    """The name itself; raises `ValueError` where it can't be one."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} must be made of ASCII letters, digits, '-', '_' and spaces, with '*' only in front")
    return name


def _expression(name: str) -> str:
    letters = [letter for letter in check_name(name) if letter.isalnum()]
    return "[-_ ]?".join(letters)


def _by_first_letter(expressions: list[str], left: str) -> list[str]:
    """Expressions, by their first character, that match behind it; `left` must hold there, too."""
    rests: dict[str, list[str]] = {}
    for expression in expressions:
        rests.setdefault(expression[0].lower(), []).append(expression[1:])
    return [f"(?<={first})(?={'|'.join(rest)}){left}(?:{'|'.join(rest)})" for first, rest in rests.items()]


def _value(text: str, pair: re.Match[str]) -> tuple[int, int]:
    """Where the secret of a pair begins and ends, without its quotes."""
    at = pair.end()
    if quote := _QUOTE.match(text, at):
        return quote.end(), _string_end(text, quote["quote"], quote.end())[0]
    if text[at : at + 1] in ("{", "["):
        return at, _bracket_end(text, at)
    if _is_json(pair):
        word = _JSON_WORD.match(text, at)
    elif "cookie" in pair["name"].lower():
        word = _LINE.match(text, at)
    else:
        word = _WORD.match(text, at)
    return at, word.end() if word else at


def _is_json(pair: re.Match[str]) -> bool:
    return pair["sign"] == ":" and '"' in pair["between"]


def _wrapping(pair: re.Match[str], start: int) -> str:
    """The quotes that a replaced number or object of JSON needs, as its key has them."""
    if not _is_json(pair) or start != pair.end():
        return ""
    quote = _QUOTED_NAME.search(pair["between"])
    return quote[0] if quote else ""


def _string_end(text: str, quote: str, at: int) -> tuple[int, int]:
    r"""Where the string ends and where its closing quote does, which may lack.

    Inside a string that is itself escaped k times, a quote that ends it has the backslashes of the opening one, b, and
    an even number of escaped ones before them, each b + 1 long; fewer than b: an outer string ends.
    """
    before = len(quote) - 1
    for close in re.compile(rf"(?<!\\)\\*+{quote[-1]}").finditer(text, at):
        slashes = close.end() - close.start() - 1
        if slashes < before:
            return close.start(), close.start()
        if (slashes - before) % (2 * (before + 1)) == 0:
            return close.end() - 1 - before, close.end()
    return len(text), len(text)


def _bracket_end(text: str, at: int) -> int:
    """Where the object or array that begins at `at` ends; the end of the text where it never does."""
    depth = 0
    while token := _BRACKETS.search(text, at):
        at = token.end()
        if token["open"]:
            depth += len(token["open"])
        elif token["close"]:
            if depth <= len(token["close"]):
                return token.start() + depth
            depth -= len(token["close"])
        else:
            at = max(at, _string_end(text, token[0], at)[1])
    return len(text)
