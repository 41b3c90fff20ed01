"""The real daemon with listeners and a store in a file, for clients to send to."""

import json
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from tests.crash.daemon import Daemon, wait_until
from tests.services.ports import free_port


class Receiver(Daemon):
    """A daemon whose inputs listen on free ports; each document's index is what its field `to` names."""

    def __init__(self, folder: Path, inputs: dict[str, dict[str, Any]], **config: Any) -> None:
        listening = [name for name, options in inputs.items() if options["type"] not in {"file", "kafka"}]
        self.ports = {name: free_port() for name in listening}
        addresses = {name: {"listen": f"127.0.0.1:{port}"} for name, port in self.ports.items()}
        self.store = folder / "store.db"
        super().__init__(
            folder,
            config.pop("outputs", {"store": {"type": "local", "path": str(self.store)}}),
            inputs={name: options | addresses.get(name, {}) for name, options in inputs.items()},
            stages=config.pop("stages", [{"route": {"default": "all"}}]),
            **config,
        )

    def start(self, *options: str, **env: str) -> float:
        """Start it and wait until every input listens."""
        said = len(self.log)
        seconds = super().start(*options, **env)
        for name in self.ports:
            wait_until(partial(self._listens, name, said), f"{name} listens")
        return seconds

    def _listens(self, name: str, said: int) -> bool:
        assert psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE, self.log[-3000:]
        return f"input {name}: listening" in self.log[said:]

    def url(self, name: str = "web") -> str:
        """The base URL of an input that speaks HTTP."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def ids(self) -> set[str]:
        """The ids of all documents of the store."""
        return {id_ for (id_,) in self._query("SELECT id FROM documents")}

    def found(self, text: str) -> list[dict[str, Any]]:
        """The documents whose message begins with a text, in the order of their messages."""
        rows = self._query("SELECT document FROM documents WHERE document ->> 'message' LIKE ?", f"{text} %")
        return sorted((json.loads(document) for (document,) in rows), key=lambda each: str(each["message"]))

    def _query(self, statement: str, *values: str) -> list[Any]:
        with closing(sqlite3.connect(f"{self.store.absolute().as_uri()}?mode=ro", uri=True)) as db:
            return db.execute(statement, values).fetchall()
