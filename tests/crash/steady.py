"""A good client: it sends records over HTTP at a steady rate until its standard input ends.

usage: python steady.py PORT
It keeps a few connections, as clients' pools do: when an answer takes long, the next request takes another connection.
Prints a line of JSON for each request: when it was due (seconds of the monotonic clock), how many seconds later its
answer came, and the status.
"""

import http.client
import itertools
import json
import sys
import threading
import time
from collections.abc import Iterator

REQUESTS, RECORDS = 50, 20
"""Requests a second, and records in each: 1,000 records a second."""
CONNECTIONS = 8


def send(port: int, started: float, numbers: Iterator[int], ended: threading.Event) -> None:
    """Send whatever is due next, over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for n in numbers:
        due = started + n / REQUESTS
        if ended.wait(max(0, due - time.monotonic())):
            return
        records = [{"timestamp": "2026-11-20T00:00:00Z", "n": n * RECORDS + place} for place in range(RECORDS)]
        body = "\n".join(map(json.dumps, records))
        connection.request("POST", "/", body, {"Content-Type": "application/x-ndjson"})
        with connection.getresponse() as response:
            response.read()
            # From when it was due: a client that waits for us must not make us look better.
            sys.stdout.write(json.dumps([due, time.monotonic() - due, response.status]) + "\n")
            sys.stdout.flush()


def main(port: int) -> None:
    ended, numbers, started = threading.Event(), itertools.count(), time.monotonic()
    senders = [threading.Thread(target=send, args=(port, started, numbers, ended)) for _ in range(CONNECTIONS)]
    for sender in senders:
        sender.start()
    sys.stdin.read()
    ended.set()
    for sender in senders:
        sender.join()


if __name__ == "__main__":
    main(int(sys.argv[1]))
