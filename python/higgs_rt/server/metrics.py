"""What Prometheus reads at /metrics."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from higgs_rt.runtime import Runtime

_SECONDS = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_FRAME_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.1, 0.25, 1)


class Metrics:
    """Counters of the server, and the runtime's own numbers when they are asked for."""

    def __init__(self, runtime: Runtime) -> None:
        own = self.registry = CollectorRegistry()
        self.requests = Counter(
            "higgs_http_requests",
            "Requests by route and status.",
            ["route", "status"],
            registry=own,
        )
        self.in_flight = Gauge("higgs_in_flight", "Requests that speak or wait to.", registry=own)
        self.refused = Counter(
            "higgs_refused", "Requests refused, by reason.", ["reason"], registry=own
        )
        self.first_audio = Histogram(
            "higgs_first_audio_seconds",
            "From the request to its first bytes of audio.",
            buckets=_SECONDS,
            registry=own,
        )
        self.frame = Histogram(
            "higgs_frame_seconds",
            "Wall time per frame of 40 ms, of each request.",
            buckets=_FRAME_SECONDS,
            registry=own,
        )
        self.underruns = Counter(
            "higgs_underruns", "Chunks that came after a listener ran dry.", registry=own
        )
        self.speech = Counter("higgs_speech_seconds", "Seconds of speech sent.", registry=own)
        self.stops = Counter("higgs_stop_reasons", "How requests ended.", ["finish"], registry=own)
        self.registry.register(_RuntimeNumbers(runtime))
        self._loop = _LoopTime()
        self.registry.register(self._loop)

    def watch_this_thread(self) -> None:
        """The event loop is this thread's."""
        self._loop.thread = threading.get_ident()

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)


class _LoopTime(Collector):
    """What the event loop costs: near one second a second, Python is the limit."""

    thread: int | None = None

    def collect(self) -> Iterator[Metric]:
        if self.thread is None or not hasattr(time, "pthread_getcpuclockid"):
            return
        seconds = time.clock_gettime(time.pthread_getcpuclockid(self.thread))
        text = "Processor time of the thread that answers requests."
        yield CounterMetricFamily("higgs_event_loop_cpu_seconds", text, seconds)


class _RuntimeNumbers(Collector):
    """`RuntimeStats` at the time of a scrape."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def collect(self) -> Iterator[Metric]:
        stats = self._runtime.stats
        for field, text in (
            ("running", "Requests in the batch."),
            ("waiting", "Requests in the queue."),
            ("free_blocks", "KV blocks that are free."),
            ("total_blocks", "KV blocks."),
            ("cached_blocks", "KV blocks in the prefix cache; those not in use are free too."),
        ):
            yield GaugeMetricFamily(f"higgs_runtime_{field}", text, float(getattr(stats, field)))
        for field, text in (
            ("submitted", "Requests accepted; each turn of a long text is one."),
            ("finished", "Requests that ended by themselves or at a limit."),
            ("cancelled", "Requests that were cancelled."),
            ("failed", "Requests that failed."),
            ("refused", "Requests that the full queue refused."),
            ("preemptions", "Requests put back for want of KV blocks."),
            ("steps", "Steps of the batch."),
            ("columns", "Columns sampled."),
            ("prompt_rows", "Rows of prefill."),
            ("prefix_positions", "Prompt positions looked up in the prefix cache."),
            ("prefix_hits", "Prompt positions found in the prefix cache."),
            ("prefix_evictions", "Blocks that the prefix cache gave up."),
            ("step_seconds", "Seconds in steps."),
        ):
            yield CounterMetricFamily(f"higgs_runtime_{field}", text, float(getattr(stats, field)))
