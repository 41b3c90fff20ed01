"""The uncompressed text of plain, gzip and zstd files, read at any offset."""

import os
import zlib
from typing import Any

_GZIP, _ZSTD = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"
# Skippable frames may stand before or between zstd's own (RFC 8878, 3.1.2); pzstd and seekable archives begin with one.
_SKIPPABLE = tuple(bytes([0x50 + n]) + b"\x2a\x4d\x18" for n in range(16))

# So much is inflated at once. Deflate can grow a thousandfold, zstd thirty thousandfold (a block of 128 KiB in four
# bytes): this bounds what a hostile archive takes to 16 and 128 MiB.
_GZIP_CHUNK, _ZSTD_CHUNK = 16 << 10, 4 << 10
# How far one may read backwards without inflating everything again.
_SLACK = 16 << 10


class Plain:
    """A file as it is. Closed with `close`."""

    compressed = False
    damage = None

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def read(self, at: int, size: int) -> bytes:
        """`size` bytes from `at`, fewer where the text ends."""
        return os.pread(self.descriptor, size, at)

    def reaches(self, end: int) -> bool:
        """Whether the text has at least `end` bytes."""
        return os.fstat(self.descriptor).st_size >= end

    def skip(self, at: int) -> int:
        """Where, from `at`, the next byte stands that was ever written: behind a hole, for instance."""
        try:
            return os.lseek(self.descriptor, at, os.SEEK_DATA)
        except OSError:  # nothing but a hole, or the file system doesn't know
            return at

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.descriptor)


class Compressed:
    """A gzip or zstd file of one or several members. Reading far backwards begins again, so read forwards.

    `damage` says what is wrong with the file once its readable part was read; that is where the text then ends.
    """

    compressed = True

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.damage: str | None = None
        self._member: Any
        self._zstd = os.pread(descriptor, 3, 0) != _GZIP
        self._chunk = _ZSTD_CHUNK if self._zstd else _GZIP_CHUNK
        self._rewind()

    @property
    def consumed(self) -> int:
        """How many bytes of the file were inflated so far."""
        return self._at

    def read(self, at: int, size: int) -> bytes:
        """`size` bytes from `at`, fewer where the text ends. Raises `OSError` where the disk does."""
        if at < self._begin:
            self._rewind()
        while self._begin + len(self._buffer) < at + size and self._inflate():
            self._drop(at - _SLACK)
        self._drop(at - _SLACK)
        return bytes(self._buffer[at - self._begin : at - self._begin + size])

    def reaches(self, end: int) -> bool:
        """Whether the text has at least `end` bytes."""
        return end <= self._begin + len(self._buffer) or len(self.read(end - 1, 1)) == 1

    def skip(self, at: int) -> int:
        """Where to look for the next byte: compressed files have no holes."""
        return at

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.descriptor)

    def _rewind(self) -> None:
        self._begin, self._buffer = 0, bytearray()
        self._at, self._member = 0, None  # in the file: what to read next, what of it is being inflated
        self.damage = None

    def _drop(self, before: int) -> None:
        """Forget the text before an offset, as far as it is inflated."""
        passed = min(before - self._begin, len(self._buffer))
        if passed > 0:
            del self._buffer[:passed]
            self._begin += passed

    def _inflate(self) -> bool:
        """Inflate some more; False at the end or where the file is damaged."""
        if self.damage:
            return False
        chunk = os.pread(self.descriptor, self._chunk, self._at)
        if not chunk:
            self.damage = "it ends in the middle" if self._member else None
            return False
        self._at += len(chunk)
        try:
            self._feed(chunk)
        except Exception as error:  # noqa: BLE001 — isal, zlib and zstandard each have errors of their own
            self.damage = str(error) or type(error).__name__
        return not self.damage

    def _feed(self, chunk: bytes) -> None:
        while chunk:
            if self._member is None:
                if not self._zstd and not (chunk := chunk.lstrip(b"\0")):
                    return  # zeros fill a tape's last block
                if not self._zstd and not _GZIP.startswith(chunk[:3]):
                    self.damage = "something else follows its compressed text"
                    return
                self._member = _zstd_frame() if self._zstd else _gzip_member()
            self._buffer += self._member.decompress(chunk)
            if not self._member.eof:
                return
            chunk, self._member = self._member.unused_data, None


def _gzip_member() -> Any:
    from isal import isal_zlib  # noqa: PLC0415 — only where there are compressed files

    return isal_zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)


def _zstd_frame() -> Any:
    import zstandard  # noqa: PLC0415 — only where there are compressed files

    return zstandard.ZstdDecompressor().decompressobj()


def open_text(path: str) -> Plain | Compressed:
    """Open a regular file by its first bytes, whatever its name. Raises `OSError`."""
    # Not blocking: the name may lead to a named pipe by now.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        start = os.pread(descriptor, 4, 0)
        return Compressed(descriptor) if start.startswith((_GZIP, _ZSTD, *_SKIPPABLE)) else Plain(descriptor)
    except OSError:
        os.close(descriptor)
        raise
