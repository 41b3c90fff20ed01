"""The input of the reference job: NDJSON application logs as winston writes them, always the same for a seed.

usage: python -m bench.generate LINES OUT.ndjson --ips FILE [--seed N]
"""

import argparse
import datetime as dt
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

LEVELS = ["debug"] * 8 + ["info"] * 74 + ["warn"] * 9 + ["error"] * 8 + ["fatal"]
SERVICES = ["api-gateway", "auth-service", "tool-runner", "nlp-engine", "session-store", "websocket-hub"]
ENVIRONMENTS = ["production"] * 8 + ["staging"] * 2
PATHS = [
    "/api/v1/sessions",
    "/api/v1/tools/run",
    "/api/v1/artifacts",
    "/auth/login",
    "/auth/refresh",
    "/ws",
    "/health",
]
CATEGORIES = [
    *["request"] * 50,
    *["business"] * 12,
    *["performance"] * 8,
    *["db"] * 10,
    *["websocket"] * 8,
    *["tool"] * 6,
    *["security"] * 5,
    "audit",
]
AGENTS = [
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36",
    "curl/8.5.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15",
]
_WORDS = (
    "request completed session artifact rendered cache miss upstream retry tool finished queue depth user token "
    "budget model latency connection closed opened handler"
)
WORDS = _WORDS.split()
STATUSES = [200] * 16 + [201, 204, 404, 500]
START = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)


def lines(count: int, ips: list[str], seed: int = 1) -> Iterator[bytes]:
    """So many records without their newline, 0.3 s apart; few clients send most of them."""
    r = random.Random(seed)
    clients = r.choices(ips, [1 / (n + 10) for n in range(len(ips))], k=count)  # Zipf-like popularity
    for n, client in enumerate(clients):
        yield orjson.dumps(_event(r, n, client))


def _event(r: random.Random, n: int, client: str) -> dict[str, Any]:
    timestamp = _timestamp(r, n)
    level = r.choice(LEVELS)
    failed = level in {"error", "fatal"}
    category = "error" if failed and r.random() < 0.7 else r.choice(CATEGORIES)
    event: dict[str, Any] = {
        "timestamp": timestamp,
        "level": level,
        "service": r.choice(SERVICES),
        "environment": r.choice(ENVIRONMENTS),
        "category": category,
        "message": " ".join(r.choices(WORDS, k=r.randrange(5, 14))),
        "correlationId": f"{r.getrandbits(128):032x}",
        "traceId": f"{r.getrandbits(128):032x}",
        "userId": f"u{r.randrange(90000):05d}",
        "clientIp": client,
        "request": _request(r),
    }
    event["message"] += _secret(r)
    if category in {"security", "audit"}:
        event["context"] = _security(r, n)
    elif r.random() < 0.3:
        event["context"] = {
            "sessionId": f"{r.getrandbits(64):016x}",
            "tool": r.choice(["image", "code", "search"]),
            "apiKey": f"sk-{r.getrandbits(96):024x}",
        }
    if failed:
        event["error"] = _error(r)
    return event


def _timestamp(r: random.Random, n: int) -> str | int:
    """Text, and in every tenth record epoch milliseconds."""
    time = START + dt.timedelta(milliseconds=n * 300 + r.randrange(300))
    if n % 10 == 0:
        return int(time.timestamp() * 1000)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _secret(r: random.Random) -> str:
    """What has no place in a message, at the end of one in twelve."""
    x = r.random()
    if x < 0.05:
        return f" for {r.choice(['ana', 'li.wei', 'o.brien'])}@example.com"
    if x < 0.07:
        return f" Authorization: Bearer eyJhbGciOi.{r.getrandbits(128):032x}.{r.getrandbits(64):016x}"
    return " card 4111 1111 1111 1111 declined" if x < 0.08 else ""


def _request(r: random.Random) -> dict[str, Any]:
    return {
        "method": r.choice(["GET", "POST", "PUT"]),
        "path": r.choice(PATHS),
        "statusCode": r.choice(STATUSES),
        "durationMs": round(r.lognormvariate(4, 1), 2),
        "userAgent": r.choice(AGENTS),
    }


def _security(r: random.Random, n: int) -> dict[str, Any]:
    return {
        "event": r.choice(["login_failed", "login_ok", "password_changed", "rate_limited"]),
        "password": f"hunter{r.randrange(9999)}",
        "headers": {"authorization": "Basic dXNlcjpwYXNz", "x-request-id": str(n)},
    }


def _error(r: random.Random) -> dict[str, Any]:
    return {
        "name": r.choice(["TimeoutError", "DatabaseError", "ValidationError"]),
        "message": "upstream timed out after 5000 ms",
        "stack": "Error: upstream timed out\n"
        f"    at Client.request (/srv/app/client.js:{r.randrange(300)}:17)\n"
        f"    at async Handler.run (/srv/app/handler.js:{r.randrange(300)}:9)\n"
        f"    at async process (/srv/app/worker.js:{r.randrange(90)}:5)",
    }


def write(path: Path, count: int, ips: list[str], seed: int = 1) -> None:
    """Write the records to a file, which is there only when it is complete."""
    draft = path.with_name(path.name + ".draft")
    with draft.open("wb") as file:
        file.writelines(line + b"\n" for line in lines(count, ips, seed))
    draft.rename(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", type=int)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ips", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    write(args.out, args.lines, args.ips.read_text().split(), args.seed)
