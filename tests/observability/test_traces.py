"""W3C Trace Context, and the OpenTelemetry spans that a collector receives."""

import gzip
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.conftest import running_service
from tests.support.client import Answer, Api, InProcess, OverHttp

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


# --- Without OpenTelemetry --------------------------------------------------------------------------
def answer_to(traceparent: str | None) -> Answer:
    given = {} if traceparent is None else {"traceparent": traceparent}
    return InProcess().send("GET", "/livez", headers=given)


@pytest.mark.parametrize(
    "traceparent",
    [
        f"00-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-00",
        f"00-{TRACE}-{PARENT}-03",  # level 2: the flag for a random id
        f"00-{TRACE}-{PARENT}-ff",
        f"cc-{TRACE}-{PARENT}-01",  # a future version
        f"cc-{TRACE}-{PARENT}-01-a-future-field",
        f"cc-{TRACE}-{PARENT}-01-",
    ],
)
def test_valid_traceparent_is_continued(traceparent: str) -> None:
    version, trace, span, flags = answer_to(traceparent).headers["traceresponse"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "00")  # not recorded
    assert len(span) == 16
    assert span != PARENT


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "nonsense",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE}-{PARENT}-01-",
        f"00-{TRACE}-{PARENT}-01-more",
        f"cc-{TRACE}-{PARENT}-01.more",
        f"ff-{TRACE}-{PARENT}-01",
        f"0-{TRACE}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE[1:]}-{PARENT}-01",
        f"00-{TRACE}-{PARENT[1:]}-01",
        f"00-{TRACE}-{PARENT}-0g",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{PARENT}-01,00-{TRACE}-{PARENT}-01",
        f" 00-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01\n",
        f"00-{TRACE}-{PARENT}-٠١",
    ],
    ids=ascii,
)
def test_invalid_traceparent_starts_a_new_trace(traceparent: str) -> None:
    version, trace, span, flags = answer_to(traceparent).headers["traceresponse"].split("-")
    assert (version, len(trace), len(span), flags) == ("00", 32, 16, "00")
    assert trace != TRACE


def test_request_without_traceparent_gets_no_traceresponse() -> None:
    assert "traceresponse" not in answer_to(None).headers


@pytest.mark.slow
def test_worker_imports_no_disabled_integration() -> None:
    code = (
        "import sys, walletsvc.server.worker, walletsvc.wsgi, walletsvc.urls; "
        "print(sys.modules.keys() & {'opentelemetry', 'sentry_sdk', 'grpc', 'requests', 'cryptography'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# --- With OpenTelemetry ------------------------------------------------------------------------------------
@dataclass
class Collector:
    """The data that arrived by OTLP over HTTP."""

    headers: list[dict[str, str]] = field(default_factory=list)
    resources: list[dict[str, str]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)

    def take(self, headers: dict[str, str], body: bytes) -> None:
        content = gzip.decompress(body) if headers.get("Content-Encoding") == "gzip" else body
        self.headers.append(headers)
        for of_resource in ExportTraceServiceRequest.FromString(content).resource_spans:
            self.resources.append(attributes(of_resource.resource))
            self.spans += [span for of_scope in of_resource.scope_spans for span in of_scope.spans]

    def of_trace(self, trace: str) -> dict[str, Span]:
        """Wait for the trace's request span; return the spans by name."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            found = {span.name: span for span in self.spans if span.trace_id.hex() == trace}
            if any(not name.startswith(("commit", "wait")) for name in found):
                return found
            time.sleep(0.05)
        raise AssertionError(f"no request in trace {trace}")


def attributes(of: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in of.attributes}


@contextmanager
def collecting() -> Iterator[tuple[str, Collector]]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            collector.take(dict(self.headers), body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with closing_server(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as address:
        yield address, collector


@contextmanager
def closing_server(server: ThreadingHTTPServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


ENVIRONMENT = {
    "WORKERS": "2",
    "OTEL_BSP_SCHEDULE_DELAY": "100",
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20for-the-collector",
    "OTEL_TRACES_SAMPLER": "",  # compose passes unset variables as empty
}


@pytest.fixture(scope="module")
def collected() -> Iterator[tuple[str, Collector]]:
    with (
        collecting() as (address, collector),
        running_service(OTEL_EXPORTER_OTLP_ENDPOINT=address, **ENVIRONMENT) as service,
    ):
        yield service, collector


@contextmanager
def client_of(service: str) -> Iterator[Api]:
    sender = OverHttp(service)
    with closing(sender.connection):
        yield Api(sender)


def test_request_span_belongs_to_the_callers_trace(collected: tuple[str, Collector]) -> None:
    service, collector = collected
    with client_of(service) as api:
        wallet = api.open()
        body = {"operationType": "DEPOSIT", "amount": "1"}
        answer = api.post(f"/wallets/{wallet}/operation", body, traceparent=f"00-{TRACE}-{PARENT}-01")
    spans = collector.of_trace(TRACE)
    request = spans["POST /api/v1/wallets/{wallet_id}/operation"]
    assert request.kind == Span.SPAN_KIND_SERVER
    assert request.parent_span_id.hex() == PARENT
    assert answer.headers["traceresponse"] == f"00-{TRACE}-{request.span_id.hex()}-01"
    assert attributes(request) == {
        "http.request.method": "POST",
        "http.route": "/api/v1/wallets/{wallet_id}/operation",
        "http.response.status_code": 201,
        "walletsvc.request_id": answer.headers["x-request-id"],
        "walletsvc.wallet_id": wallet,
    }
    wait, commit = spans["wait for the commit"], spans["commit"]
    assert wait.parent_span_id == request.span_id
    assert commit.parent_span_id == wait.span_id
    assert [link.span_id for link in commit.links] == [wait.span_id]
    assert attributes(commit) == {"walletsvc.batch.size": 1}
    assert wait.start_time_unix_nano <= commit.start_time_unix_nano
    assert commit.end_time_unix_nano <= wait.end_time_unix_nano <= request.end_time_unix_nano


def test_collector_gets_the_service_name_and_headers(collected: tuple[str, Collector]) -> None:
    service, collector = collected
    with client_of(service) as api:
        api.get("/wallets", traceparent=f"00-{'a' * 32}-{PARENT}-01")
    collector.of_trace("a" * 32)
    assert {resource["service.name"] for resource in collector.resources} == {"walletsvc"}
    lower = {name.lower(): value for name, value in collector.headers[0].items()}
    assert lower["authorization"] == "Bearer for-the-collector"


def test_unsampled_request_is_not_recorded(collected: tuple[str, Collector]) -> None:
    service, collector = collected
    with client_of(service) as api:
        path, body = f"/wallets/{api.open()}/operation", {"operationType": "DEPOSIT", "amount": "1"}
        answer = api.post(path, body, traceparent=f"00-{'b' * 32}-{PARENT}-00")
        assert answer.status == 201
        assert answer.headers["traceresponse"].startswith(f"00-{'b' * 32}-")
        assert answer.headers["traceresponse"].endswith("-00")
        api.get("/wallets", traceparent=f"00-{'c' * 32}-{PARENT}-01")
    collector.of_trace("c" * 32)
    assert not [span for span in collector.spans if span.trace_id.hex() == "b" * 32]
    assert not [span for span in collector.spans if span.trace_id.hex() == f"{1:032x}"]


@pytest.mark.slow
def test_batch_span_links_to_its_requests() -> None:
    with collecting() as (address, collector):
        with running_service(
            OTEL_EXPORTER_OTLP_ENDPOINT=address, **ENVIRONMENT | {"WORKERS": "1"}
        ) as service:
            with client_of(service) as api:
                wallet = api.open()
            traces = [f"{number:032x}" for number in range(1000, 1200)]

            def send(some: list[str]) -> None:
                with client_of(service) as api:
                    for trace in some:
                        api.sender.send(
                            "POST",
                            f"/api/v1/wallets/{wallet}/operation",
                            b'{"operationType": "DEPOSIT", "amount": "1"}',
                            {"traceparent": f"00-{trace}-{PARENT}-01"},
                        )

            threads = [threading.Thread(target=send, args=[traces[n::20]]) for n in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        # The service sent the remaining spans at its shutdown.
        commits = [span for span in collector.spans if span.name == "commit"]
        waits = {span.span_id for span in collector.spans if span.name == "wait for the commit"}
        linked = [link.span_id for span in commits for link in span.links]
        assert len(linked) == len(set(linked)) == 200
        assert set(linked) == waits
        assert len(commits) < 200  # several requests shared a commit
        assert max(attributes(span)["walletsvc.batch.size"] for span in commits) > 1


@pytest.mark.slow
def test_unreachable_collector_delays_nothing() -> None:
    away = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "WORKERS": "1"}
    with running_service(**ENVIRONMENT | away) as service, client_of(service) as api:
        wallet = api.open()
        for _ in range(20):
            assert api.deposit(wallet, "1").status == 201
        assert api.balance(wallet) == "20.00"
