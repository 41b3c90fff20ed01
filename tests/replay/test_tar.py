import gzip
import io
import tarfile
from typing import Any

import pytest
import zstandard

from pipeline.contract import Unusable
from tests.replay.conftest import lines


def pack(path, members: dict[str, bytes], mode: Any = "w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_790_000_000
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def members(live):
    """What the daemon has read, as it may be in an archive: plain, gzip and zstd."""
    folder = str(live.logs).lstrip("/")
    return {
        f"{folder}/app.log.9.gz": gzip.compress(lines(1, range(100))),
        f"{folder}/app.log.8.zst": zstandard.compress(lines(2, range(100, 200))),
        f"{folder}/app.log.7": lines(3, range(200, 250)),
    }


@pytest.mark.parametrize(
    ("name", "mode"), [("t.tar", "w"), ("t.tgz", "w:gz"), ("t.tar.xz", "w:xz"), ("t.tar.bz2", "w:bz2")]
)
def test_members_have_the_ids_that_they_had_in_their_folder(live, members, tmp_path, name, mode):
    assert live.fates(pack(tmp_path / name, members, mode)) == (0, 250)


def test_an_archive_may_be_compressed_with_zstd(live, members, tmp_path):
    pack(tmp_path / "t.tar", members, "w")
    (tmp_path / "t.tar.zst").write_bytes(zstandard.compress((tmp_path / "t.tar").read_bytes()))
    assert live.fates(tmp_path / "t.tar.zst") == (0, 250)


def test_members_of_a_bare_archive_need_a_folder(live, members, tmp_path):
    bare = pack(tmp_path / "t.tar.gz", {name.rpartition("/")[2]: data for name, data in members.items()})
    with pytest.raises(Unusable, match="is not where input app reads"):
        live.replay(bare)
    with pytest.raises(Unusable, match="--as must be a folder"):
        live.replay(bare, name=f"{live.logs}/app.log")
    assert live.fates(bare, name=f"{live.logs}/") == (0, 250)


def test_members_that_are_done_are_not_read_again(live, members, tmp_path):
    archive = pack(tmp_path / "t.tar.gz", members)
    live.replay(archive)
    assert live.replay(archive)["counts"]["records"] == 0
    assert live.replay(archive, again=True)["counts"]["records"] == 250


def test_of_a_damaged_member_complete_lines_are_delivered_and_no_beginning_of_one(live, members, tmp_path, caplog):
    first = next(iter(members))
    whole = gzip.compress(lines(1, range(60_000)), compresslevel=0)
    members = {f"{first}x.log.1.gz": whole[: len(whole) // 2], **members}
    live.config["inputs"]["app"]["paths"].append(f"{live.logs}/*x.log*")
    summary = live.replay(pack(tmp_path / "t.tar.gz", members))
    fates = summary["counts"]["outputs"]["store"]
    assert (fates["already"], summary["letters"], summary["errors"]) == (250, 0, 1)
    assert 20_000 < fates["stored"] < 30_000
    assert "is damaged" in caplog.text


def test_members_that_begin_alike_are_not_mixed_up(rig, tmp_path, caplog):
    folder = str(rig.logs).lstrip("/")
    members = {f"{folder}/app.log.{n}": lines(1, [0]) + lines(n, range(10 * n, 10 * n + 5)) for n in (2, 1)}
    rig.config["inputs"]["app"]["paths"] = [f"{rig.logs}/app.log*"]
    archive = pack(tmp_path / "t.tar.gz", members)
    summary = rig.replay(archive)
    assert (summary["counts"]["outputs"]["store"]["stored"], summary["errors"]) == (6, 1)
    assert "app.log.1 is left out: another log begins with the same line" in caplog.text
    assert rig.replay(archive, again=True)["errors"] == 1


def test_a_damaged_archive_is_told(live, members, tmp_path, caplog):
    path = pack(tmp_path / "t.tar.gz", members)
    path.write_bytes(path.read_bytes()[:-200])
    assert live.replay(path)["errors"] >= 1
    assert "is damaged" in caplog.text
