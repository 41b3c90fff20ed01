import gzip
import logging
import os
import shutil
import stat
import tarfile

import pytest

from pipeline.contract import Unusable
from pipeline.database import lock
from tests.replay.conftest import documents, lines


def test_what_the_daemon_has_shipped_is_already_there_however_it_is_rotated_and_compressed(live):
    for n in (1, 2):
        data = (live.logs / f"app.log.{n}").read_bytes()
        (live.logs / f"app.log.{n}").unlink()
        live.write(f"app.log.{n + 1}.gz", data)
    (live.logs / "app.log").rename(live.logs / "app.log.1")
    assert live.fates(f"{live.logs}/app.log*") == (0, 250)


def test_only_what_is_missing_is_added(live):
    data = (live.logs / "app.log.2").read_bytes()
    (live.logs / "app.log.2").unlink()
    live.write("app.log.2.gz", data + lines(1, range(1000, 1010)))
    assert live.fates(live.logs) == (10, 250)


def test_files_from_elsewhere_are_what_they_are_said_to_be(live, tmp_path):
    shutil.copytree(live.logs, tmp_path / "backup")
    with pytest.raises(Unusable, match=r"backup/app\.log is not where input app reads"):
        live.replay(tmp_path / "backup")
    assert live.fates(tmp_path / "backup", name=f"{live.logs}/") == (0, 250)
    (tmp_path / "backup/app.log.2").rename(tmp_path / "yesterday")
    assert live.fates(tmp_path / "yesterday", name=f"{live.logs}/app.log") == (0, 100)


def test_logs_that_begin_alike_have_the_numbers_that_the_daemon_gave_them(rig):
    head = lines(1, [0])
    days = [head + lines(n, range(10 * n, 10 * n + 5)) for n in range(1, 6)]
    rig.config["inputs"]["app"]["paths"] = [f"{rig.logs}/app.log*"]
    for n, day in enumerate(days[:4]):
        rig.write(f"app.log.{4 - n}", day)
        os.utime(rig.logs / f"app.log.{4 - n}", (1_790_000_000 + n, 1_790_000_000 + n))
    rig.ship()
    assert sum(rig.stored().values()) == 24
    rig.write("app.log.1.gz", days[3])
    rig.write("app.log.3.gz", days[1])
    (rig.logs / "app.log.1").unlink()
    assert rig.fates(rig.logs / "app.log.1.gz") == (0, 6)
    assert rig.fates(rig.logs / "app.log.3.gz") == (0, 6)
    rig.write("app.log", days[4])
    assert rig.fates(rig.logs / "app.log") == (6, 0)
    assert sum(rig.stored().values()) == 30


def test_a_year_that_a_line_lacks_comes_from_its_file_not_from_today(rig, tmp_path):
    rig.config["inputs"]["app"] |= {"decode": "syslog", "mtime": True}
    rig.config["stages"][0] = {"timestamp": {"field": "timestamp", "reference": "file.mtime"}}
    path = rig.write("app.log", b"<34>Nov 20 10:00:00 db1 su: failed\n")
    old = 1_574_500_000  # 2019-11-23
    os.utime(path, (old, old))
    rig.replay(path)
    assert rig.stored() == {"logs-2019.11.20": 1}
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz") as archive:
        archive.add(path, str(path).lstrip("/"))
    assert rig.fates(tmp_path / "t.tar.gz") == (0, 1)


def test_another_host_has_documents_of_its_own(live):
    assert live.fates(live.logs, host="web2") == (250, 0)
    assert live.fates(live.logs, host="web1") == (0, 250)


def test_a_finished_replay_is_remembered_until_it_is_wanted_again(live):
    assert live.fates(live.logs) == (0, 250)
    summary = live.replay(live.logs)
    assert (summary["counts"]["records"], summary["finished"]) == (0, True)
    assert summary["before"] is not None
    assert live.fates(live.logs, again=True) == (0, 250)


def test_what_comes_after_a_replay_is_read_by_the_next(live):
    live.replay(live.logs)
    with (live.logs / "app.log").open("ab") as file:
        file.write(lines(3, range(300, 305)))
    assert live.fates(live.logs) == (5, 0)


def test_only_a_period_of_event_time_is_taken(rig):
    from pipeline.replay.sources import moment

    rig.write("app.log", lines(1, range(24)) + lines(2, range(24)) + b'{"n":1}\n')
    summary = rig.replay(rig.logs, since=moment("2026-11-01T22:00:00Z"), until=moment("2026-11-02T01:00:00Z"))
    assert rig.stored() == {"logs-2026.11.01": 2, "logs-2026.11.02": 1}
    assert (summary["counts"]["left_out"], summary["counts"]["dropped"]) == (46, {})


def test_a_condition_is_asked_after_the_stages(rig):
    rig.write("app.log", lines(1, range(24)))
    summary = rig.replay(rig.logs, where='n >= 20 and field("@index") == "logs-2026.11.01"')
    assert rig.stored() == {"logs-2026.11.01": 4}
    assert summary["counts"]["left_out"] == 20


def test_a_condition_with_a_mistake_is_told(rig):
    rig.write("app.log", lines(1, range(2)))
    with pytest.raises(Unusable, match="--where"):
        rig.replay(rig.logs, where="n ==")


def test_a_limit_takes_the_first_records_and_remembers_nothing(rig):
    rig.write("app.log", lines(1, range(100)))
    assert rig.fates(rig.logs, limit=10) == (10, 0)
    assert rig.fates(rig.logs, limit=20) == (10, 10)
    assert rig.fates(rig.logs) == (80, 20)


def test_a_record_that_can_not_be_processed_is_set_aside_in_the_folder_of_the_replay(rig):
    from pipeline.dead import reading

    rig.write("app.log", b'{"time":\n' + lines(1, range(5)))
    summary = rig.replay(rig.logs)
    assert (summary["counts"]["failed"], summary["letters"]) == (1, 1)
    with reading(rig.job(rig.logs).folder) as reader:
        assert [letter.input for letter in reader.each()] == ["app"]
    assert not (rig.folder / "data/dead.db").exists()


def test_documents_go_into_a_folder_when_that_is_asked(rig, tmp_path):
    rig.write("app.log", lines(1, range(3)))
    rig.replay(rig.logs, into=f"{tmp_path}/out/")
    assert [each["n"] for each in documents(tmp_path / "out")] == [0, 1, 2]
    assert not (rig.folder / "store.db").exists()


def test_an_output_that_is_not_there_is_told(rig):
    rig.write("app.log", lines(1, range(3)))
    with pytest.raises(Unusable, match="did you mean 'store'"):
        rig.replay(rig.logs, into="stor")


def test_an_unfinished_last_line_is_left_to_the_daemon_while_it_may_grow(rig):
    path = rig.write("app.log", lines(1, range(3)) + b'{"n":4')
    assert rig.replay(rig.logs)["counts"]["records"] == 3
    os.utime(path, (1, 1))
    summary = rig.replay(rig.logs, again=True)
    assert (summary["counts"]["records"], summary["counts"]["failed"]) == (4, 1)


def test_a_damaged_archive_is_no_success(rig, caplog):
    data = gzip.compress(lines(1, range(5000)))
    (rig.logs / "app.log.1.gz").write_bytes(data[: len(data) // 2])
    rig.config["inputs"]["app"]["paths"] = [f"{rig.logs}/app.log*"]
    summary = rig.replay(rig.logs)
    assert summary["errors"] == 1
    assert 0 < summary["counts"]["records"] < 5000
    assert "it ends in the middle" in caplog.text


def test_two_replays_of_the_same_do_not_run_at_once(rig):
    rig.write("app.log", lines(1, range(3)))
    with lock(rig.job(rig.logs).folder), pytest.raises(Unusable, match="another aiologs"):
        rig.replay(rig.logs)


def test_a_replay_runs_beside_the_daemon(rig):
    rig.write("app.log", lines(1, range(3)))
    with lock(rig.folder / "data"):
        assert rig.fates(rig.logs) == (3, 0)


def test_what_a_replay_keeps_is_for_its_owner_only(rig):
    rig.write("app.log", lines(1, range(3)) + b"{\n")
    rig.replay(rig.logs)
    kept = [*(rig.folder / "data/replay").rglob("*")]
    assert {stat.S_IMODE(each.stat().st_mode) for each in kept} == {0o700, 0o600}


def test_the_log_says_nothing_of_contents(rig, caplog):
    caplog.set_level(logging.DEBUG)
    rig.write("app.log", b'{"password":"hunter2",\n')
    rig.replay(rig.logs)
    assert "hunter2" not in caplog.text
