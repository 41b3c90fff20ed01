"""A good client: it sends records over HTTP at a steady rate until its standard input ends.

usage: python steady.py PORT
Prints a line of JSON for each request: when it was due (seconds of the monotonic clock), how many seconds later its
answer came, and the status.
"""

import http.client
import itertools
import json
import select
import sys
import time

REQUESTS, RECORDS = 50, 20
"""Requests a second, and records in each: 1,000 records a second."""


def main(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    started = time.monotonic()
    for n in itertools.count():
        due = started + n / REQUESTS
        sys.stdout.flush()
        if select.select([sys.stdin], [], [], max(0, due - time.monotonic()))[0]:
            return
        records = [{"timestamp": "2026-11-20T00:00:00Z", "n": n * RECORDS + place} for place in range(RECORDS)]
        body = "\n".join(map(json.dumps, records))
        connection.request("POST", "/", body, {"Content-Type": "application/x-ndjson"})
        with connection.getresponse() as response:
            response.read()
            # From when it was due: a client that waits for us must not make us look better.
            sys.stdout.write(json.dumps([due, time.monotonic() - due, response.status]) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
