"""The numbers of all replicas on one page, labelled by replica."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from higgs_rt.server.replicas import Fleet


class FleetNumbers(Collector):
    """Which replicas answer, and what runs in them."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[Metric]:
        """One line a replica."""
        labels = ["replica", "device"]
        up = GaugeMetricFamily("higgs_replica_up", "1: it answers.", labels=labels)
        running = GaugeMetricFamily(
            "higgs_replica_in_flight", "Requests passed to it that have not ended.", labels=labels
        )
        restarts = CounterMetricFamily(
            "higgs_replica_restarts", "How often it was started again.", labels=labels
        )
        for one in self._fleet.replicas:
            names = [str(one.index), one.device]
            up.add_metric(names, float(one.state == "ready"))
            running.add_metric(names, float(one.in_flight))
            restarts.add_metric(names, float(one.restarts))
        return iter((up, running, restarts))


class FrontMetrics:
    """What the front itself counts; the rest comes from the replicas."""

    def __init__(self, fleet: Fleet) -> None:
        own = self.registry = CollectorRegistry()
        self.requests = Counter(
            "higgs_front_requests",
            "Requests by route and status.",
            ["route", "status"],
            registry=own,
        )
        self.refused = Counter(
            "higgs_front_refused", "Requests refused, by reason.", ["reason"], registry=own
        )
        self.moved = Counter(
            "higgs_front_moved", "Requests passed to another replica when one broke.", registry=own
        )
        own.register(FleetNumbers(fleet))

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)


class _Fixed(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def merged(texts: Mapping[int, str]) -> bytes:
    """Expositions of replicas by number as one: each family once, its lines with `replica`."""
    families: dict[str, Metric] = {}
    for index, text in sorted(texts.items()):
        for family in text_string_to_metric_families(text):
            mine = families.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            )
            for sample in family.samples:
                labels = {**sample.labels, "replica": str(index)}
                mine.samples.append(sample._replace(labels=labels))
    registry = CollectorRegistry()
    registry.register(_Fixed(list(families.values())))
    return generate_latest(registry)
