"""What attackers, broken clients and port scanners send: bytes by name, for each protocol."""

import gzip
import json
import random
import struct
import zlib
from collections.abc import Iterator

import zstandard

GIB = 1 << 30


def _bomb(wbits: int, begin: bytes = b"") -> bytes:
    """A GiB of zeros behind some other bytes, compressed; its checksum is wrong."""
    compressor, block = zlib.compressobj(9, wbits=wbits), bytes(1 << 20)
    first = compressor.compress(begin) + compressor.compress(block) + compressor.flush(zlib.Z_FULL_FLUSH)
    same = compressor.compress(block) + compressor.flush(zlib.Z_FULL_FLUSH)
    return first + same * (GIB >> 20) + compressor.flush()


def bombs() -> dict[str, bytes]:
    """A GiB of zeros in each compression that the HTTP input takes."""
    return {
        "gzip": _bomb(31),
        "gzip, gzip": gzip.compress(_bomb(31)),
        "deflate": _bomb(15),
        "zstd": zstandard.ZstdCompressor().compress(bytes(1 << 20)) * (GIB >> 20),
    }


def lumberjack_bombs() -> list[bytes]:
    """Windows with a compressed frame of a GiB: of nothing, and of what begins like a record."""
    record = b"2J" + _U32(1) + _U32(GIB)
    return [_window(1) + compressed(_bomb(15, begin)) for begin in (b"", record)]


# --- HTTP ---


def _request(*headers: str, line: str = "POST / HTTP/1.1", body: bytes = b"") -> bytes:
    return "\r\n".join([line, "Host: x", *headers, "", ""]).encode("latin-1") + body


NDJSON = "Content-Type: application/x-ndjson"
CHUNKED = "Transfer-Encoding: chunked"

HTTP: dict[str, bytes] = {
    "nothing but blank lines": b"\r\n" * 1000,
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "HTTP 0.9": b"GET /\r\n",
    "HTTP 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "head cut off": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Le",
    "body cut off": _request(NDJSON, "Content-Length: 1000", body=b'{"a":'),
    "line without an end": b"GET /" + b"a" * 1_000_000,
    "header without an end": b"POST / HTTP/1.1\r\nX: " + b"a" * 1_000_000,
    "many headers": _request(*(f"X-{n}: {n}" for n in range(20_000))),
    "huge headers": _request(*(f"X-{n}: {'a' * 8000}" for n in range(120))),
    "header without a colon": _request("nonsense"),
    "header with a NUL": _request("X: a\x00b"),
    "folded header": _request("X: a", " b", NDJSON, "Content-Length: 2", body=b"{}"),
    "unknown method": _request(line="BREW / HTTP/1.1"),
    "bad version": _request(line="POST / HTTP/9.9"),
    "no target": _request(line="POST HTTP/1.1"),
    "odd target": _request(line="POST http://[::1/%zz?\xff HTTP/1.1"),
    "negative length": _request(NDJSON, "Content-Length: -1", body=b"{}"),
    "length with a sign": _request(NDJSON, "Content-Length: +2", body=b"{}"),
    "length that is no number": _request(NDJSON, "Content-Length: 2x", body=b"{}"),
    "length in other digits": _request(NDJSON, "Content-Length: \xb2", body=b"{}"),
    "enormous length": _request(NDJSON, "Content-Length: 99999999999999999999", body=b"{}"),
    "two lengths": _request(NDJSON, "Content-Length: 2", "Content-Length: 3", body=b"{}x"),
    "list of lengths": _request(NDJSON, "Content-Length: 2, 2", body=b"{}"),
    "length and chunked": _request(NDJSON, "Content-Length: 3", CHUNKED, body=b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
    "chunked twice": _request(NDJSON, CHUNKED, CHUNKED, body=b"2\r\n{}\r\n0\r\n\r\n"),
    "chunked, then not": _request(NDJSON, "Transfer-Encoding: chunked, identity", body=b"2\r\n{}\r\n0\r\n\r\n"),
    "chunked with a tab": _request(NDJSON, "Transfer-Encoding:\tchunked\x0b", body=b"0\r\n\r\n"),
    "blank before the colon": _request(NDJSON, "Transfer-Encoding : chunked", body=b"0\r\n\r\n"),
    "chunk size with a sign": _request(NDJSON, CHUNKED, body=b"-2\r\n{}\r\n0\r\n\r\n"),
    "chunk size with 0x": _request(NDJSON, CHUNKED, body=b"0x2\r\n{}\r\n0\r\n\r\n"),
    "chunk size too large": _request(NDJSON, CHUNKED, body=b"ffffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
    "chunk size without an end": _request(NDJSON, CHUNKED, body=b"0" * 1_000_000),
    "chunk longer than said": _request(NDJSON, CHUNKED, body=b"1\r\n{}\r\n0\r\n\r\n"),
    "chunk extension without an end": _request(NDJSON, CHUNKED, body=b"2;" + b"a" * 1_000_000),
    "chunks ended by a bare LF": _request(NDJSON, CHUNKED, body=b"2\n{}\n0\n\n"),
    "trailers without an end": _request(NDJSON, CHUNKED, body=b"0\r\n" + b"X: a\r\n" * 100_000),
    "requests in a row, garbage between": _request("Content-Length: 0") + b"garbage\r\n" + _request(),
    "thousands of requests at once": _request("Content-Length: 0", line="GET / HTTP/1.1") * 3_000,
    "upgrade": _request("Connection: Upgrade", "Upgrade: websocket", line="GET / HTTP/1.1"),
    "unknown encoding": _request(NDJSON, "Content-Encoding: br", "Content-Length: 2", body=b"{}"),
    "no gzip": _request(NDJSON, "Content-Encoding: gzip", "Content-Length: 2", body=b"{}"),
    "many encodings": _request(NDJSON, f"Content-Encoding: {'gzip,' * 100}", "Content-Length: 2", body=b"{}"),
    "correlation id with an end of line": _request("x-correlation-id: a\rSet-Cookie: b", line="GET / HTTP/1.1"),
    "broken credentials": _request("Authorization: Basic \xff\xfe", line="GET / HTTP/1.1"),
}  # fmt: skip


def body(data: bytes, kind: str = "application/json", path: str = "/", encoding: str = "") -> bytes:
    """A whole request; the connection is closed after it."""
    headers = [f"Content-Type: {kind}", f"Content-Length: {len(data)}", "Connection: close"]
    headers += [f"Content-Encoding: {encoding}"] if encoding else []
    return _request(*headers, line=f"POST {path} HTTP/1.1", body=data)


# --- JSON: what a parser must survive, after the classes of JSONTestSuite ---

JSON = [
    b"[" * 100_000, b'{"a":' * 100_000, b"[" * 1023 + b"]" * 1023, b'{"a":' * 1023 + b"1" + b"}" * 1023,
    b"[[[[1]]]", b"{}}", b"[1,]", b'{"a":1,}', b'{"a":1 "b":2}', b"{'a':1}", b"{a:1}", b'{"a"}', b'{"a":}', b"{:1}",
    b"[1e9999]", b"[-]", b"[01]", b"[1.]", b"[.1]", b"[+1]", b"[0x1]", b"[NaN]", b"[Infinity]", b"[1e]", b"[- 1]",
    b'["\xff"]', b'["\xed\xa0\x80"]', b'["\\ud800"]', b'["\\u12"]', b'["\\x00"]', b'["a\nb"]', b'["a\x00b"]', b'["',
    b'"', b"tru", b"nul", b"\xef\xbb\xbf{}", b"\xff\xfe{\x00}\x00", b"", b" ", b"\x00", b"1", b'"text"', b"null", b"[]",
    b'{"a":"' + b"x" * 1_000_000, b'{"":1}', b'{"a":1,"a":2}', b"[" + b"1," * 100_000 + b"1", b"-" * 100_000,
    b"1" * 100_000, b'{"' + b"a" * 100_000 + b'":1', b"\\u0000" * 1000, b'{"@id":1,"@index":2,"@raw":3}',
    b'{"@metadata":[]}', b'{"@metadata":{"_id":""}}', b'{"@metadata":{"_id":1}}', b'{"_id":{"_id":' * 1000,
]  # fmt: skip


# --- Lumberjack ---

_U32 = struct.Struct(">I").pack


def _window(count: int) -> bytes:
    return b"2W" + _U32(count)


def _json(record: bytes, sequence: int = 1) -> bytes:
    return b"2J" + _U32(sequence) + _U32(len(record)) + record


def compressed(data: bytes) -> bytes:
    """A compressed frame."""
    return b"2C" + _U32(len(data)) + data


BEATS: dict[str, bytes] = {
    "an unknown version": b"3W\0\0\0\1",
    "an unknown type": b"2Z\0\0\0\1",
    "HTTP": _request(line="GET / HTTP/1.1"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "an endless window": b"2W\xff\xff\xff\xff",
    "a window of nothing, again and again": _window(0) * 10_000,
    "a record without a window": _json(b"{}"),
    "more records than announced": _window(1) + _json(b'{"hostile":1}') + _json(b'{"hostile":2}', 2),
    "fewer records than announced": _window(5) + _json(b'{"hostile":1}'),
    "an endless record": _window(1) + b"2J\0\0\0\1\xff\xff\xff\xff{",
    "an empty record": _window(1) + _json(b""),
    "a record that is no JSON": _window(1) + _json(b"\xff\xfe"),
    "records that are no objects": _window(2) + _json(b"[]") + _json(b"1", 2),
    "an endless compressed frame": _window(1) + b"2C\xff\xff\xff\xff",
    "a compressed frame that is none": _window(1) + compressed(b"nonsense"),
    "a compressed frame in another": _window(1) + compressed(zlib.compress(compressed(zlib.compress(_json(b"{}"))))),
    "a compressed frame cut off": _window(1) + compressed(zlib.compress(_json(b'{"hostile":1}'))[:-3]),
    "an acknowledgement": b"2A\0\0\0\1",
    "endless pairs": b"1W\0\0\0\1" + b"1D\0\0\0\1\xff\xff\xff\xff",
    "an endless key": b"1W\0\0\0\1" + b"1D\0\0\0\1\0\0\0\1\xff\xff\xff\xff",
    "a byte": b"2",
}


# --- lines, counted messages and datagrams ---

TCP: dict[str, bytes] = {
    "an endless line": b"a" * 3_000_000,
    "NULs": bytes(100_000),
    "blank lines": b"\n" * 100_000,
    "an endless count": b"9" * 100_000,
    "a count beyond all bounds": b"99999999999999999999 <13>x",
    "a count of nothing": b"0 <13>x" * 1000,
    "a negative count": b"-1 <13>x",
    "a count cut off": b"1000 <13>x",
    "counts and lines in turn": b"5 <13>x<13>y\n5 <13>x" * 1000,
    "broken syslog": b'<999>1 x\n<>\n<13\n<13>1 - - - - - [a b="c\n<13>1 - - - - - [' + b"a" * 10_000 + b"\n",
    "HTTP": HTTP["huge headers"],
}


def noise(seed: int) -> Iterator[bytes]:
    """Valid messages with some bytes changed, without end; the same ones for a seed."""
    r = random.Random(seed)
    good = [
        body(json.dumps([{"hostile": n} for n in range(5)]).encode()),
        _window(2) + _json(b'{"hostile":1}') + _json(b'{"hostile":2}', 2),
        _window(1) + compressed(zlib.compress(_json(b'{"hostile":1}'))),
        b"31 <13>1 - host app - - - hostile<13>Nov 20 00:00:00 host app: hostile\n",
    ]
    while True:
        data = bytearray(r.choice(good))
        for _ in range(r.randrange(1, 8)):
            data[r.randrange(len(data))] = r.randrange(256)
        yield bytes(data[: r.randrange(1, len(data) + 1)])
