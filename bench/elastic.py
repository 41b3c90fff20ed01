"""The reference job into a real Elasticsearch, every document looked at.

usage: python -m bench.elastic URL [--lines N]
Refuses where one of the job's indices exists, and deletes them at the end.
"""

import argparse
import json
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import job, measure, oracle

TEMPLATE = "aiologs-bench"
INDICES = "aio-logs-*,aio-errors-*,aio-security-*"
PAGE = 5000
MAPPINGS = {
    "index_patterns": INDICES.split(","),
    "priority": 10_000,
    "template": {
        "settings": {"number_of_replicas": 0},
        # Nine of ten are texts, one is a number: the first to come would decide.
        "mappings": {
            "properties": {"timestamp": {"type": "date", "format": "strict_date_optional_time||epoch_millis"}}
        },
    },
}


class Cluster:
    """A cluster without authentication."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The answer to a request, as JSON."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self._url}/{path}", data, {"content-type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=120) as reply:
            return json.load(reply)

    def indices(self) -> list[str]:
        """Those of the job that exist."""
        return sorted(each["index"] for each in self.ask("GET", f"_cat/indices/{INDICES}?format=json"))

    def documents(self) -> Iterator[tuple[str, Any]]:
        """Index and content of all documents in the job's indices."""
        point = self.ask("POST", f"{INDICES}/_pit?keep_alive=5m")["id"]
        query = {"size": PAGE, "pit": {"id": point, "keep_alive": "5m"}, "sort": ["_shard_doc"]}
        while hits := self.ask("POST", "_search", query)["hits"]["hits"]:
            yield from ((hit["_index"], hit["_source"]) for hit in hits)
            query["search_after"] = hits[-1]["sort"]


def run(url: str, path: Path) -> None:
    """Run aiologs over the input; ends the program where it fails."""
    data_dir, log = job.DATA / "state", job.DATA / "elastic.log"
    shutil.rmtree(data_dir, ignore_errors=True)
    env = job.environment(data_dir, path, url, workers=2)
    usage = measure.run([job.AIOLOGS, "run", "--once", "-c", job.CONFIG], env, log)
    if usage.code:
        sys.exit(f"exit code {usage.code}: see {log}")
    print(f"{usage.seconds:.1f} s, {usage.cpu:.1f} CPU seconds of aiologs")


def check(cluster: Cluster, path: Path) -> bool:
    """Whether exactly the right documents are there."""
    cluster.ask("POST", f"{INDICES}/_refresh")
    kept = job.DATA / "kept.ndjson"
    with kept.open("w") as file:
        for index, document in cluster.documents():
            file.write(f'{{"create":{{"_index":"{index}"}}}}\n{json.dumps(document, separators=(",", ":"))}\n')
    good = oracle.check(path, job.DATABASE, kept)
    kept.unlink()
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--lines", type=int, default=400_000)
    args = parser.parse_args()
    path, cluster = job.prepare(args.lines), Cluster(args.url)
    if found := cluster.indices():
        sys.exit(f"there is {', '.join(found)} already")
    cluster.ask("PUT", f"_index_template/{TEMPLATE}", MAPPINGS)
    try:
        run(args.url, path)
        good = check(cluster, path)
    finally:
        cluster.ask("DELETE", f"_index_template/{TEMPLATE}")
        if made := cluster.indices():
            cluster.ask("DELETE", ",".join(made))
    sys.exit(not good)


if __name__ == "__main__":
    main()
