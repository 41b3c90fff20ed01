"""Looks once, beside the daemon's start, whether the cluster has what it is to have, and gives it where allowed to.

It does so in a thread of its own, which nothing waits for: neither readiness nor the end of the daemon.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.setup.cluster import Cluster, Refused

log = logging.getLogger("aiologs.setup")

AGAIN_SECONDS = 30.0
"""How long to wait for a cluster that is away."""


class Start:
    """The look at one output's cluster; `options` are those of the output `elasticsearch`."""

    def __init__(self, name: str, options: Any) -> None:
        self._name, self._options = name, options
        self._end = threading.Event()

    def begin(self) -> None:
        """Look, in the background."""
        if self._options.setup != "off":
            threading.Thread(target=self._run, name=f"setup of {self._name}", daemon=True).start()

    def end(self) -> None:
        """Look no more."""
        self._end.set()

    def _run(self) -> None:
        # Beside the rest of the start, and not for `check` or `explain`.
        from pipeline.contract import Unusable  # noqa: PLC0415
        from pipeline.setup.cluster import Away, Cluster, Refused  # noqa: PLC0415
        from pipeline.setup.plan import Unfit  # noqa: PLC0415

        while not self._end.is_set():
            try:
                self._once(Cluster(self._options))
            except Away:
                self._end.wait(AGAIN_SECONDS)  # the output itself tells that nobody answers
                continue
            except Unfit as unfit:
                log.warning("output %s: %s", self._name, unfit)
            except Refused as refused:
                self._refused(refused)
            except Unusable as error:
                log.warning("output %s: setup: %s", self._name, error)
            except Exception:
                log.exception("output %s: setup failed; documents are written all the same", self._name)
            return

    def _once(self, cluster: Cluster) -> None:
        from pipeline.setup.plan import apply, look  # noqa: PLC0415 - as above

        options = self._options
        plan = look(cluster, options.mode, options.definitions)
        if options.setup == "apply" and plan.pending:
            count = apply(cluster, plan, gently=True)
            plan = look(cluster, options.mode, options.definitions)
            log.info("output %s: setup made %d changes to the cluster", self._name, count)
        if plan.clean:
            log.info("output %s: lifecycle policies and templates are as wanted", self._name)
        else:
            hint = "" if options.setup == "apply" else "; `aiologs setup apply` makes it so"
            log.warning("output %s: not set up: %s; see `aiologs setup plan`%s", self._name, plan.brief(), hint)

    def _refused(self, refused: Refused) -> None:
        if self._options.setup == "apply":
            log.warning("output %s: setup was refused: %s", self._name, refused)
        else:
            # A key that may only write is refused here, and needs no more than that.
            log.info("output %s: can't tell whether the cluster is set up: %s", self._name, refused)
