"""Metrics of a service, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from serving.addresses import check_free

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)
# Counters by name, with what they count and their labels.
_COUNTERS = {
    "requests": ("Calls answered.", ("method", "code")),
    "refused": ("Calls whose token was missing, wrong or without the role.", ("code",)),
    "answers": ("Answers of each bundle.", ("version",)),
    "degraded": ("Answers that were degraded.", ("reason",)),
    "embedding_lookups": (
        "Embeddings of queries and live items, by the tier that had them.",
        ("tier",),
    ),
    "bad_rows": ("Cached embeddings that were damaged or of another kind.", ()),
    "refused_rows": ("Reads and writes of cached embeddings that Redis refused.", ()),
    "events_lost": ("Events that left the full log before any export.", ()),
    "unreadable": ("Live items and events in Redis that could not be read.", ("kind",)),
}
# Histograms by name, with what they measure, their labels, and their buckets.
_HISTOGRAMS = {
    "request_seconds": ("Time to answer a call.", ("method",), _SECONDS),
    "stage_seconds": (
        "Time of a stage: waiting for a thread, running there, or asking Redis.",
        ("stage",),
        _SECONDS,
    ),
    "tower_batch_size": ("Queries in one run of the towers.", (), _BATCHES),
    "recommend_batch_size": ("Recommendations computed together.", (), _BATCHES),
}


class Telemetry:
    """Counters and histograms of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._counters = {
            name: Counter(f"recsys_{name}", text, labels, registry=registry)
            for name, (text, labels) in _COUNTERS.items()
        }
        self._histograms = {
            name: Histogram(f"recsys_{name}", text, labels, buckets=buckets, registry=registry)
            for name, (text, labels, buckets) in _HISTOGRAMS.items()
        }
        self._bundle = Gauge(
            "recsys_bundle_info", "Version of the served bundle.", ["version"], registry=registry
        )

    def request(self, method: str, code: str, seconds: float) -> None:
        """Count a call."""
        self._counters["requests"].labels(method, code).inc()
        self._histograms["request_seconds"].labels(method).observe(seconds)

    def refused(self, code: str) -> None:
        """Count a call that was refused for its token."""
        self._counters["refused"].labels(code).inc()

    def computed(self, thread: str, waited_s: float, ran_s: float) -> None:
        """Count a call on one of the threads of an engine."""
        stages = self._histograms["stage_seconds"]
        stages.labels(f"{thread}_wait").observe(waited_s)
        stages.labels(f"{thread}_run").observe(ran_s)

    def asked_redis(self, seconds: float) -> None:
        """Count a command or script of Redis, or several that were sent together."""
        self._histograms["stage_seconds"].labels("redis").observe(seconds)

    def serves(self, version: str) -> None:
        """Note which bundle is served from now on."""
        self._bundle.clear()
        self._bundle.labels(version).set(1)

    def answered_by(self, version: str) -> None:
        """Count an answer of a bundle."""
        self._counters["answers"].labels(version).inc()

    def degraded(self, reason: str) -> None:
        """Count a degraded answer."""
        self._counters["degraded"].labels(reason).inc()

    def lookup(self, tier: str) -> None:
        """Count an embedding lookup."""
        self._counters["embedding_lookups"].labels(tier).inc()

    def bad_row(self) -> None:
        """Count a cached row that was damaged or of another kind."""
        self._counters["bad_rows"].inc()

    def unreadable(self, kind: str) -> None:
        """Count a live item or event that could not be read."""
        self._counters["unreadable"].labels(kind).inc()

    def lost_events(self, count: int) -> None:
        """Count events that left the log before any export."""
        self._counters["events_lost"].inc(count)

    def refused_row(self) -> None:
        """Count a read or write of a cached row that Redis refused."""
        self._counters["refused_rows"].inc()

    def batch(self, size: int) -> None:
        """Count a run of the towers."""
        self._histograms["tower_batch_size"].observe(size)

    def recommended_together(self, size: int) -> None:
        """Count recommendations that were computed together."""
        self._histograms["recommend_batch_size"].observe(size)

    def value(self, name: str, **labels: str) -> float:
        """Return a sample such as ``recsys_requests_total``; 0 if it was never counted."""
        return self.registry.get_sample_value(name, labels) or 0.0


class MetricsEndpoint:
    """Serves the registry over HTTP until closed.

    Args:
        telemetry: Metrics to serve.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.

    Raises:
        ConfigError: If the port cannot be listened on.
    """

    def __init__(self, telemetry: Telemetry, *, host: str, port: int) -> None:
        check_free("metrics_port", host, port)
        self._server, self._thread = start_http_server(port, addr=host, registry=telemetry.registry)
        self.port = int(self._server.server_port)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
