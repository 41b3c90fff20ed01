"""A cluster in memory, with as much of Elasticsearch's answers as `setup` reads."""

from fnmatch import fnmatchcase
from typing import Any

from pipeline.setup.cluster import Refused

POLICY, COMPONENT, TEMPLATE = "_ilm/policy", "_component_template", "_index_template"


class FakeCluster:
    """`answers` come first: what a test wants to be answered to `METHOD path` (with its query cut off)."""

    def __init__(self, data_nodes: int = 2, **version: Any) -> None:
        self.data_nodes = data_nodes
        self.version = {"number": "9.2.0", "build_flavor": "default", **version}
        self.stored: dict[str, dict[str, Any]] = {POLICY: {}, COMPONENT: {}, TEMPLATE: {}}
        self.aliases: dict[str, dict[str, Any]] = {}
        self.streams: list[str] = []
        self.indices: dict[str, dict[str, str]] = {}
        self.answers: dict[str, Any] = {}
        self.changes: list[str] = []
        """Every request that is no question, as `METHOD path`."""
        self.bodies: dict[str, Any] = {}

    def ask(self, method: str, path: str, body: Any = None, *, missing: Any = None) -> Any:
        path = path.partition("?")[0]
        if method != "GET":
            self.changes.append(f"{method} {path}")
            self.bodies[f"{method} {path}"] = body
        answer = self.answers.get(f"{method} {path}")
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            return answer
        found = getattr(self, f"_{method.lower()}")(path, body)
        return missing if found is None else found

    def _get(self, path: str, _: Any) -> Any:  # noqa: PLR0911 - one answer a path
        match path.split("/"):
            case [""]:
                return {"cluster_name": "fake", "version": self.version}
            case ["_cluster", *_]:
                return {"number_of_data_nodes": self.data_nodes}
            case ["_ilm", "policy"]:
                return {name: {"version": 1, "policy": each["policy"]} for name, each in self.stored[POLICY].items()}
            case ["_component_template"]:
                found = [{"name": n, "component_template": each} for n, each in self.stored[COMPONENT].items()]
                return {"component_templates": found}
            case ["_index_template"]:
                return {"index_templates": [{"name": n, "index_template": e} for n, e in self.stored[TEMPLATE].items()]}
            case ["_data_stream", name]:
                return {"data_streams": [{"name": name}]} if name in self.streams else None
            case ["_alias", name]:
                found = {index: {"aliases": each} for index, each in self.aliases.items() if name in each}
                return found or None
            case [names, "_settings"]:
                chosen = [n for n in self.indices if any(fnmatchcase(n, each) for each in names.split(","))]
                return {name: {"settings": self.indices[name]} for name in chosen}
            case [name]:
                return {each: {} for each in self.indices if fnmatchcase(each, name)} or None
        return None

    def _put(self, path: str, body: Any) -> Any:
        kind, _, name = path.rpartition("/")
        if kind in self.stored:
            self.stored[kind][name] = body
        elif kind == "_data_stream":
            self.streams.append(name)
        elif not kind:
            if name in self.indices:
                raise Refused(
                    f"PUT /{name}", 400, "resource_already_exists_exception", f"index [{name}] already exists"
                )
            self.indices[name] = {}
            self.aliases[name] = body["aliases"]
        return {"acknowledged": True}

    def _post(self, _: str, __: Any) -> Any:
        return {"acknowledged": True}
