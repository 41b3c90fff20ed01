"""Mapping conflicts: a document with a field that its index can't take is repaired by moving the field beside.

An index gives each field one type, and refuses every document in which the field is of another. Rather than set all
of it aside, the field moves into `conflict`, and the document is sent again:

    {"user": "bob", "n": 1}  →  {"n": 1, "conflict": [{"field": "user", "value": "bob"}]}

That it has a `conflict` marks the document. It is a list of pairs, both texts (a value that is none is written as
JSON), since this never conflicts itself: `user.conflict` would make an object of `user`, which may be the very problem,
and `conflict.user` would conflict with another document's `conflict.user.id`. And it costs an index two fields,
whatever the documents hold.

Elasticsearch names one field a time, so a document may come back some times, each with another field. What it was is
remembered by index, and later documents that surely conflict are repaired before they are sent.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal, NamedTuple

from pipeline.contract import Documents, Refused, bulk

Mode = Literal["move", "set_aside"]

FIELD = "conflict"
MOST_FIELDS = 10
"""So many fields of a document are moved; it is set aside if there are more."""
MOST_INDICES = 200
"""Of so many indices conflicts are remembered, and as many fields of each."""

_LONG = 32766
"""Bytes of the longest term that an index takes."""
_NUMBERS = {
    "long", "integer", "short", "byte", "double", "float", "half_float", "scaled_float", "unsigned_long",
}  # fmt: skip
_TEXTS = {"keyword", "text", "match_only_text", "wildcard", "constant_keyword"}
_SCALARS = _NUMBERS | _TEXTS | {"ip", "boolean", "date", "date_nanos"}

# What Elasticsearch 9.2 says (seen with each type; tests/integration has them).
_PATTERNS = (
    re.compile(r"failed to parse field \[(?P<field>[^]]+)] of type \[(?P<wanted>[^]]+)]"),
    re.compile(r"(?P<wanted>object) mapping for \[(?P<field>[^]]+)] tried to parse field \[[^]]*] as object"),
    re.compile(r"mapper \[(?P<field>[^]]+)] cannot be changed from type \[(?P<wanted>[^]]+)]"),
    re.compile(r"Existing mapping for \[(?P<field>[^]]+)] must be of type object but found \[(?P<wanted>[^]]+)]"),
    re.compile(
        r"mapping set to (?P<wanted>strict), dynamic introduction of \[(?P<field>[^]]+)] within \[(?P<in>[^]]+)]"
    ),
)


class Conflict(NamedTuple):
    """A field, by its full name, and the type that its index wants."""

    field: str
    wanted: str


def conflict(reason: str) -> Conflict | None:
    """The conflict that a refusal's reason tells of, if it does."""
    for pattern in _PATTERNS:
        if match := pattern.search(reason):
            field, wanted = match["field"], match["wanted"]
            if wanted == "strict":
                field, wanted = field if match["in"] == "_doc" else f"{match['in']}.{field}", "no new field"
            elif "immense term" in reason:
                wanted = f"{wanted} of at most {_LONG} bytes"
            return Conflict(field, wanted)
    return None


def explained(refused: Refused, found: Conflict) -> str:
    """The reason of a refusal with the field, the type that is wanted and the one that is there."""
    values = _pull(_loads(refused.document), found.field.split("."))
    got = f", and it is {_kind(values[0])}" if values else ""
    return f"{refused.reason} (field {found.field} is to be: {found.wanted}{got})"


class Conflicts:
    """Repairs documents, and remembers what had to be repaired."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, str]] = {}  # index → field → the type it wants

    def known(self, payload: list[Documents]) -> bool:
        """Whether an index is there that had conflicts."""
        return bool(self._known) and any(section.index in self._known for section in payload)

    def prepare(self, payload: list[Documents]) -> tuple[list[Documents], int]:
        """The payload with documents repaired that would surely be refused, and how many."""
        prepared, count = [], 0
        for section in payload:
            fields = self._known.get(section.index, {})
            fields = {field: wanted for field, wanted in fields.items() if _mentions(section.body, field)}
            pairs, changed = [*section.pairs()] if fields else [], 0
            for n, (id_, document) in enumerate(pairs):
                repaired = _repair_known(document, fields)
                if repaired is not None:
                    pairs[n], changed = (id_, repaired), changed + 1
            prepared.append(bulk(section.index, pairs) if changed else section)
            count += changed
        return prepared, count

    def repair(self, refused: Refused) -> tuple[bytes, Conflict] | None:
        """The document without the field that was in its way, and which that was; None: nothing helps."""
        found = conflict(refused.reason)
        if found is None:
            return None
        document = _loads(refused.document)
        if not _move(document, found.field):
            return None
        self._remember(refused.index, found)
        return _dumps(document), found

    def _remember(self, index: str, found: Conflict) -> None:
        if index not in self._known and len(self._known) >= MOST_INDICES:
            del self._known[next(iter(self._known))]
        fields = self._known.setdefault(index, {})
        if len(fields) < MOST_INDICES:
            fields[found.field] = found.wanted


def _mentions(text: bytes, field: str) -> bool:
    """Whether a field may be in JSON text: a dot may stand in a name, or between an object's and its field's."""
    return field.rpartition(".")[2].encode() in text


def _repair_known(text: bytes, fields: dict[str, str]) -> bytes | None:
    """A document without those of the fields that surely conflict; None: none does."""
    document, changed = None, False
    for field, wanted in fields.items():
        if _mentions(text, field):
            document = _loads(text) if document is None else document
            values = _pull(document, field.split("."), remove=False)
            if any(_surely(wanted, value) for value in values):
                changed |= _move(document, field)
    return _dumps(document) if changed else None


def _move(document: dict[str, Any], field: str) -> bool:
    """Move a field beside; False: it isn't there, or too many were moved before."""
    beside = document.get(FIELD, [])
    if not isinstance(beside, list) or len(beside) >= MOST_FIELDS or field.partition(".")[0] == FIELD:
        return False
    values = _pull(document, field.split("."))
    document[FIELD] = [*beside, *({"field": field, "value": _text(value)} for value in values)]
    return bool(values)


def _pull(value: Any, path: list[str], *, remove: bool = True) -> list[Any]:
    """Take out what stands at a path; names may hold dots, and lists any number of objects. The values, in order."""
    if isinstance(value, list):
        return [found for each in value for found in _pull(each, path, remove=remove)]
    if not isinstance(value, dict):
        return []
    found = []
    for n in range(1, len(path) + 1):
        name, rest = ".".join(path[:n]), path[n:]
        if name in value:
            found += _pull(value[name], rest, remove=remove) if rest else [value[name]]
            if remove and not rest:
                del value[name]
    below = ".".join(path) + "."  # {"a.b": 1} where `a` is asked for is {"a": {"b": 1}}
    for name in [name for name in value if name.startswith(below)]:
        found.append({name.removeprefix(below): value[name]})
        if remove:
            del value[name]
    return found


def _surely(wanted: str, value: Any) -> bool:
    """Whether an index that wants a type refuses a value, as far as this can be known here: else it is tried."""
    if isinstance(value, list):
        return any(_surely(wanted, each) for each in value)
    if isinstance(value, dict):
        return wanted in _SCALARS
    if value is None:
        return False
    return wanted in {"object", "nested", "flattened"} or _surely_no_scalar(wanted, value)


def _surely_no_scalar(wanted: str, value: str | float) -> bool:
    if wanted in _NUMBERS:
        return isinstance(value, bool) or (isinstance(value, str) and not _is_number(value))
    if wanted.startswith("keyword of at most"):
        return isinstance(value, str) and len(value.encode(errors="replace")) > _LONG
    return wanted == "boolean" and not isinstance(value, bool) and value not in {"true", "false", ""}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return not text.strip()
    return True


def _kind(value: Any) -> str:
    names: dict[type, str] = {dict: "an object", list: "an array", str: "a text", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _loads(document: bytes) -> dict[str, Any]:
    """A document; unlike orjson this keeps integers of any size as they are."""
    loaded: dict[str, Any] = json.loads(document)
    return loaded


def _dumps(document: Any) -> bytes:
    # Half a surrogate pair, which JSON can escape and UTF-8 has not, becomes such an escape again.
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace")
