r"""Hides secrets: the values of keys such as `password` at any depth, and what looks like a secret in any text.

    - redact:
        keys: [password, "*token", secret, authorization, apiKey, creditCard]
        patterns: [email, bearer, card]
        custom: {employee: 'E-\d{6}'}

The value of such a key is replaced as a whole, whatever it is; only null and the empty text stay. In texts at any
depth, pairs such as `password=x`, `token: "x"` and `{\"apiKey\": \"x\"}` (JSON inside JSON, also malformed or cut off)
lose their value, and secrets that are known by their form are hidden, in keys as well; card numbers also as integers.
What was hidden before is left alone.

| pattern | finds |
|---|---|
| email, phone, ipv4, ipv6, ssn | addresses, telephone numbers (with `+`, or 3-3-4 digits), US social security numbers |
| card, iban | payment card numbers (13 to 19 digits from 2 to 6, check digit), bank accounts (check digits) |
| bearer, basic, url, jwt | what follows `Bearer` or `Basic`, passwords in URLs, JSON web tokens |
| aws, vendor, private_key | keys of AWS, GitHub, GitLab, Slack, Stripe, Google, OpenAI and others; PEM blocks |

Only records in whose bytes something may be found are looked at: one pass of Hyperscan over a batch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import ValuesView
from itertools import islice
from typing import Any, Literal

import orjson
from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from pipeline.contract import RESERVED, Edit, Event
from stages._pairs import Names, check_name
from stages._patterns import RULES, card
from stages._plain import PlainKeys, plain_text
from stages._secrets import ESCAPE, KEY, Custom, Hiding, Secrets, compiled, hashing, masking, replacing

_KEYS = [
    *("*password", "passwd", "pwd", "passphrase", "*token", "*secret", "*api-key", "*secret-key", "*private-key"),
    *("*access-key", "authorization", "proxy-authorization", "cookie", "set-cookie"),
    *("credit-card", "credit-card-number", "card-number", "cvv", "cvc", "ssn"),
]
_PATTERNS = ["email", "bearer", "basic", "jwt", "aws", "vendor", "private_key", "url", "card"]
_MOST_KEYS = 65536  # whose verdict is kept
_KEY_ONCE = (KEY,)
_QUOTE = 0x22


class Redact:
    """Hides secrets in the events that hold any."""

    class Options(BaseModel, extra="forbid"):
        """The options of the stage."""

        keys: list[str] = Field(
            default=_KEYS,
            description="Keys whose values are secret. Letter case, '-', '_' and spaces make no difference; of a key "
            "with dots, what follows the last one counts; '*' at the start stands for anything before.",
        )
        patterns: list[str] = Field(
            default=_PATTERNS, description=f"Secrets known by their form: {', '.join(sorted(RULES))}."
        )
        custom: dict[str, str] = Field(
            default={},
            description="Your own: name → regular expression (Hyperscan's syntax, without anchors); all that it can "
            "match is hidden. Records with escapes in their JSON then cost more.",
        )
        action: Literal["replace", "hash", "mask"] = Field(
            default="replace",
            description="replace: by the replacement; hash: by a keyed hash, so that equal secrets stay comparable; "
            "mask: only the last 4 characters of 12 or more stay.",
        )
        replacement: str = Field(default="[REDACTED]", min_length=1, description="What stands for a secret.")
        key: SecretStr | None = Field(default=None, description="The key of the hash: 16 characters or more.")

        @field_validator("keys")
        @classmethod
        def _names(cls, keys: list[str]) -> list[str]:
            return [check_name(name) for name in keys]

        @field_validator("patterns")
        @classmethod
        def _known(cls, patterns: list[str]) -> list[str]:
            if unknown := [name for name in patterns if name not in RULES]:
                raise ValueError(f"no pattern is named {', '.join(unknown)}; there are {', '.join(sorted(RULES))}")
            return patterns

        @field_validator("custom")
        @classmethod
        def _usable(cls, custom: dict[str, str]) -> dict[str, str]:
            for name, expression in custom.items():
                Custom(name, expression)
            return custom

        @model_validator(mode="after")
        def _keyed(self) -> Redact.Options:
            if self.action == "hash" and (self.key is None or len(self.key.get_secret_value()) < 16):
                raise ValueError("action: hash needs a key of 16 characters or more, else hashes can be guessed")
            return self

    def __init__(self, options: Options) -> None:
        self._names, self._hide = Names(options.keys), _hiding(options)
        self.counts = self._hide.counts
        self._secrets = Secrets(self._names, options.patterns, options.custom, self._hide)
        self._with_cards = "card" in options.patterns
        self._rules = [rule for rule, _ in self._secrets.triggers]
        self._database = compiled([expression for _, expression in self._secrets.triggers])
        self._known: set[str] = set()
        self._special: dict[str, str | None] = {}
        self._plain_keys = PlainKeys(self._names)
        self._constant = orjson.dumps(options.replacement)[1:-1] if options.action == "replace" else None

    def touches(self, block: bytes) -> list[tuple[int, int]]:
        """The offsets in undecoded JSON at which something may have to be hidden, ascending, with the trigger."""
        return sorted(self._scan(block))

    def edits(
        self, block: bytes, hits: list[tuple[int, int]], spared: frozenset[bytes]
    ) -> tuple[list[Edit], list[int]]:
        """What hides the secrets at these offsets in JSON records, where they stand in plain texts, without escapes;
        and the offsets at which it takes more, or the key is `spared`.

        That is how most secrets in logs look, and it costs a fraction of decoding a record, walking through it and
        encoding it again.
        """
        edits: list[Edit] = []
        missed: list[int] = []
        texts: dict[tuple[int, int], set[str]] = {}
        keys, constant, find, rfind, whole = self._keys(spared), self._constant, block.find, block.rfind, 0
        for at, trigger in hits:
            if at < whole:  # inside of a value that is hidden as a whole
                continue
            # A key's trigger ends at its colon: `"key":"value"` or `"key": "value"`.
            if keys[block[rfind(b'"', 0, at - 1) - 1 : at + 1]]:
                start = at + 3 if block[at + 1 : at + 3] == b' "' else at + 2
                value = block[start : find(b'"', start)]
                if block[start - 1] == _QUOTE and b"\\" not in value:
                    whole = start + len(value)
                    if constant is None:
                        edits += self._edit((start, whole), value, None)
                    elif value and value != constant:
                        edits.append((start, whole, constant, _KEY_ONCE))
                    continue
            if span := plain_text(block, at, spared):
                texts.setdefault(span, set()).add(self._rules[trigger])
            else:
                missed.append(at)
        for span, rules in texts.items():
            edits += self._edit(span, block[slice(*span)], rules)
        if texts:
            edits.sort()
        return edits, missed

    def _keys(self, spared: frozenset[bytes]) -> PlainKeys:
        if self._plain_keys.spared != spared:
            self._plain_keys = PlainKeys(self._names, spared)
        return self._plain_keys

    def _edit(self, span: tuple[int, int], text: bytes, rules: set[str] | None) -> list[Edit]:
        """What hides the secrets in a text, or the value of a secret key, if there is anything to hide."""
        before = text.decode(errors="replace")
        counts = self._hide.counts = {}
        try:
            after = self._hidden_value(before) if rules is None else self._secrets.hidden_in(before, rules)
        finally:
            self._hide.counts = self.counts
        if after == before:
            return []
        return [(*span, orjson.dumps(after)[1:-1], [rule for rule, n in counts.items() for _ in range(n)])]

    def _scan(self, data: bytes) -> list[tuple[int, int]]:
        """Where triggers match (their last byte), and which."""
        hits: list[tuple[int, int]] = []
        append = hits.append

        def note(trigger: int, _start: int, end: int, _flags: int, _context: object) -> None:
            append((end - 1, trigger))

        self._database.scan(data, match_event_handler=note)
        return hits

    def __call__(self, events: list[Event]) -> list[Event]:
        """Hide what is secret in the events, in place."""
        texts: list[str] = []
        owners: list[Any] = []  # the objects and arrays that the texts are in, and the place of the first text of each
        firsts: list[int] = []
        numbered: list[Any] = []
        containers: list[Any] = [*events]
        for container in containers:  # which grows on the way
            values = self._values(container) if type(container) is dict else container
            owners.append(container)
            firsts.append(len(texts))
            for value in values:
                if (kind := type(value)) is str:
                    texts.append(value)
                elif kind is dict or kind is list:
                    containers.append(value)
                elif kind is int and value >= 10**12:
                    numbered.append(container)
        for place, rules in self._suspicious(texts).items():
            nth = bisect_right(firsts, place) - 1
            key = _key_of_text(owners[nth], place - firsts[nth])
            if nth >= len(events) or key not in RESERVED:
                owners[nth][key] = self._secrets.hidden_in(texts[place], rules)
        if self._with_cards:
            self._hide_cards(numbered)
        return events

    def _values(self, container: dict[str, Any]) -> ValuesView[Any]:
        """The values of an object whose keys have been seen to."""
        if not self._known.issuperset(container):
            self._learn(container)
        if not self._special.keys().isdisjoint(container):
            self._hide_keys(container)
        return container.values()

    def _learn(self, container: dict[str, Any]) -> None:
        if len(self._known) >= _MOST_KEYS:
            self._known.clear()
            self._special.clear()
        counts = dict(self.counts)
        for key in container.keys() - self._known:
            if key in self._names:
                self._special[key] = None
            elif (name := self._secrets.hidden_in(key, {ESCAPE})) != key and key not in RESERVED:
                self._special[key] = name
        self.counts.clear()  # a key is looked at once, and counted whenever it is met
        self.counts.update(counts)
        self._known.update(container)

    def _hide_keys(self, container: dict[str, Any]) -> None:
        renamed = False
        for key in container.keys() & self._special.keys():
            if self._special[key] is None:
                container[key] = self._hidden_value(container[key])
            else:
                renamed = True
        if renamed:
            items = [*container.items()]
            container.clear()
            for key, value in items:
                container[_free(container, self._special.get(key) or key)] = value

    def _hidden_value(self, value: Any) -> Any:
        if value is None or value == "":
            return value
        text = value if type(value) is str else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
        return text if self._hide.hidden.fullmatch(text) else self._hide(KEY, text)

    def _suspicious(self, texts: list[str]) -> dict[int, set[str]]:
        """The places of the texts in which triggers match, with the names of their rules."""
        joined = "\0".join(texts)
        if joined.count("\0") >= len(texts):
            joined = "\0".join([text.replace("\0", " ") for text in texts])
        data = joined.encode(errors="replace")
        found: dict[int, set[str]] = {}
        place = counted = 0
        for at, trigger in sorted(self._scan(data)):
            place += data.count(0, counted, at)
            counted = at
            found.setdefault(place, set()).add(self._rules[trigger])
        return found

    def _hide_cards(self, containers: list[Any]) -> None:
        for container in containers:
            for key, value in container.items() if type(container) is dict else enumerate(container):
                if type(value) is int and 10**12 < value < 7 * 10**18 and _is_card(str(value)):
                    container[key] = self._hide("card", str(value))


def _hiding(options: Redact.Options) -> Hiding:
    if options.action == "hash" and options.key is not None:
        return hashing(options.key.get_secret_value())
    return masking() if options.action == "mask" else replacing(options.replacement)


def _is_card(digits: str) -> bool:
    return "2" <= digits[0] <= "6" and card(digits) > 0


def _key_of_text(container: Any, nth: int) -> Any:
    """The key or place of the nth text in an object or array."""
    items = container.items() if type(container) is dict else enumerate(container)
    return next(islice((key for key, value in items if type(value) is str), nth, None))


def _free(container: dict[str, Any], name: str) -> str:
    """The name, or one with a number where it is taken: two keys may have become the same."""
    free, n = name, 1
    while free in container:
        n += 1
        free = f"{name}_{n}"
    return free
