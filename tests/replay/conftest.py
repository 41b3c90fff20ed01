import asyncio
import gzip
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.app import App
from pipeline.chain import Chain
from pipeline.config import load
from pipeline.outputs.local import counts
from pipeline.replay.job import Job
from pipeline.replay.run import run
from pipeline.replay.sources import parse
from pipeline.workers import Inline


def lines(day: int, numbers: Sequence[int]) -> bytes:
    """A log of a day in November."""
    return b"".join(b'{"time":"2026-11-%02dT%02d:00:00.000Z","n":%d}\n' % (day, n % 24, n) for n in numbers)


class Rig:
    """A configuration with a file input and an embedded store, and what is in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.logs, self.path = folder, folder / "logs", folder / "aiologs.yaml"
        self.logs.mkdir()
        self.config: dict[str, Any] = {
            "data_dir": str(folder / "data"),
            "workers": 0,
            "admin": None,
            "host": "web1",
            "inputs": {"app": {"type": "file", "paths": [f"{self.logs}/*.log"]}},
            "stages": [{"timestamp": {"field": "time"}}, {"route": {"default": "logs-{day}"}}],
            "outputs": {"store": {"type": "local", "path": str(folder / "store.db")}},
        }

    def write(self, name: str, data: bytes) -> Path:
        """A log file, compressed as its name says."""
        path = self.logs / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    def ship(self) -> None:
        """Have the daemon read what is there."""
        self.path.write_text(yaml.safe_dump(self.config))
        config = load(self.path)
        asyncio.run(App(config, lambda _: Inline(Chain(config.chain_spec())), once=True).run())

    def job(self, *words: object, **options: Any) -> Job:
        self.path.write_text(yaml.safe_dump(self.config))
        return Job(load(self.path), [str(each) for each in words], parse([str(each) for each in words]), **options)

    def replay(self, *words: object, again: bool = False, plan: bool = False, **options: Any) -> dict[str, Any]:
        """Replay, and say how it went."""
        return asdict(run(self.job(*words, **options), again=again, plan=plan, quiet=True))

    def fates(self, *words: object, **options: Any) -> tuple[int, int]:
        """Replay; how many documents were new, and how many were there."""
        fates = self.replay(*words, **options)["counts"]["outputs"]["store"]
        return fates["stored"], fates["already"]

    def stored(self) -> dict[str, int]:
        """Documents by index."""
        return counts(self.folder / "store.db")


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


@pytest.fixture
def live(rig):
    """The same, after a daemon has read two rotated days and half of a third."""
    rig.write("app.log.2", lines(1, range(100)))
    rig.write("app.log.1", lines(2, range(100, 200)))
    rig.write("app.log", lines(3, range(200, 250)))
    rig.config["inputs"]["app"]["paths"] = [f"{rig.logs}/app.log*"]
    rig.ship()
    assert sum(rig.stored().values()) == 250
    return rig


def documents(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in sorted(path.iterdir()) for line in file.read_text().splitlines()]
