"""Adds and removes tags.

    - tag: {add: ["{environment}", "from-{host.name}", audited], remove: [debug]}

`tags` is a list of texts without duplicates, made where there is none; a scalar that stands there becomes a list.
A text may have fields in braces; where one of them is missing, that tag is not added. Removing comes first, so that a
tag in both lists is there at the end. A record whose `tags` is an object is set aside.
"""

from typing import Annotated

import orjson
from pydantic import AfterValidator, BaseModel, Field

from pipeline.columns import ByValues, Columns
from pipeline.contract import Event
from pipeline.fields import Template, tag


def _checked(text: str) -> str:
    Template(text)  # raises on unbalanced braces
    return text


class Tag:
    """Adds and removes tags."""

    class Options(BaseModel, extra="forbid"):
        """What to add and what to remove."""

        add: list[Annotated[str, AfterValidator(_checked)]] = Field(
            default=[], description="Tags to add; a field in braces is replaced by its value, as in `{environment}`."
        )
        remove: list[str] = Field(default=[], description="Tags to remove.")

    def __init__(self, options: Options) -> None:
        self._templates = [Template(text) for text in options.add]
        self._remove = frozenset(options.remove)
        self.adds = frozenset({"tags"})
        fields = frozenset[str]().union(*(template.fields for template in self._templates))
        self.reads = self.adds | fields
        self._tags = ByValues(self._made, fields)

    def __call__(self, events: list[Event]) -> list[Event]:
        """Remove, then add."""
        templates, remove = self._templates, self._remove
        lone = templates[0] if len(templates) == 1 else None
        for event in events:
            if remove and event.get("tags") is not None:
                self._removed(event)
            if lone and "tags" not in event:  # nearly every event
                if new := lone(event):
                    event["tags"] = [new]
            elif new_ones := [text for template in templates if (text := template(event))]:
                tag(event, *new_ones)
        return events

    def fill(self, columns: Columns) -> None:
        """The same by column."""
        found = self._tags(columns)
        if others := [place for place, json in enumerate(columns.json.get("tags", ())) if json]:
            columns.through(self, others)
            for place in others:
                found[place] = b""
        columns.add("tags", None, found)

    def _made(self, event: Event) -> bytes:
        """The tags of an event that has none, as JSON."""
        tags = self([event])[0].get("tags")
        return orjson.dumps(tags) if tags else b""

    def _removed(self, event: Event) -> None:
        """Take out the tags to remove."""
        tag(event)  # makes it a list
        event["tags"] = [each for each in event["tags"] if not isinstance(each, str) or each not in self._remove]
