"""The bodies of HTTP requests: read, inflated, and accounted for until they are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from pipeline.contract import Full
from pipeline.inputs import _bodies
from pipeline.inputs._bodies import BodyError
from pipeline.inputs._peers import PeerFull, Peers

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest

T = TypeVar("T")

_SMALL = 128 << 10
"""Up to these bytes a body is worked on at once: that takes about a millisecond, and a thread costs some, too."""


class Limits(Protocol):
    """What a client may send."""

    max_body_bytes: int
    max_ratio: int
    in_flight: int
    body_seconds: float


class Intake:
    """Reads bodies. Raises `BodyError` for what can't be taken, and `Full` where there is no room for it."""

    def __init__(self, limits: Limits, peers: Peers) -> None:
        self._limits, self._peers = limits, peers
        self.held = 0
        """Bytes of all bodies that are read and not yet answered."""
        self._sizes: dict[int, int] = {}
        # Each takes the memory of the largest body; more at once would be no faster.
        self._inflating, self._working = asyncio.Semaphore(2), asyncio.Semaphore(1)

    async def read(self, request: BaseRequest) -> bytes:
        """The body, inflated."""
        data, encoding = await self._sent(request), request.headers.get("Content-Encoding", "")
        if not encoding:
            return data
        async with self._inflating:
            if request.transport is None:
                raise BodyError(408, "the client is gone")
            limits = self._limits.max_body_bytes, self._limits.max_ratio
            inflated = await _in_thread(_bodies.inflate, data, encoding, *limits)
        self._hold(request, len(inflated))
        return inflated

    async def work(self, size: int, function: Callable[..., T], *args: object) -> T:
        """Do what takes long for a body of this size: beside the event loop where it is large, one at a time."""
        if size <= _SMALL:
            return function(*args)
        async with self._working:
            return await _in_thread(function, *args)

    def release(self, request: BaseRequest) -> None:
        """The request is answered."""
        if size := self._sizes.pop(id(request), 0):
            self.held -= size
            self._peers.hold(_address(request), -size)

    async def _sent(self, request: BaseRequest) -> bytes:
        """The body as it was sent."""
        most, content = self._limits.max_body_bytes, request.content
        if (request.content_length or 0) > most:
            raise BodyError(413, f"the body is larger than {most} bytes")
        if request.headers.get("Expect", "").lower() == "100-continue":
            # curl waits for this with bodies above 1 MiB, for a second.
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # the response has not begun
        parts: list[bytes] = []
        try:
            if content.is_eof():  # it came with its head, as most do: no need for a deadline
                self._take(request, parts, content.read_nowait())
                return parts[0]
            async with asyncio.timeout(self._limits.body_seconds):
                async for chunk in content.iter_any():
                    self._take(request, parts, chunk)
        except TimeoutError:
            raise BodyError(408, f"the body took longer than {self._limits.body_seconds:g} s") from None
        except _broken() as error:
            error.__traceback__ = None  # the stream keeps the error, which would keep this frame and the body
            raise BodyError(400, f"the body ends in the middle or is not chunked as it should: {error}") from None
        return b"".join(parts)

    def _take(self, request: BaseRequest, parts: list[bytes], chunk: bytes) -> None:
        self._hold(request, len(chunk))
        if self._sizes[id(request)] > self._limits.max_body_bytes:
            raise BodyError(413, f"the body is larger than {self._limits.max_body_bytes} bytes")
        parts.append(chunk)

    def _hold(self, request: BaseRequest, size: int) -> None:
        """Account for bytes of a request until it is answered. One request alone may be larger."""
        own = self._sizes[id(request)] = self._sizes.get(id(request), 0) + size
        address = _address(request)
        self.held += size
        self._peers.hold(address, size)
        if self._limits.in_flight < self.held != own:
            raise Full(1.0)
        if self._peers.full(address, own):
            self._peers.hold_back(address)
            raise PeerFull(address)


def _address(request: BaseRequest) -> str:
    # Not from the transport, which is gone when the client is.
    return str(request.protocol.address)  # type: ignore[attr-defined]  # see _aiohttp.server


def _broken() -> tuple[type[Exception], ...]:
    """What a body raises that is not sent as it should be."""
    from aiohttp.web import RequestPayloadError  # noqa: PLC0415 - see _aiohttp.web

    return ConnectionError, RequestPayloadError


async def _in_thread(function: Callable[..., T], *args: object) -> T:
    """Run it in a thread. A `BodyError` is made anew: the traceback of the thread's own would keep the body."""
    result = await asyncio.to_thread(_caught, function, *args)
    if isinstance(result, _Error):
        raise BodyError(result.status, result.message)
    return result


@dataclass(slots=True)
class _Error:
    status: int
    message: str


def _caught(function: Callable[..., T], *args: object) -> T | _Error:
    try:
        return function(*args)
    except BodyError as error:
        return _Error(error.status, str(error))
