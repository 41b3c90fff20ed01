"""What one address may have, beside all others."""

import logging

import pytest

from pipeline.contract import Context
from pipeline.inputs._peers import PeerFull, Peers
from pipeline.inputs.beats import Beats


@pytest.fixture
def counts():
    return []


@pytest.fixture
def peers(counts):
    options = Beats.Options(listen=":0", connections=4, in_flight=1000)
    return Peers(options, Context("ship", "host", None, count=lambda *what: counts.append(what)))


def test_an_address_has_no_more_than_its_share_of_connections(peers, counts, caplog):
    with caplog.at_level(logging.WARNING):
        assert [peers.admit("a") for _ in range(3)] == [True, True, False]
    assert counts == [("connection_errors", 1, {"input": "ship", "reason": "too_many_of_address"})]
    assert "a has 2 connections, as many as one address may have (see peer_share)" in caplog.text
    assert peers.admit("b")
    peers.leave("a")
    assert peers.admit("a")


def test_all_addresses_together_have_no_more_connections_than_there_may_be(peers, counts):
    assert [peers.admit(address) for address in "aabbc"] == [True, True, True, True, False]
    assert counts == [("connection_errors", 1, {"input": "ship", "reason": "too_many"})]


def test_an_address_is_full_when_it_holds_its_share_of_bytes(peers, counts, caplog):
    peers.hold("a", 400)
    assert not peers.full("a", 0)
    peers.hold("a", 100)
    assert peers.full("a", 100)
    peers.hold_back("a")
    assert counts == [("peers_held_back", 1, {"input": "ship"})]
    assert "a has 500 bytes in flight, and one address may have 500 (see peer_share)" in caplog.text
    assert not peers.full("b", 0)
    peers.hold("a", -1)
    assert not peers.full("a", 100)


def test_one_request_alone_may_be_larger_than_the_share_of_its_address(peers):
    peers.hold("a", 900)
    assert not peers.full("a", 900)


def test_nothing_is_remembered_of_who_is_gone(peers):
    for address in "ab":
        peers.admit(address)
        peers.hold(address, 10)
        peers.hold(address, -10)
        peers.leave(address)
    assert (peers._connections, peers._bytes) == ({}, {})


def test_who_gets_429_is_told_what_to_do():
    assert str(PeerFull("10.0.0.1")) == (
        "10.0.0.1 has as many bytes in flight as one address may (see peer_share); try again in 1 s"
    )
