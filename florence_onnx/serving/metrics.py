"""Metrics of the service, for Prometheus."""

STAGES = ("read", "queue", "vision", "embed_encoder", "search", "parse")
"""Stages of a request: reading of body and picture, waiting, and stages of the engine. Stages of
the engine count once per batch, ``vision`` once per picture."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128)


class Metrics:
    """Metrics of one service."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry: CollectorRegistry = CollectorRegistry()
        self._requests = Counter(
            "florence_onnx_requests",
            "Requests that were answered, by route and status.",
            ("route", "status"),
            registry=self.registry,
        )
        self._request_seconds = Histogram(
            "florence_onnx_request_seconds",
            "Time from a request's first byte to its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.queue = Gauge(
            "florence_onnx_queue",
            "Requests that are accepted and not answered yet.",
            registry=self.registry,
        )
        self._batch_pictures = Histogram(
            "florence_onnx_batch_pictures",
            "Pictures of a batch.",
            buckets=_SIZES,
            registry=self.registry,
        )
        self._batch_rows = Histogram(
            "florence_onnx_batch_rows",
            "Rows of a batch in the decoder: tasks times beams.",
            buckets=_SIZES,
            registry=self.registry,
        )
        self._stages = Histogram(
            "florence_onnx_stage_seconds",
            f"Time of each stage: {', '.join(STAGES)}.",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.models_open = Gauge(
            "florence_onnx_models_open", "Models in memory.", registry=self.registry
        )
        self._tokens = Counter(
            "florence_onnx_tokens", "Tokens that were generated.", registry=self.registry
        )

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Counts a request."""
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def batch(self, pictures: int, rows: int) -> None:
        """Counts a batch."""
        self._batch_pictures.observe(pictures)
        self._batch_rows.observe(rows)

    def stage(self, stage: str, seconds: float) -> None:
        """Counts the time of one of `STAGES`."""
        self._stages.labels(stage).observe(seconds)

    def tokens(self, count: int) -> None:
        """Counts the tokens of an answer."""
        self._tokens.inc(count)

    def page(self) -> tuple[bytes, str]:
        """Makes the content of /metrics, and the type of the content."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self.registry), CONTENT_TYPE_LATEST
