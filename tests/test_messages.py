import asyncio
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pipeline import messages
from pipeline.messages import Link

VALUES: list[Any] = [None, b"", [b"x" * 9_000_000, "y", b"z" * 70_000], {"a": [1, 2.5]}, [b"x" * 3_000_000], b"small"]


@contextmanager
def links(*, shared: bool = True, blocking: bool = True) -> Iterator[tuple[Link, Link]]:
    """Both ends of a connection."""
    memory = messages.memory() if shared else None
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(blocking)
        theirs.setblocking(blocking)
        yield Link(ours, memory), Link(theirs, memory)
    if memory is not None:
        os.close(memory)


@pytest.mark.parametrize("shared", [True, False])
def test_what_is_sent_comes_back(shared):
    with links(shared=shared) as (ours, theirs):

        def echo() -> None:
            for _ in VALUES:
                theirs.send(theirs.receive())

        other = threading.Thread(target=echo)
        other.start()
        for value in VALUES:
            ours.send(value)
            assert ours.receive() == value
        other.join()


@pytest.mark.parametrize("shared", [True, False])
async def test_sockets_that_do_not_block_carry_the_same(shared):
    with links(shared=shared, blocking=False) as (ours, theirs):
        for value in VALUES:
            sending = asyncio.create_task(ours.send_soon(value))
            assert await theirs.receive_soon() == value
            await sending


def test_a_large_message_does_not_go_through_the_socket():
    ours, theirs = socket.socketpair()
    memory = messages.memory()
    with ours, theirs:
        theirs.setblocking(False)
        Link(ours, memory).send([b"x" * 3_000_000])
        assert len(theirs.recv(1_000_000)) < 10
    os.close(memory)


@pytest.mark.parametrize("shared", [True, False])
def test_a_message_does_not_change_when_the_next_one_is_received(shared):
    with links(shared=shared) as (ours, theirs):
        ours.send([b"first"])
        first = theirs.receive()
        ours.send([b"other"])
        theirs.receive()
        assert first == [b"first"]


@pytest.mark.parametrize("part", [b"", b"\0\0", struct.pack("!I?", 9, False) + b"half"])
async def test_an_end_in_the_middle_is_told(part):
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(part)
        ours.close()
        with pytest.raises(EOFError):
            Link(theirs).receive()
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setblocking(False)
        ours.sendall(part)
        ours.close()
        with pytest.raises(EOFError):
            await Link(theirs).receive_soon()
