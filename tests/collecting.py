"""A server that takes OTLP metrics over HTTP, as a collector does."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest


class Collector:
    """Keeps what gauges were sent: by name and tags, as text, every value in order of arrival."""

    def __init__(self) -> None:
        self._gauges: dict[str, list[float]] = {}
        self._lock = threading.Lock()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.take(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def gauges(self) -> dict[str, list[float]]:
        """What has arrived by now, of each request all or nothing."""
        with self._lock:
            return {name: list(values) for name, values in self._gauges.items()}

    def take(self, body: bytes) -> None:
        """Take one request in; gauges are what ours are."""
        request = ExportMetricsServiceRequest.FromString(body)
        metrics = [m for r in request.resource_metrics for scope in r.scope_metrics for m in scope.metrics]
        with self._lock:
            for metric in metrics:
                for point in metric.gauge.data_points:
                    tags = "".join(f" {tag.key}={tag.value.string_value}" for tag in point.attributes)
                    value = point.as_double if point.HasField("as_double") else point.as_int
                    self._gauges.setdefault(metric.name + tags, []).append(value)

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
