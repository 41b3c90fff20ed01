"""For tests of outputs, and of everything that is collected with them."""

import asyncio

# Without this, looptime asks for "the current loop" in a synchronous test that comes first; asyncio then makes one,
# which nobody closes.
asyncio.set_event_loop(None)
