"""Metrics of a service, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from serving.addresses import check_free

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Telemetry:
    """Counters and histograms of one service, in a registry of their own.

    Args:
        version: Bundle version, a label of ``recsys_bundle_info``.
    """

    def __init__(self, version: str) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "recsys_requests", "Calls answered.", ["method", "code"], registry=registry
        )
        self._seconds = Histogram(
            "recsys_request_seconds",
            "Time to answer a call.",
            ["method"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._degraded = Counter(
            "recsys_degraded", "Answers that were degraded.", ["reason"], registry=registry
        )
        self._lookups = Counter(
            "recsys_embedding_lookups",
            "Embeddings of queries and live items, by the tier that had them.",
            ["tier"],
            registry=registry,
        )
        self._bad_rows = Counter(
            "recsys_bad_rows",
            "Cached embeddings that were damaged or of another kind.",
            registry=registry,
        )
        self._unreadable = Counter(
            "recsys_unreadable",
            "Live items and events in Redis that could not be read.",
            ["kind"],
            registry=registry,
        )
        refused = "Reads and writes of cached embeddings that Redis refused."
        self._refused_rows = Counter("recsys_refused_rows", refused, registry=registry)
        lost = "Events that left the full log before any export."
        self._lost_events = Counter("recsys_events_lost", lost, registry=registry)
        self._batches, self._together = (
            Histogram(f"recsys_{name}_batch_size", text, buckets=_BATCHES, registry=registry)
            for name, text in (
                ("tower", "Queries in one run of the towers."),
                ("recommend", "Recommendations computed together."),
            )
        )
        Gauge(
            "recsys_bundle_info", "Version of the served bundle.", ["version"], registry=registry
        ).labels(version).set(1)

    def request(self, method: str, code: str, seconds: float) -> None:
        """Count a call."""
        self._requests.labels(method, code).inc()
        self._seconds.labels(method).observe(seconds)

    def degraded(self, reason: str) -> None:
        """Count a degraded answer."""
        self._degraded.labels(reason).inc()

    def lookup(self, tier: str) -> None:
        """Count an embedding lookup."""
        self._lookups.labels(tier).inc()

    def bad_row(self) -> None:
        """Count a cached row that was damaged or of another kind."""
        self._bad_rows.inc()

    def unreadable(self, kind: str) -> None:
        """Count a live item or event that could not be read."""
        self._unreadable.labels(kind).inc()

    def lost_events(self, count: int) -> None:
        """Count events that left the log before any export."""
        self._lost_events.inc(count)

    def refused_row(self) -> None:
        """Count a read or write of a cached row that Redis refused."""
        self._refused_rows.inc()

    def batch(self, size: int) -> None:
        """Count a run of the towers."""
        self._batches.observe(size)

    def recommended_together(self, size: int) -> None:
        """Count recommendations that were computed together."""
        self._together.observe(size)

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
