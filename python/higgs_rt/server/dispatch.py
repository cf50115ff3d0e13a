"""Which replica a request of the front goes to, and what is said when none can take it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from higgs_rt.server.fleet_metrics import FrontMetrics
from higgs_rt.server.problems import Problem
from higgs_rt.server.replicas import Fleet, Replica
from higgs_rt.server.routing import Hint
from higgs_rt.server.service import Kept


class Dispatch:
    """The choice among the replicas."""

    def __init__(self, fleet: Fleet, metrics: FrontMetrics) -> None:
        self._fleet = fleet
        self._metrics = metrics
        self.answered: Kept[int] = Kept(4000)  # replicas by request id

    def choose(self, hint: Hint, tried: list[int], *, speaks: bool = True) -> Replica:
        """speaks: it needs one of the replica's places. tried: those that broke with it.

        Problem 503 when there is none: `replica_failed` when all that are ready broke with this
        request, `not_ready` when none is ready, `queue_full` when the others have no place.
        """
        replica = self._fleet.choose(hint, tried, self._fleet.places if speaks else None)
        if replica is not None:
            return replica
        problem = self._no_replica(tried)
        self._metrics.refused.labels(problem.code or "").inc()
        raise problem

    def _no_replica(self, tried: list[int]) -> Problem:
        if tried and all(one.index in tried for one in self._fleet.ready):
            return Problem(503, "no other replica is ready", "replica_failed", retry_after=1)
        return self._unready() or _full()

    def _unready(self) -> Problem | None:
        if self._fleet.ready:
            return None
        states = ", ".join(f"{one.index} {one.state}" for one in self._fleet.replicas)
        return Problem(503, f"no replica is ready: {states}", "not_ready", retry_after=2)

    def check_ready(self) -> None:
        """Problem 503 when no replica would take one more request."""
        if problem := self._unready():
            raise problem
        if self._fleet.full:
            raise _full()


def _full() -> Problem:
    return Problem(503, "all places are taken", "queue_full", retry_after=1)


@contextlib.contextmanager
def counted(replica: Replica) -> Iterator[None]:
    """One of the replica's places."""
    replica.in_flight += 1
    try:
        yield
    finally:
        replica.in_flight -= 1
