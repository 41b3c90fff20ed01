"""Archives, read as their text."""

import gzip
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zstandard

from pipeline.inputs import _handles
from pipeline.inputs._text import open_text
from tests.inputs.file_rig import Rig, lines, names


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path) as rig:
        yield rig


# Archives


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


SKIPPABLE = b"\x5e\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"seek"
TEXT = lines(0, 50_000).encode()


@pytest.mark.parametrize("batch_bytes", [5000, 1 << 20])
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.log.1.gz", gzip.compress(TEXT)),
        ("a.log.1.gz", gzip.compress(TEXT[:1000]) + gzip.compress(TEXT[1000:])),
        ("a.log.1.gz", gzip.compress(TEXT) + bytes(512)),
        ("a.log.1.zst", zstd(TEXT)),
        ("a.log.1.zst", zstd(TEXT[:1000]) + SKIPPABLE + zstd(TEXT[1000:])),
        ("a.log.1.zst", SKIPPABLE + zstd(TEXT)),
        ("a.log.without-a-suffix", gzip.compress(TEXT)),
    ],
)
async def test_archives_are_read_as_their_text(rig, name, data, batch_bytes):
    rig.start(batch_bytes=batch_bytes)
    rig.write(name, data)
    assert await rig.step() == names(0, 50_000)
    assert rig.delivered[-1][0].endswith(f"-{len(TEXT) - len('line 49999n')}")


@pytest.mark.parametrize("rotate", ["a.log.1", "a-2026-11-20.log"])
async def test_a_compressed_rotation_has_the_ids_of_the_live_log(rig, tmp_path, rotate):
    rig.write("a.log", lines(0, 5))
    await rig.step()
    rig.path("a.log").rename(rig.path(rotate))
    rig.gzip(rotate)
    rig.store.durable.clear()
    rig.kill(tick=False)
    assert await rig.step() == names(0, 5)
    assert rig.delivered[:5] == rig.delivered[5:]


async def test_a_compressed_rotation_of_a_log_that_was_read_adds_nothing(rig):
    rig.write("a.log", lines(0, 5000))
    await rig.step()
    rig.path("a.log").rename(rig.path("a.log.1"))
    assert await rig.step() == []
    rig.gzip("a.log.1")
    assert await rig.step() == []
    rig.kill()
    assert await rig.step() == []


async def test_the_end_of_a_log_is_read_from_its_archive(rig):
    rig.write("a.log", lines(0, 3000))
    await rig.step()
    rig.kill()
    rig.write("a.log", lines(3000, 5000))
    rig.gzip("a.log")
    assert await rig.step() == names(3000, 5000)


async def test_an_archive_that_is_done_is_not_opened_again(rig, monkeypatch):
    rig.write("a.log.1.gz", gzip.compress(TEXT))
    await rig.step()
    rig.kill()
    monkeypatch.setattr(_handles, "open_text", lambda path: pytest.fail(f"opened {path}"))
    assert await rig.step() == []


async def test_an_archive_just_written_to_is_left_until_it_is_complete(rig, monkeypatch):
    rig.write("a.log.1.gz", gzip.compress(TEXT))
    os.utime(rig.path("a.log.1.gz"))
    assert await rig.step() == []
    monkeypatch.setattr("pipeline.inputs._judge._SETTLING", 0)
    assert await rig.step() == names(0, 50_000)


@pytest.mark.parametrize(
    ("damaged", "complaint"),
    [
        (gzip.compress(TEXT)[:-1000], "ends in the middle"),
        (zstd(TEXT)[:-1000], "ends in the middle"),
        (gzip.compress(TEXT[:60_000]) + gzip.compress(TEXT[60_000:])[:20] + b"\xff" * 100, "a.log.1: "),
        (gzip.compress(TEXT[:60_000]) + b"garbage", "something else follows"),
    ],
)
async def test_of_a_damaged_archive_the_complete_lines_are_delivered_and_the_rest_when_it_is_restored(
    rig, caplog, damaged, complaint
):
    rig.write("a.log.1", damaged)
    found = await rig.step()
    assert found == names(0, len(found))
    assert caplog.text.count(complaint) == 1
    assert rig.counts["files_damaged"] == 1
    assert await rig.step() == []
    rig.path("a.log.1").write_bytes(gzip.compress(TEXT))
    rig.touch("a.log.1")
    assert found + await rig.step() == names(0, 50_000)


async def test_an_archive_damaged_at_once_is_reported(rig):
    rig.write("a.log.1.gz", b"\x1f\x8b\x08\xff" + b"\xff" * 40)
    assert await rig.step() == []


async def test_the_unfinished_last_line_of_an_archive_is_delivered(rig):
    rig.write("a.log.1.gz", gzip.compress(b"one\ntwo"))
    assert await rig.step() == ["one", "two"]


async def test_an_archive_is_not_read_while_its_log_is(rig):
    rig.write("a.log", lines(0, 5))
    rig.path("a.log.gz").write_bytes(gzip.compress(lines(0, 5).encode()))
    rig.touch("a.log.gz")
    assert await rig.step() == names(0, 5)
    assert await rig.step() == []


async def test_of_two_archives_of_one_log_the_longer_one_is_read_on(rig):
    rig.write("a.log.1", gzip.compress(lines(0, 3).encode()))
    rig.write("a.log.2", zstd(lines(0, 5).encode()))
    assert await rig.step() == names(0, 5)
    rig.kill()
    assert await rig.step() == []


@pytest.mark.parametrize("data", [gzip.compress(TEXT), zstd(TEXT)])
def test_an_archive_can_be_read_backwards(tmp_path, data):
    path = tmp_path / "a"
    path.write_bytes(data)
    text = open_text(str(path))
    for at in (400_000, 390_000, 0, 100, 50_000, 49_000):
        assert text.read(at, 1000) == TEXT[at : at + 1000]
    assert text.reaches(len(TEXT))
    assert not text.reaches(len(TEXT) + 1)
    assert text.read(len(TEXT) - 5, 100) == TEXT[-5:]
    assert text.damage is None
    text.close()


@pytest.mark.parametrize(
    "data", [gzip.compress(TEXT)[:20] + b"\xff" * 100, gzip.compress(TEXT)[:-8] + bytes(8), b"\x28\xb5\x2f\xfd" * 20]
)
def test_damage_ends_the_text_of_an_archive(tmp_path, data):
    path = tmp_path / "a"
    path.write_bytes(data)
    text = open_text(str(path))
    found = text.read(0, len(TEXT) + 1)
    assert len(found) < len(TEXT)
    assert TEXT.startswith(found)
    assert text.damage
    assert text.read(len(found), 10) == b""
    text.close()


def test_a_folder_is_no_text(tmp_path):
    with pytest.raises(IsADirectoryError):
        open_text(str(tmp_path))
