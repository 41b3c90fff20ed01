import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contract import Context, Unusable, Written, bulk
from pipeline.outputs import file as module
from pipeline.outputs.file import File


def make(folder: Path, **options: Any) -> File:
    return File(File.Options(path=folder, **options), Context("archive", "host", None))  # type: ignore[arg-type]


async def run(folder: Path, *payloads: list[Any], **options: Any) -> list[Written]:
    """A run of the daemon that writes these payloads, one after the other."""
    output = make(folder, **options)
    await output.start()
    written = [await output.write(payload) for payload in payloads]
    await output.stop()
    return written


def docs(*numbers: int, index: str = "logs") -> list[Any]:
    return [bulk(index, [(f"{n}", b'{"n":%d}' % n) for n in numbers])]


def lines(path: Path) -> list[str]:
    data = path.read_bytes()
    if path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    return data.decode().splitlines()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


FORMATS = pytest.mark.parametrize(("options", "name"), [({}, "logs.ndjson"), ({"compress": "zstd"}, "logs.ndjson.zst")])


@FORMATS
async def test_each_index_has_a_file_of_json_lines(tmp_path, options, name):
    folder = tmp_path / "made"
    written = await run(folder, docs(1, 2) + docs(3, index="errors"), docs(4), **options)
    assert written == [Written(stored=3), Written(stored=1)]
    assert lines(folder / name) == ['{"n":1}', '{"n":2}', '{"n":4}']
    assert lines(folder / name.replace("logs", "errors")) == ['{"n":3}']


@FORMATS
async def test_a_restart_goes_on_in_the_same_file(tmp_path, options, name):
    await run(tmp_path, docs(1), **options)
    await run(tmp_path, docs(2), **options)
    assert lines(tmp_path / name) == ['{"n":1}', '{"n":2}']


@FORMATS
async def test_what_a_crash_left_incomplete_is_cut_off(tmp_path, options, name):
    await run(tmp_path, docs(1), docs(2, 3), **options)
    whole = (tmp_path / name).read_bytes()
    for cut in range(1, 8):
        (tmp_path / name).write_bytes(whole[:-cut])
        await run(tmp_path, docs(4), **options)
        survivors = ['{"n":1}'] if options else ['{"n":1}', '{"n":2}']
        assert lines(tmp_path / name) == [*survivors, '{"n":4}']


@given(st.lists(st.binary(max_size=30)), st.integers(1, 9))
def test_whole_lines_end_with_the_last_newline(parts: list[bytes], chunk: int):
    import io

    data = b"\n".join(parts)
    before, module._CHUNK = module._CHUNK, chunk
    try:
        assert module._whole_lines(io.BytesIO(data)) == data.rfind(b"\n") + 1
    finally:
        module._CHUNK = before


@given(st.lists(st.binary(max_size=30), max_size=5), st.integers(0, 200), st.integers(1, 50))
def test_whole_frames_end_with_the_last_frame(parts: list[bytes], cut: int, chunk: int):
    import io

    frames = [zstandard.ZstdCompressor().compress(part) for part in parts]
    ends = [len(b"".join(frames[:n])) for n in range(len(frames) + 1)]
    before, module._CHUNK = module._CHUNK, chunk
    try:
        found = module._whole_frames(io.BytesIO(b"".join(frames)[:cut]))
    finally:
        module._CHUNK = before
    assert found == max(end for end in ends if end <= cut)


async def test_a_damaged_compressed_file_is_moved_aside(tmp_path, caplog):
    path = tmp_path / "logs.ndjson.zst"
    path.write_bytes(b"no zstd at all")
    await run(tmp_path, docs(1), compress="zstd")
    assert lines(path) == ['{"n":1}']
    (aside,) = [each for each in tmp_path.iterdir() if each != path]
    assert aside.read_bytes() == b"no zstd at all"
    assert "is damaged, it is moved aside" in caplog.text


@FORMATS
async def test_a_file_is_rotated_by_size(tmp_path, options, name):
    await run(tmp_path, *(docs(n) for n in range(4)), max_bytes=30 if options else 16, **options)
    today = datetime.now(UTC).strftime("%Y.%m.%d")
    rotated = name.replace("logs", f"logs.{today}.1")
    assert rotated in names(tmp_path)
    found = [line for each in names(tmp_path) for line in lines(tmp_path / each)]
    assert sorted(found) == [f'{{"n":{n}}}' for n in range(4)]


async def test_rotated_files_are_numbered(tmp_path):
    await run(tmp_path, *(docs(n) for n in range(4)), max_bytes=1)
    today = datetime.now(UTC).strftime("%Y.%m.%d")
    assert names(tmp_path) == [f"logs.{today}.{n}.ndjson" for n in (1, 2, 3)] + ["logs.ndjson"]
    assert lines(tmp_path / f"logs.{today}.2.ndjson") == ['{"n":1}']


async def test_a_file_of_another_day_is_rotated_under_that_day(tmp_path):
    await run(tmp_path, docs(1))
    os.utime(tmp_path / "logs.ndjson", (0, 86400))
    await run(tmp_path, docs(2))
    assert names(tmp_path) == ["logs.1970.01.02.1.ndjson", "logs.ndjson"]
    assert lines(tmp_path / "logs.ndjson") == ['{"n":2}']


async def test_midnight_rotates_a_file_that_is_open(tmp_path, monkeypatch):
    output = make(tmp_path)
    await output.start()
    await output.write(docs(1))
    output._open["logs"]._day = "2026.11.20"
    await output.write(docs(2))
    await output.stop()
    assert names(tmp_path) == ["logs.2026.11.20.1.ndjson", "logs.ndjson"]


@pytest.mark.parametrize("index", ["../x", "a/b", ".hidden", "", "a\0b", "x" * 300, "..", "a\\b"])
async def test_an_index_can_not_leave_the_folder(tmp_path, index):
    folder = tmp_path / "in"
    (written,) = await run(folder, docs(1) + docs(2, index=index))
    assert (written.stored, [each.id for each in written.refused]) == (1, ["2"])
    assert "can't be the name of a file" in written.refused[0].reason
    assert names(folder) == ["logs.ndjson"]
    assert names(tmp_path) == ["in"]


async def test_many_indices_do_not_keep_many_files_open(tmp_path):
    output = make(tmp_path)
    await output.start()
    payload = [part for n in range(100) for part in docs(n, index=f"i{n}")]
    assert await output.write(payload) == Written(stored=100)
    assert len(output._open) == 64
    await output.write(payload)
    await output.stop()
    assert lines(tmp_path / "i7.ndjson") == ['{"n":7}'] * 2


@FORMATS
async def test_a_full_disk_makes_inputs_wait_and_leaves_nothing_torn(tmp_path, monkeypatch, options, name):
    monkeypatch.setattr("pipeline.outputs._group.PAUSE_SECONDS", 0.01)
    output = make(tmp_path, **options)
    await output.start()
    await output.write(docs(1))
    fsync, failures = os.fsync, iter([None, 1, 1, 1])

    def full(descriptor: int) -> None:
        if next(failures, None):
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    write = asyncio.create_task(output.write(docs(2) + docs(3, index="a")))
    seen = set()
    while not write.done():
        seen.add(output.blocked)
        await asyncio.sleep(0.001)
    assert await write == Written(stored=2)
    await output.stop()
    assert lines(tmp_path / name) == ['{"n":1}', '{"n":2}']
    assert lines(tmp_path / name.replace("logs", "a")) == ['{"n":3}']


async def test_a_write_that_returned_is_on_the_disk(tmp_path, monkeypatch):
    synced: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    await run(tmp_path, docs(1))
    assert synced == [tmp_path.name, "logs.ndjson"]


async def test_nothing_to_write_makes_no_file(tmp_path):
    assert await run(tmp_path, []) == [Written()]
    assert names(tmp_path) == []


async def test_a_folder_that_can_not_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Unusable, match="can't make the folder"):
        await make(tmp_path / "file").start()


async def test_a_folder_that_can_not_be_written_to_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(Unusable, match="no permission to write"):
        await make(tmp_path).start()
