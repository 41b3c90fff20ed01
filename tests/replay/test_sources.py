import tarfile
from datetime import UTC, datetime

import pytest

from pipeline.contract import Unusable
from pipeline.replay.sources import Dead, Files, Index, Stdin, Tar, Topic, elsewhere, moment, parse

DAY = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("a.log", "deep/b.log.gz", "deep/old.tar.gz"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def test_files_patterns_and_folders_are_one_source_and_archives_their_own(folder):
    plain = str(folder / "a.log"), str(folder / "deep/b.log.gz")
    assert parse([str(folder)]) == [Files(plain), Tar(str(folder / "deep/old.tar.gz"))]
    assert parse([f"{folder}/*.log", f"{folder}/deep/b*", f"{folder}/a.log"]) == [Files(plain)]


@pytest.mark.parametrize(
    ("word", "source"),
    [
        ("-", Stdin()),
        ("kafka:aio.logs", Topic("aio.logs", None, None)),
        ("kafka:aio.logs@7", Topic("aio.logs", 7, None)),
        ("kafka:aio.logs@7..9", Topic("aio.logs", 7, 9)),
        ("kafka:aio.logs@2026-11-20", Topic("aio.logs", DAY, None)),
        ("kafka:aio.logs@2026-11-20T01:00+01:00..2026-11-20T00:00Z", Topic("aio.logs", DAY, DAY)),
        ("kafka:aio.logs@..9", Topic("aio.logs", None, 9)),
        ("elasticsearch:aio-logs-*", Index("aio-logs-*")),
        ("dead:", Dead(None)),
        ("dead:letters.ndjson", Dead("letters.ndjson")),
    ],
)
def test_other_sources_have_their_kind_before_them(word, source):
    assert parse([word]) == [source]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("/nowhere/*.log", "there is no such file"),
        ("kafka:", "not like kafka:TOPIC"),
        ("kafka:a b", "not like kafka:TOPIC"),
        ("kafka:a@yesterday", "is no time like"),
    ],
)
def test_what_is_no_source_is_told(word, message):
    with pytest.raises(Unusable, match=message):
        parse([word])


def test_what_can_not_be_unpacked_is_told(folder):
    (folder / "a.log.bz2").write_bytes(b"x")
    with pytest.raises(Unusable, match=r"only \.gz and \.zst"):
        parse([str(folder)])


def test_a_time_without_a_zone_is_in_utc():
    assert moment("2026-11-20") == moment("2026-11-20T01:00:00+01:00") == DAY


@pytest.mark.parametrize(
    ("path", "patterns", "is_elsewhere"),
    [
        ("/var/log/a.log", ["/var/log/*.log"], False),
        ("/var/log/a.log.3.gz", ["/var/log/*.log"], False),
        ("/var/log/old/a.log", ["/var/log/*.log"], True),
        ("/var/log/old/a.log", ["/var/log/**/*.log"], False),
        ("/var/log/a.log", ["/var/log/**/*.log"], False),
        ("/backup/a.log", ["/var/log/*.log", "/backup/*"], False),
    ],
)
def test_a_file_is_elsewhere_when_no_pattern_looks_into_its_folder(path, patterns, is_elsewhere):
    assert elsewhere(path, patterns) is is_elsewhere


def test_a_name_that_only_looks_like_an_archive_is_told_at_once(folder):
    assert not tarfile.is_tarfile(folder / "deep/old.tar.gz")
    assert Tar(str(folder / "deep/old.tar.gz")) in parse([str(folder)])
