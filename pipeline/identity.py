"""Where a record stands in its source → its document id.

A document id is an identity, a dash, and the record's place in its source. A file's identity comes from what does not
change when it is rotated, renamed or compressed: the host, the log's name without rotation suffixes, and the first
line of the uncompressed text. So every re-read of a record, live or from last week's archive, gives the same id.
"""

import os
import re
from base64 import urlsafe_b64encode
from hashlib import blake2b

FIRST_LINE = 4096
"""How many bytes of a first line count."""

_COMPRESSED = r"\.(?:gz|zst|bz2|xz|lz4|zip|Z)"
_KEPT = r"\.(?:bak|old|prev)|~"
_NUMBER = r"\.\d{1,3}"
_DAY = r"(?:19|20)\d\d([-._]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])|(?:\d\d)([-._])\d\d\2(?:19|20)\d\d"
_TIME = r"[-._T]?\d\d(?:[-.:_]?\d\d(?:[-.:_]?\d\d)?)?"
_DATE = rf"[-._](?:(?:{_DAY})(?:{_TIME})?|1\d{{9}})(?:[-._]\d{{1,3}})?"

_SUFFIX = re.compile(rf"(?:{_COMPRESSED}|{_KEPT}|{_NUMBER}|{_DATE})$")
# `app-2026-11-20.log`: what loggers with a file name pattern write (log4j, logback, winston), also `-1` for the index.
_INSIDE = re.compile(rf"(?:{_DATE})(?=\.[A-Za-z][A-Za-z0-9]{{0,9}}$)")


def file_identity(host: str, log_name: str, first_line: bytes, recreated: int = 0) -> str:
    """The identity of a file: 16 characters of URL-safe base64.

    `first_line` comes without its newline; only its first 4 KiB count. `recreated` says how many files with the same
    host, name and first line came before this one; 0 adds nothing.
    """
    parts = [host.encode(errors="surrogateescape"), os.fsencode(log_name), first_line[:FIRST_LINE]]
    if recreated:
        parts.append(b"%d" % recreated)
    # Each part is led by its length, so that no two lists of parts are the same bytes.
    text = b"".join(b"%d:%b" % (len(part), part) for part in parts)
    return urlsafe_b64encode(blake2b(text, digest_size=12).digest()).decode()


def log_name(path: str) -> str:
    """The path of the log that a file is, or was rotated from: without the suffixes of rotation.

    Stripped, again and again, from the end of the file's name: `.gz` and other compressions, `.1` to `.999`, `.bak`,
    `.old`, `.prev`, `~`, and dates with or without a time or an index (`-20261120`, `.2026-11-20-13`, `-1763640000`);
    a date also before the extension (`app-2026-11-20.log` is `app.log`). Numbers before the extension stay: `app-1.log`
    and `app-2.log` are more often two programs than two ages of one log. The folder stays too, since the logs of
    two folders often begin alike; for a log that is rotated into another folder, give the name.
    """
    folder, name = os.path.split(path)
    while (shorter := _INSIDE.sub("", _SUFFIX.sub("", name))) not in {name, ""}:
        name = shorter
    return os.path.join(folder, name)  # noqa: PTH118 — a name, not a file to open; pathlib costs ten times this


def log_called(given: str | None, path: str) -> str:
    """The name of the log in a file: as it was given or, where that is a folder (with a `/` behind it), in there."""
    if given and not given.endswith("/"):
        return given
    log = log_name(path)
    return given + os.path.basename(log) if given else log  # noqa: PTH119 - as above
