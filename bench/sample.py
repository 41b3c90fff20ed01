"""Writes the demo's sample logs: about 1,000 records of every category, as a service with winston would write them.

    python -m bench.sample config/demo

The same files at every run. Among the records are some that are malformed, some without a usable time, and made-up
secrets in all the places where they turn up. Addresses are from the networks that documentation may use (RFC 5737,
RFC 3849), which the demo's GeoIP database locates, and from private ones, which it does not.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

Record = dict[str, Any]

DAY = datetime(2026, 11, 20, tzinfo=UTC)

FILES = {  # name → first moment, seconds between records, number of records, categories with their weights
    "api.log": (DAY, 90, 420, {"request": 60, "business": 12, "websocket": 12, "db": 10, "performance": 6}),
    "auth.log": (DAY, 200, 200, {"security": 60, "audit": 25, "request": 15}),
    "tools.log": (DAY, 240, 160, {"tool": 55, "nlp": 15, "performance": 20, "business": 10}),
    "worker.log.1": (DAY - timedelta(days=1), 400, 140, {"db": 40, "business": 30, "performance": 15, "tool": 15}),
    "worker.log": (DAY, 800, 80, {"db": 40, "business": 30, "performance": 15, "tool": 15}),
}
ADDRESSES = ["192.0.2.{}", "198.51.100.{}", "203.0.113.{}", "2001:db8:{:x}::7", "10.20.30.{}"]
ERRORS = {
    "TimeoutError": "upstream timed out after 5000 ms",
    "DatabaseError": 'duplicate key value violates unique constraint "sessions_pkey"',
    "ValidationError": "artifact.size must be a positive number",
    "ExternalApiError": "model service answered 503",
}
TOOLS = ["graphics", "web-designer", "ide", "cad", "video"]
PEOPLE = ["ana", "li.wei", "o.brien", "søren", "zoë"]


def lines(name: str) -> Iterator[bytes]:
    """The lines of one of the files, without newlines."""
    start, seconds, count, weights = FILES[name]
    pick = random.Random(f"aiologs {name}")
    for n in range(count):
        when = start + timedelta(seconds=n * seconds, milliseconds=pick.randrange(1000 * seconds))
        category = pick.choices([*weights], [*weights.values()])[0]
        record = _record(pick, when, name.partition(".")[0], category)
        yield _odd(pick, n, record) or orjson.dumps(record)


def _record(pick: random.Random, when: datetime, service: str, category: str) -> Record:
    level, message, details = CATEGORIES[category](pick)
    record: Record = {
        "timestamp": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level,
        "message": message,
        "service": f"{service}-service",
        "environment": pick.choice(["production"] * 8 + ["staging"] * 2),
        "category": category,
        "correlationId": f"{pick.getrandbits(128):032x}",
        "userId": f"u{pick.randrange(900):05d}",
        "clientIp": pick.choice(ADDRESSES).format(pick.randrange(1, 255)),
        **details,
    }
    if pick.random() < 0.07:
        _fail(pick, record)
    if pick.random() < 0.3:
        record["traceId"] = f"{pick.getrandbits(128):032x}"
    return record


def _fail(pick: random.Random, record: Record) -> None:
    """Make it an error, now and then a fatal one, with a stack trace."""
    name = pick.choice([*ERRORS])
    if "request" in record:
        record["request"]["statusCode"] = 500
    frames = [f"    at {at} (/srv/app/{file}.js:{pick.randrange(300)}:{pick.randrange(40)})" for at, file in FRAMES]
    record |= {
        "level": "fatal" if pick.random() < 0.2 else "error",
        "message": f"{name}: {ERRORS[name]}",
        "error": {"name": name, "message": ERRORS[name], "stack": "\n".join([f"{name}: {ERRORS[name]}", *frames])},
    }


FRAMES = [("Client.request", "client"), ("async Handler.run", "handler"), ("async process", "worker")]


def _odd(pick: random.Random, n: int, record: Record) -> bytes | None:
    """Every now and then something that a pipeline must stand; None: the record as it is, perhaps changed."""
    match n % 60:
        case 7:  # the disk was full
            return orjson.dumps(record)[: pick.randrange(40, 200)]
        case 17:
            del record["timestamp"]
        case 27:
            record["timestamp"] = "yesterday, around noon"
        case 37:
            record["timestamp"] = int(datetime.fromisoformat(record["timestamp"]).timestamp() * 1000)
        case 47:
            del record["correlationId"]
            record["headers"] = {"x-correlation-id": f"req-{pick.getrandbits(48):012x}"}
        case 57 if n > 100:
            return b"(node:1) Warning: Closing file descriptor 23 on garbage collection"
    return None


def _request(pick: random.Random) -> tuple[str, str, Record]:
    method, path = (
        pick.choice(["GET", "GET", "POST", "PUT"]),
        pick.choice(["/api/v1/sessions", "/api/v1/artifacts", "/ws"]),
    )
    status = pick.choice([200] * 14 + [201, 204, 404, 429])
    took = round(pick.lognormvariate(4, 1), 2)
    request = {"method": method, "path": path, "statusCode": status, "durationMs": took}
    details: Record = {"request": request}
    if pick.random() < 0.15:
        request["headers"] = {"authorization": f"Bearer {pick.getrandbits(160):040x}", "accept": "*/*"}
    level = "warn" if status >= 400 else pick.choice(["http", "http", "info", "debug"])
    return level, f"{method} {path} {status} in {took} ms", details


def _business(pick: random.Random) -> tuple[str, str, Record]:
    who = pick.choice(PEOPLE)
    message, context = pick.choice([
        (f"artifact shared with {who}@example.com", {"artifactId": 7, "bytes": pick.randrange(9**7)}),
        ("plan changed to „Atelier“", {"plan": "atelier", "note": "für 3 Plätze: 3 席分"}),
        ("payment accepted, card 4111 1111 1111 1111", {"amount": 19.9, "creditCard": "4111111111111111"}),
        ("artefact créé 🎨", {"artifactId": pick.randrange(10_000), "tool": pick.choice(TOOLS)}),
    ])  # fmt: skip
    return "info", message, {"context": context}


def _websocket(pick: random.Random) -> tuple[str, str, Record]:
    event = pick.choice(["opened", "closed", "message rate high"])
    context = {"connectionId": f"{pick.getrandbits(64):016x}", "connections": pick.randrange(900)}
    return "warn" if "high" in event else "debug", f"websocket {event}", {"context": context}


def _db(pick: random.Random) -> tuple[str, str, Record]:
    took = round(pick.lognormvariate(2, 1.2), 1)
    query = pick.choice(["SELECT * FROM sessions WHERE id = $1", "UPDATE artifacts SET size = $1 WHERE id = $2"])
    return "warn" if took > 40 else "debug", "query finished", {"context": {"query": query, "durationMs": took}}


def _performance(pick: random.Random) -> tuple[str, str, Record]:
    metric = pick.choice(["heap_used_mb", "event_loop_lag_ms", "cache_miss_rate"])
    return "info", f"{metric} measured", {"context": {"metric": metric, "value": round(pick.random() * 500, 2)}}


def _tool(pick: random.Random) -> tuple[str, str, Record]:
    tool = pick.choice(TOOLS)
    context: Record = {
        "tool": tool,
        "durationMs": pick.randrange(20, 9000),
        "sessionId": f"{pick.getrandbits(64):016x}",
    }
    if pick.random() < 0.25:
        context["apiKey"] = f"key-{pick.getrandbits(96):024x}"
    if pick.random() < 0.15:
        context["payload"] = orjson.dumps(
            {"prompt": "ein Logo, bitte", "token": f"{pick.getrandbits(96):024x}"}
        ).decode()
    return "info", f"tool {tool} finished", {"context": context}


def _nlp(pick: random.Random) -> tuple[str, str, Record]:
    confidence = round(pick.random(), 3)
    message = f"intent classified: {pick.choice(['create', 'edit', 'ロゴを作って'])}"
    return "warn" if confidence < 0.2 else "info", message, {"context": {"confidence": confidence}}


def _security(pick: random.Random) -> tuple[str, str, Record]:
    who, event = pick.choice(PEOPLE), pick.choice(["login_ok", "login_failed", "rate_limited", "token_refreshed"])
    context: Record = {"event": event, "user": f"{who}@example.com", "password": f"hunter{pick.randrange(9999)}"}
    if event == "token_refreshed":
        context = {"event": event, "refreshToken": f"{pick.getrandbits(128):032x}"}
    return (
        "warn" if event in {"login_failed", "rate_limited"} else "info",
        f"{event} for {who}@example.com",
        {"context": context},
    )


def _audit(pick: random.Random) -> tuple[str, str, Record]:
    action = pick.choice(["role_granted", "password_changed", "export_requested", "user_deleted"])
    return "info", f"audit: {action}", {"context": {"action": action, "by": f"u{pick.randrange(20):05d}"}}


CATEGORIES: dict[str, Callable[[random.Random], tuple[str, str, Record]]] = {
    "request": _request,
    "business": _business,
    "websocket": _websocket,
    "db": _db,
    "performance": _performance,
    "tool": _tool,
    "nlp": _nlp,
    "security": _security,
    "audit": _audit,
}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).write_bytes(b"".join(line + b"\n" for line in lines(name)))
        print(folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
