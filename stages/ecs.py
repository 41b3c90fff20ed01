"""The fields of winston, pino and bunyan records under the names of the Elastic Common Schema (ECS 9.4).

    - ecs

| from | to |
|---|---|
| level (pino's and bunyan's numbers as words), name, logger | log.level, log.logger |
| msg, stack | message, error.stack_trace |
| err, exception, error: name, type, message, stack, code | error.type, .message, .stack_trace, .code |
| hostname, pid, version, env, environment | host.hostname, process.pid, service.version, service.environment |
| correlationId, requestId | labels.correlation_id, http.request.id |
| traceId, spanId, transactionId | trace.id, span.id, transaction.id |
| userId, username, clientIp, ip, remoteAddress | user.id, user.name, client.ip |
| request, req, res, response: method, path, url, statusCode … | http.request.method, url.path, url.original … |
| method, statusCode, userAgent | the same |
| durationMs, responseTime | event.duration, in nanoseconds |

Also in snake case. Where ECS wants an object and a record has a single value (`host`, `error`, `user`, `service`,
`url`, `event` …), that becomes the object's main field, since Elasticsearch refuses what is once this and once that.

Nothing is lost: what has no place in ECS stays where it was, and so does what has one that is taken already. Only a
single value that stands where an object must goes to `labels`, under its name, when its own place is taken. The time
is left to the `timestamp` stage. Records that follow ECS already are left alone, but for `ecs.version`.

Put it behind the stages that look for the old names (severity, correlation), and before those for the new ones.
"""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, Field

from pipeline.contract import Event


def _level(value: Any) -> Any:
    """A level's word; pino and bunyan write numbers (pino, "level": 30 is info)."""
    return _LEVELS.get(value, value) if isinstance(value, int) else value if isinstance(value, str) else None


def _nanoseconds(milliseconds: Any) -> int | None:
    number = isinstance(milliseconds, int | float) and not isinstance(milliseconds, bool)
    return round(milliseconds * 1e6) if number and 0 <= milliseconds < 1e12 else None


def _verb(value: Any) -> Any:
    """A method of HTTP, as `method` alone may be of anything."""
    return value if isinstance(value, str) and value.upper() in _VERBS else None


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else None


def _scalar(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else None


_LEVELS = {10: "trace", 20: "debug", 30: "info", 40: "warn", 50: "error", 60: "fatal"}
_VERBS = {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}

Move = tuple[str, Callable[[Any], Any]]
"""The new place of a value, and what it is there; None: it is nothing that belongs there."""

_TOP: dict[str, Move] = {
    "level": ("log.level", _level),
    "msg": ("message", _text),
    "name": ("log.logger", _text),
    "logger": ("log.logger", _text),
    "hostname": ("host.hostname", _text),
    "pid": ("process.pid", _scalar),
    "version": ("service.version", _text),
    "env": ("service.environment", _text),
    "environment": ("service.environment", _text),
    "stack": ("error.stack_trace", _text),
    "correlationId": ("labels.correlation_id", _scalar),
    "requestId": ("http.request.id", _scalar),
    "traceId": ("trace.id", _text),
    "spanId": ("span.id", _text),
    "transactionId": ("transaction.id", _text),
    "userId": ("user.id", _scalar),
    "username": ("user.name", _text),
    "clientIp": ("client.ip", _text),
    "ip": ("client.ip", _text),
    "remoteAddress": ("client.ip", _text),
    "method": ("http.request.method", _verb),
    "statusCode": ("http.response.status_code", _scalar),
    "userAgent": ("user_agent.original", _text),
    "durationMs": ("event.duration", _nanoseconds),
    "responseTime": ("event.duration", _nanoseconds),
}
_ERROR: dict[str, Move] = {
    "type": ("error.type", _text),
    "name": ("error.type", _text),
    "message": ("error.message", _text),
    "stack": ("error.stack_trace", _text),
    "stackTrace": ("error.stack_trace", _text),
    "code": ("error.code", _scalar),
}
_REQUEST: dict[str, Move] = {
    "id": ("http.request.id", _scalar),
    "method": ("http.request.method", _text),
    "path": ("url.path", _text),
    "url": ("url.original", _text),
    "statusCode": ("http.response.status_code", _scalar),
    "durationMs": ("event.duration", _nanoseconds),
    "userAgent": ("user_agent.original", _text),
    "ip": ("client.ip", _text),
    "remoteAddress": ("client.ip", _text),
    "remotePort": ("client.port", _scalar),
}
_RESPONSE: dict[str, Move] = {
    "statusCode": ("http.response.status_code", _scalar),
    "durationMs": ("event.duration", _nanoseconds),
}
_INNER = {
    "err": _ERROR,
    "exception": _ERROR,
    "error": _ERROR,
    "req": _REQUEST,
    "request": _REQUEST,
    "res": _RESPONSE,
    "response": _RESPONSE,
}

# Objects of ECS, and where a single value in their place goes.
_SINGLE = {
    "agent": "agent.name",
    "client": "client.address",
    "container": "container.id",
    "destination": "destination.address",
    "ecs": "ecs.version",
    "error": "error.message",
    "event": "event.action",
    "file": "file.path",
    "host": "host.name",
    "labels": "labels.labels",
    "log": "message",
    "process": "process.name",
    "server": "server.address",
    "service": "service.name",
    "source": "source.address",
    "span": "span.id",
    "trace": "trace.id",
    "transaction": "transaction.id",
    "url": "url.original",
    "user": "user.name",
    "user_agent": "user_agent.original",
}


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _with_snake(moves: dict[str, Move]) -> dict[str, Move]:
    return moves | {_snake(name): move for name, move in moves.items()}


class Ecs:
    """Gives fields their names in ECS."""

    class Options(BaseModel, extra="forbid"):
        """The options of the stage."""

        version: str = Field(default="9.4.0", min_length=1, description="What `ecs.version` says.")

    def __init__(self, options: Options) -> None:
        self._version = options.version
        self._top = _with_snake(_TOP)
        self._inner = {name: _with_snake(moves) for name, moves in _INNER.items()}
        self._names = frozenset({*self._top, *self._inner, *_SINGLE})

    def __call__(self, events: list[Event]) -> list[Event]:
        """Give the fields of the events their names in ECS."""
        names = self._names
        for event in events:
            present = [name for name in event if name in names]
            for name in present:
                if name in _SINGLE:
                    _make_object(event, name)
            for name in present:
                if name in self._top:
                    _move(event, event, name, self._top[name])
                elif name in self._inner:
                    _move_inner(event, name, self._inner[name])
            _place(event, "ecs.version", self._version)
        return events


def _make_object(event: Event, name: str) -> None:
    """Make the object that ECS wants of a single value, or several."""
    value = event[name]
    if (
        value is None
        or isinstance(value, dict)
        or (isinstance(value, list) and any(isinstance(v, dict) for v in value))
    ):
        return
    del event[name]
    path = "user.id" if name == "user" and isinstance(value, int) else _SINGLE[name]
    if not _place(event, path, value):
        _label(event, name, value)


def _label(event: Event, name: str, value: Any) -> None:
    while not _place(event, f"labels.{name}", value):
        name += "_"


def _move_inner(event: Event, name: str, moves: dict[str, Move]) -> None:
    inner = event.get(name)
    if not isinstance(inner, dict):
        return
    for key, move in moves.items():
        if key in inner and move[0] != f"{name}.{key}":
            _move(event, inner, key, move)
    if not inner:
        del event[name]


def _move(event: Event, holder: dict[str, Any], key: str, move: Move) -> None:
    path, change = move
    value = change(holder[key])
    if value is not None and _place(event, path, value):
        del holder[key]


def _place(event: Event, path: str, value: Any) -> bool:
    """Set the field where its place is free, and say whether it was."""
    if path in event and event[path] is not None:
        return False
    *way, last = path.split(".")
    at = event
    for part in way:
        inner = at.setdefault(part, {})
        if not isinstance(inner, dict):
            return False
        at = inner
    if at.get(last) is not None:
        return False
    at[last] = value
    return True
