"""A daemon's insides with a configuration file that is changed, for tests of reloads."""

import asyncio
import contextlib
import json
import socket
import sqlite3
import urllib.request
from contextlib import asynccontextmanager
from pathlib import Path

from pipeline import config
from pipeline.app import App
from pipeline.chain import Chain
from pipeline.reload import Reload
from pipeline.workers import Inline

CONFIG = """
data_dir: {folder}/data
admin: null
workers: 0
reload: {reload}
inputs:
  app: {{type: file, paths: ["{folder}/*.log"]}}
  web: {{type: http, listen: "127.0.0.1:{port}"}}
{inputs}
stages:
  - tag: {{add: ["{tag}"]}}
  - route: {{default: logs}}
outputs:
  db: {{type: local, path: "{folder}/store.db"}}
{outputs}
{more}
"""


class Site:
    """A daemon's insides with a configuration file that is changed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "aiologs.yaml"
        self.told: list[str] = []
        with contextlib.closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.values = {"port": probe.getsockname()[1], "tag": "one", "inputs": "", "outputs": "", "more": ""}
        self.values["reload"] = "on_signal"
        self.write()
        settings = config.load(self.path)
        self.app = App(
            settings, lambda metrics: Inline(Chain(settings.chain_spec()), metrics.report), notify=self.told.append
        )
        self.reload = Reload(self.app, self.told.append)

    def write(self, **values) -> None:
        self.values |= values
        new = self.path.with_suffix(".new")
        new.write_text(CONFIG.format(folder=self.folder, **self.values))
        new.replace(self.path)

    async def changed(self, **values) -> None:
        """Change the file, reload, and wait until that is over."""
        self.write(**values)
        ready = self.ready()
        self.reload.request()
        await until(lambda: self.ready() > ready and self.app.change is None)

    def ready(self) -> int:
        return sum(each.startswith("READY=1") for each in self.told)

    def log(self, n: int, name: str = "app.log") -> None:
        with (self.folder / name).open("a") as file:
            file.write(f'{{"n":{n}}}\n')

    async def send(self, n: int, port: int | None = None) -> None:
        url = f"http://127.0.0.1:{port or self.values['port']}/"
        request = urllib.request.Request(url, f'{{"n":{n}}}'.encode(), {"Content-Type": "application/json"})
        with await asyncio.to_thread(urllib.request.urlopen, request) as answer:
            assert answer.status == 200

    def stored(self, name: str = "store.db") -> dict[int, str]:
        """The tag of each document by its number."""
        if not (self.folder / name).exists():
            return {}
        with contextlib.closing(sqlite3.connect(self.folder / name)) as db:
            documents = [json.loads(text) for (text,) in db.execute("SELECT document FROM documents")]
        return {each["n"]: each["tags"][0] for each in documents}

    async def until_stored(self, n: int, name: str = "store.db") -> str:
        await until(lambda: n in self.stored(name))
        return self.stored(name)[n]


async def until(condition) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def at_work(site: Site):
    tasks = [asyncio.create_task(site.app.run()), asyncio.create_task(site.reload.run())]
    await until(lambda: site.ready() or tasks[0].done())
    try:
        yield site
    finally:
        site.app.stop.set()
        try:
            await tasks[0]
        finally:
            tasks[1].cancel()
