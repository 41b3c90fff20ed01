import os

import pytest
from pydantic import ValidationError

from pipeline.settings import Expectation, Settings


@pytest.mark.parametrize(("cores", "workers"), [(None, 1), (1, 1), (2, 2), (64, 2)])
def test_there_are_two_workers_where_there_are_two_cores(monkeypatch, cores, workers):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert Settings().workers == workers


@pytest.mark.parametrize("admin", [None, ":9600", "127.0.0.1:9600", "[::1]:9600"])
def test_an_admin_address_has_a_port(admin):
    assert Settings(admin=admin).admin == admin


@pytest.mark.parametrize("values", [{"admin": "127.0.0.1"}, {"workers": 65}, {"host": ""}, {"log": {"backups": -1}}])
def test_what_can_not_be_is_refused(values):
    with pytest.raises(ValidationError):
        Settings.model_validate(values)


def test_settings_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        Settings().workers = 3  # type: ignore[misc]


def test_a_test_expects_one_document_or_several():
    assert Expectation(name="a", input="x", expect={"a": 1}).expect == {"a": 1}
    assert Expectation(name="a", input={"x": 1}, expect=[]).expect == []
