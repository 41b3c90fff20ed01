"""Decodes the log files of containers as containerd and CRI-O write them.

    inputs:
      pods: {type: file, paths: ["/var/log/pods/*/*/*.log*"], decode: cri}
    stages:
      - json: {field: message, when: 'message.startswith("{")'}
      - timestamp: {field: ["@timestamp", time, timestamp]}

    2026-11-20T10:00:00.123456789Z stdout F {"level": "info"}

| field | from |
|---|---|
| `timestamp` | when the runtime read it, for the stage `timestamp` |
| `stream` | stdout or stderr |
| `message` | what the program wrote |
| `log.flags` | `partial` where the line goes on in the next record: the runtime cuts at 16 KiB |

The format is the kubelet's (Kubernetes, CRI log format). A record of another form is set aside. Bytes that are not
UTF-8 are replaced and the event is tagged `_not_utf8`.
"""

import re

from pydantic import BaseModel

from pipeline.contract import Event
from pipeline.fields import tag

_LINE = re.compile(r"(\d{4}-\d\d-\d\dT\S+) (stdout|stderr) ([^ :]+)(?::\S*)? (.*)", re.ASCII | re.DOTALL)


class Cri:
    """Decodes lines of container logs."""

    class Options(BaseModel, extra="forbid"):
        """None: there is one format."""

    def __init__(self, options: Options) -> None:
        pass

    def decode(self, records: list[bytes]) -> list[Event]:
        """One event a record; raises `ValueError` on what is no line of a container's log."""
        return [_event(record) for record in records]


def _event(record: bytes) -> Event:
    text = record.decode(errors="replace")
    match = _LINE.fullmatch(text)
    if match is None:
        raise ValueError("no line of a container's log: TIME stdout|stderr F|P TEXT")
    time, stream, flag, message = match.groups()
    event: Event = {"timestamp": time, "stream": stream, "message": message}
    if flag == "P":
        event["log.flags"] = "partial"
    if "\ufffd" in text and text.encode() != record:
        tag(event, "_not_utf8")
    return event
