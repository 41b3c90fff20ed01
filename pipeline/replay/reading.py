"""The inputs of a replay: those of the daemon, each told to read one source and to end with it."""

from __future__ import annotations

import glob
from collections.abc import Callable
from dataclasses import dataclass

from pipeline import registry
from pipeline.config import InputPart
from pipeline.contract import Context, Input, Unusable
from pipeline.replay.job import Job, checked, part_of, text_options
from pipeline.replay.sources import Dead, Files, Index, Source, Stdin, Tar, Topic

Contexts = Callable[[str, str], Context]
"""The name of an input, and that of its positions → what the engine gives it."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A source and what reads it."""

    source: Source
    part: InputPart
    """The configured input that it comes from."""

    def input(self, job: Job, contexts: Contexts) -> Input:
        """What reads it; raises `Unusable`."""
        made: Input
        match self.source:
            case Files(paths):
                options = text_options(
                    "file", self.part, job, paths=[*map(glob.escape, paths)], exclude=[], start="beginning"
                )
                made = registry.find("input", "file")(options, contexts(self.part.name, "files"))
            case Tar(path):
                from pipeline.replay.tar import TarReader  # noqa: PLC0415 - each only where it is wanted

                made = TarReader(path, self.part, job, contexts(self.part.name, f"tar {path}"))
            case Stdin():
                options = text_options("stdin", self.part, job)
                made = registry.find("input", "stdin")(options, contexts(self.part.name, "stdin"))
            case Topic():
                from pipeline.replay.topic import TopicReader  # noqa: PLC0415

                made = TopicReader(self.part, self.source, contexts(self.part.name, f"kafka {self.source.name}"))
            case Index(name):
                from pipeline.replay.index import IndexReader  # noqa: PLC0415

                made = IndexReader(job.config, name, contexts(self.part.name, f"elasticsearch {name}"))
            case Dead(file):
                from pipeline.replay.letters import LetterReader  # noqa: PLC0415

                made = LetterReader(job, file, contexts(self.part.name, f"dead {file}"))
        return made


def readings(job: Job) -> list[Reading]:
    """Each source with the input that it comes from; raises `Unusable` where that, or its ids, can't be told."""
    found = [Reading(source, part_of(source, job)) for source in job.sources]
    for each in found:
        match each.source:
            case Files(paths):
                checked(each.part, paths, job)
            case Stdin() if job.name is None and getattr(each.part.options, "name", None) is None:
                raise Unusable("-: say which log it is, so that it is known if it comes again: --as /var/log/app.log")
            case Tar(path) if job.name is not None and not job.name.endswith("/"):
                raise Unusable(f"{path}: --as must be a folder for an archive, with a / behind it")
            case _:
                pass
    return found
