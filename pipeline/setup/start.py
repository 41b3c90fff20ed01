"""Looks once, beside the daemon's start, whether the cluster has what it is to have, and gives it where allowed to.

The look has a thread of its own, which readiness does not wait for; its requests are made by the output, in the event
loop, over the connections that this closes. Documents wait only for `setup: apply`: what comes before an alias is made
would make an index of its name.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.setup.cluster import Cluster, Refused

log = logging.getLogger("aiologs.setup")

AGAIN_SECONDS = 5.0
"""How long to wait for a cluster that is away."""


class _Ended(Exception):
    """The output stops."""


class Start:
    """The look at one output's cluster.

    `options` are those of the output `elasticsearch`; `ask` takes method, target and JSON body of a request, gives
    status and body of the answer, and raises ConnectionError without one; `away` is told why documents wait.
    """

    def __init__(
        self,
        name: str,
        options: Any,
        ask: Callable[[str, str, bytes | None], Awaitable[tuple[int, bytes]]],
        away: Callable[[str], None],
    ) -> None:
        self._name, self._options = name, options
        self._ask, self._away = ask, away
        self._ended = False
        self._asking: asyncio.Task[Any] | None = None
        self._task: asyncio.Task[None] | None = None
        self._open = asyncio.Event()

    def begin(self) -> None:
        """Look, in the background."""
        if self._options.setup != "apply":
            self._open.set()
        if self._options.setup != "off":
            self._task = asyncio.create_task(self._run(), name=f"setup of {self._name}")

    async def wait(self) -> None:
        """Return when documents may be sent."""
        await self._open.wait()

    async def end(self) -> None:
        """Look no more; what is being asked is given up."""
        self._ended = True
        if self._asking:
            self._asking.cancel()
        if self._task:
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while (away := await asyncio.to_thread(self._look, loop)) is not None and not self._ended:
                if not self._open.is_set():
                    self._away(f"setup: {away}")  # without `apply`, documents are sent, and tell it themselves
                self._asking = asyncio.create_task(asyncio.sleep(AGAIN_SECONDS))
                await asyncio.wait({self._asking})
        finally:
            self._ended = True
            self._open.set()

    # --- in the thread ---

    def _look(self, loop: asyncio.AbstractEventLoop) -> str | None:
        """Look, and tell what there is to see; returns why nobody answers, where nobody does."""
        # Beside the rest of the start, and not for `check` or `explain`.
        from pipeline.contract import Unusable  # noqa: PLC0415
        from pipeline.setup.cluster import Away, Cluster, Refused  # noqa: PLC0415
        from pipeline.setup.plan import Unfit  # noqa: PLC0415

        def answer(method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
            try:
                return asyncio.run_coroutine_threadsafe(self._answer(method, f"/{path}", body), loop).result()
            except ConnectionError as error:
                raise Away(str(error)) from error

        try:
            self._once(Cluster(answer))
        except (_Ended, concurrent.futures.CancelledError):
            pass
        except Away as away:
            return str(away)
        except Unfit as unfit:
            log.warning("output %s: %s", self._name, unfit)
        except Refused as refused:
            self._refused(refused)
        except Unusable as error:
            log.warning("output %s: setup: %s", self._name, error)
        except Exception:
            log.exception("output %s: setup failed; documents are written all the same", self._name)
        return None

    def _once(self, cluster: Cluster) -> None:
        from pipeline.setup.plan import apply, look  # noqa: PLC0415 - as above

        options = self._options
        plan = look(cluster, options.mode, options.definitions)
        if options.setup == "apply" and plan.pending:
            count = apply(cluster, plan, gently=True)
            plan = look(cluster, options.mode, options.definitions)
            if count:
                log.info("output %s: setup made %d changes to the cluster", self._name, count)
        if plan.clean:
            log.info("output %s: lifecycle policies and templates are as wanted", self._name)
        else:
            what = "is left alone" if options.setup == "apply" else "not set up"
            hint = "see `aiologs setup plan`; `aiologs setup apply` makes it as wanted"
            log.warning("output %s: %s: %s; %s", self._name, what, plan.brief(), hint)

    def _refused(self, refused: Refused) -> None:
        if self._options.setup == "apply":
            log.warning("output %s: setup was refused: %s", self._name, refused)
        else:
            # A key that may only write is refused here, and needs no more than that.
            log.info("output %s: can't tell whether the cluster is set up: %s", self._name, refused)

    # --- in the event loop ---

    async def _answer(self, method: str, target: str, body: bytes | None) -> tuple[int, bytes]:
        if self._ended:
            raise _Ended
        self._asking = asyncio.current_task()
        try:
            return await self._ask(method, target, body)
        finally:
            self._asking = None
