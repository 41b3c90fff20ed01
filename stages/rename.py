"""Gives fields other names.

    - rename: {fields: {msg: message, "req.ip": clientIp, userId: user.id}}

A name is a path: objects on the way are made, and one that is left empty goes. A field that is missing or null is
skipped. A field that already has the new name is overwritten. All are renamed at once, so two can change their names.
Where a text or number stands in the way of a new path (`user: "ann"` and `user.id`), the record is set aside.
"""

from pydantic import BaseModel, Field, field_validator

from pipeline.contract import RESERVED, Event
from pipeline.fields import getter, pop, put


class Rename:
    """Renames fields."""

    class Options(BaseModel, extra="forbid"):
        """Which fields to rename."""

        fields: dict[str, str] = Field(min_length=1, description="Old path → new path.")

        @field_validator("fields")
        @classmethod
        def _checked(cls, fields: dict[str, str]) -> dict[str, str]:
            for path in [*fields, *fields.values()]:
                if not path or path in RESERVED:
                    raise ValueError(f"{path!r} can't be renamed, nor be a new name")
            if len(set(fields.values())) < len(fields):
                raise ValueError("two fields can't have the same new name")
            return fields

    def __init__(self, options: Options) -> None:
        self._renames = [(getter(old), old, new) for old, new in options.fields.items()]

    def __call__(self, events: list[Event]) -> list[Event]:
        """Rename in every event; raises `TypeError` where a scalar stands in the way."""
        for event in events:
            # All are taken out before the first is put back.
            values = [(new, pop(event, old)) for get, old, new in self._renames if get(event) is not None]
            for new, value in values:
                put(event, new, value)
        return events
