import asyncio
import threading
from typing import Any

import pytest

from pipeline import messages
from pipeline.messages import Inbox

VALUES: list[Any] = [None, b"", [b"x" * 3_000_000, "y", b"z" * 70_000], {"a": [1, 2.5]}, b"small"]


def test_what_is_sent_arrives_one_after_the_other():
    ours, theirs = messages.pair()
    inbox = Inbox()
    with ours, theirs:

        def send() -> None:
            for value in VALUES:
                messages.send(ours, value)

        sender = threading.Thread(target=send)
        sender.start()
        assert [messages.receive(theirs, inbox) for _ in VALUES] == VALUES
        sender.join()


async def test_sockets_that_do_not_block_carry_the_same():
    ours, theirs = messages.pair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        inbox = Inbox()

        async def send() -> None:
            for value in VALUES:
                await messages.send_soon(ours, value)

        sending = asyncio.create_task(send())
        assert [await messages.receive_soon(theirs, inbox) for _ in VALUES] == VALUES
        await sending


def test_a_message_does_not_change_when_the_next_one_is_received():
    ours, theirs = messages.pair()
    inbox = Inbox()
    with ours, theirs:
        for value in (b"first", b"other"):
            messages.send(ours, [value])
        first = messages.receive(theirs, inbox)
        messages.receive(theirs, inbox)
        assert first == [b"first"]


@pytest.mark.parametrize("part", [b"", b"\0\0", b"\0\0\0\x09half"])
async def test_an_end_in_the_middle_is_told(part):
    ours, theirs = messages.pair()
    with theirs:
        ours.sendall(part)
        ours.close()
        with pytest.raises(EOFError):
            messages.receive(theirs, Inbox())
    ours, theirs = messages.pair()
    with theirs:
        theirs.setblocking(False)
        ours.sendall(part)
        ours.close()
        with pytest.raises(EOFError):
            await messages.receive_soon(theirs, Inbox())
