"""Decodes plain text: each record becomes `{"message": …}`.

    inputs:
      console: {type: file, paths: [/var/log/app/*.log], decode: text}

Bytes that are not UTF-8 are replaced by U+FFFD and the event is tagged `_not_utf8`; nothing is refused.
"""

from pydantic import BaseModel

from pipeline.contract import Event
from pipeline.fields import tag


class Text:
    """Decodes records as text."""

    class Options(BaseModel, extra="forbid"):
        """None: text is text."""

    def __init__(self, options: Options) -> None:
        pass

    def decode(self, records: list[bytes]) -> list[Event]:
        """One event a record."""
        try:
            return [{"message": record.decode()} for record in records]
        except UnicodeDecodeError:
            return [_event(record) for record in records]


def _event(record: bytes) -> Event:
    try:
        return {"message": record.decode()}
    except UnicodeDecodeError:
        event: Event = {"message": record.decode(errors="replace")}
        tag(event, "_not_utf8")
        return event
