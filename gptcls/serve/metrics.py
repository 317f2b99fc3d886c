"""What Prometheus may ask of a server: counts and times, never a text."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # of a batch
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The numbers of one server, in a registry of their own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, waiting: Callable[[], float]) -> None:
        self._registry = CollectorRegistry()
        own = {"registry": self._registry}
        timed = {"buckets": SECONDS, **own}
        by = ("path", "status")
        self.requests = Counter("gptcls_requests", "Requests answered", by, **own)
        answered = "From a request to its answer"
        self.request_seconds = Histogram("gptcls_request_seconds", answered, ("path",), **timed)
        self.texts = Counter("gptcls_texts", "Texts scored, blank ones too", **own)
        self.longer = Counter("gptcls_longer_texts", "Texts of more tokens than are read", **own)
        self.batch_texts = Histogram("gptcls_batch_texts", "Texts of a batch", buckets=TEXTS, **own)
        self.batch_seconds = Histogram("gptcls_batch_seconds", "What a batch took to compute", **timed)
        self.explanations = Counter("gptcls_explanations", "Texts explained", **own)
        Gauge("gptcls_waiting_texts", "Texts that wait for a batch", **own).set_function(waiting)

    @contextmanager
    def batch(self, n: int) -> Iterator[None]:
        """Count a batch of ``n`` texts, computed inside."""
        start = time.perf_counter()
        yield
        self.batch_seconds.observe(time.perf_counter() - start)
        self.batch_texts.observe(n)
        self.texts.inc(n)

    def exposition(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry)
