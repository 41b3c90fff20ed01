"""What makes a file the same file."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.identity import FIRST_LINE, file_identity, log_called, log_name

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def test_an_identity_is_sixteen_characters_that_need_no_escape_anywhere():
    assert re.fullmatch(r"[A-Za-z0-9_-]{16}", file_identity("web-1", "/var/log/app.log", b"first"))


def test_an_identity_stays_the_same_for_ever():
    # Document ids in every index depend on it.
    assert file_identity("web-1", "/var/log/app.log", b"first") == "hOLHJZ5x3ijQS363"
    assert file_identity("web-1", "/var/log/app.log", b"first", 1) == "IHTIER41Yq-bJWHd"


@pytest.mark.parametrize(
    "other",
    [
        ("web-2", "/var/log/app.log", b"first", 0),
        ("web-1", "/srv/log/app.log", b"first", 0),
        ("web-1", "/var/log/app.log", b"second", 0),
        ("web-1", "/var/log/app.log", b"first", 1),
        ("web-1", "/var/log/app.log", b"", 0),
        ("web-1/var", "/log/app.log", b"first", 0),
    ],
)
def test_another_host_log_first_line_or_re_creation_is_another_file(other):
    assert file_identity(*other) != file_identity("web-1", "/var/log/app.log", b"first")


def test_a_re_creation_count_of_zero_adds_nothing():
    assert file_identity("h", "n", b"l", 0) == file_identity("h", "n", b"l")


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_only_the_first_4_kib_of_a_line_count(more, other):
    line = b"x" * FIRST_LINE
    assert file_identity("h", "n", line + more) == file_identity("h", "n", line + other)


PARTS = st.tuples(TEXT, TEXT, st.binary())


@given(PARTS, PARTS)
def test_no_two_lists_of_parts_run_together(one, other):
    assert (file_identity(*one) == file_identity(*other)) == (one == other)


def test_a_name_of_any_bytes_has_an_identity():
    assert len(file_identity("h", b"/var/log/\xff.log".decode(errors="surrogateescape"), b"l")) == 16


@pytest.mark.parametrize(
    "name",
    [
        "app.log",
        "app.log.1",
        "app.log.12",
        "app.log.1.gz",
        "app.log.gz",
        "app.log.2.zst",
        "app.log-20261120",
        "app.log-20261120.gz",
        "app.log-20261120-1",
        "app.log.20261120",
        "app.log.2026-11-20",
        "app.log.2026-11-20-13",
        "app.log.2026-11-20_13-05-59.gz",
        "app.log-2026-11-20T13:05:59",
        "app.log-1763640000",
        "app.log.bak",
        "app.log.old",
        "app.log~",
        "app-2026-11-20.log",
        "app-20261120.log",
        "app.2026-11-20.log",
        "app_2026_11_20.log",
        "app.2026-11-20.3.log.gz",
        "app-11-20-2026-1.log.gz",
        "app-2026-11-20-13.log",
        "app-2026-11-20.log.1",
    ],
)
def test_a_rotated_file_has_the_name_of_its_log(name):
    assert log_name(f"/var/log/{name}") == "/var/log/app.log"


@pytest.mark.parametrize(
    "name",
    [
        "app.log",
        "app",
        "app-1.log",
        "app.1.log",
        "node.8080",
        "2026-11-20.log",
        "u_ex261120.log",
        ".1",
        ".gz",
        "~",
        "",
        "app-20261320.log",
        "app-99999999.log",
        "v1.2.log",
    ],
)
def test_other_names_stay_as_they_are(name):
    assert log_name(f"/var/log/{name}") == f"/var/log/{name}"


def test_the_folder_is_part_of_the_name():
    assert log_name("/var/log/app-20261120/x.log.1") == "/var/log/app-20261120/x.log"
    assert log_name("x.log.1") == "x.log"


@given(st.text(alphabet="ab.-_0123456789~gzlo/", max_size=30))
def test_stripping_is_done_once_and_for_all(path):
    assert log_name(log_name(path)) == log_name(path)


@pytest.mark.parametrize(
    ("given", "path", "name"),
    [
        (None, "/backup/app.log.3.gz", "/backup/app.log"),
        ("/var/log/app.log", "/backup/old", "/var/log/app.log"),
        ("/var/log/", "/backup/app.log.3.gz", "/var/log/app.log"),
    ],
)
def test_a_log_may_be_given_a_name_or_a_folder(given, path, name):
    assert log_called(given, path) == name
