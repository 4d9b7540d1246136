"""GET /api/schema: the document is built once and served as cacheable bytes."""

import gzip
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from django.conf import LazySettings

from tests.access.test_rate_limits import Limit, limit, new_ip  # noqa: F401 - a fixture
from tests.support.client import JSON, Answer, Api, InProcess, OverHttp
from wallets.api import document
from wallets.api.document import Document, accepts_gzip
from wallets.batching import once
from walletsvc import gunicorn


def schema(query: str = "", **headers: str) -> Answer:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return InProcess().send("GET", f"/api/schema{query}", headers=given)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list with one entry for each build of the document; the cache is empty."""
    builds: list[int] = []

    def build() -> dict[str, Document]:
        builds.append(1)
        return document.build()

    monkeypatch.setattr(document, "documents", once(build))
    return builds


def test_document_is_built_once_for_concurrent_requests(built: list[int]) -> None:
    together = threading.Barrier(4)

    def ask(_: int) -> bytes:
        together.wait()
        return schema().content

    with ThreadPoolExecutor(4) as pool:
        contents = set(pool.map(ask, range(4)))
    assert (len(built), len(contents)) == (1, 1)
    assert schema("?format=json").status == 200
    assert len(built) == 1


def test_worker_builds_the_document_when_it_starts(built: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gc.freeze", lambda: None)
    monkeypatch.setattr("walletsvc.settings.METRICS", False)
    gunicorn.post_worker_init(None)
    assert len(built) == 1
    assert schema().status == 200
    assert len(built) == 1


def test_document_has_the_same_bytes_in_every_process(
    service: str, built: list[int], settings: LazySettings
) -> None:
    settings.PUBLIC_URL = service
    answers = []
    for _ in range(8):
        sender = OverHttp(service)
        answers.append(sender.send("GET", "/api/schema"))
        sender.connection.close()
    assert {answer.content for answer in answers} == {schema().content}
    assert {answer.headers["etag"] for answer in answers} == {schema().headers["etag"]}


def test_document_is_json_by_format_or_accept() -> None:
    by_format, by_accept = schema("?format=json"), schema(Accept="application/json")
    assert by_format.headers["content-type"] == by_accept.headers["content-type"] == JSON
    assert by_format.content == by_accept.content
    assert schema().content == schema("?format=yaml").content
    assert by_format.json == yaml.load(schema().content, yaml.CSafeLoader)  # safe_load takes 2 s of CPU
    assert schema(Accept="application/vnd.oai.openapi+json").content == by_format.content
    assert schema(Accept="application/json; charset=utf-8").content == by_format.content
    assert schema("?format=json", Accept="application/yaml").content == by_format.content


def test_document_in_an_unknown_format_is_refused() -> None:
    refused = schema("?format=xml")
    assert (refused.status, refused.code, refused.json["errors"][0]["field"]) == (
        400,
        "validation_error",
        "format",
    )
    assert schema(Accept="image/png").code == "not_acceptable"


def test_document_may_be_cached_and_revalidated() -> None:
    tags = set()
    for query, encoding in (("", ""), ("", "gzip"), ("?format=json", ""), ("?format=json", "gzip")):
        answer = schema(query, Accept_Encoding=encoding)
        tag = answer.headers["etag"]
        tags.add(tag)
        assert answer.headers["cache-control"] == "public, max-age=60"
        assert {"accept", "accept-encoding"} <= set(re.split(r",\s*", answer.headers["vary"].lower()))
        again = schema(query, Accept_Encoding=encoding, If_None_Match=f'"other", {tag}')
        assert (again.status, again.content, again.headers["etag"]) == (304, b"", tag)
        assert again.headers["cache-control"] == answer.headers["cache-control"]
        assert schema(query, Accept_Encoding=encoding, If_None_Match='"other"').status == 200
    assert len(tags) == 4


def test_document_is_compressed_for_clients_that_accept_gzip() -> None:
    plain, compressed = schema(), schema(Accept_Encoding="br, gzip;q=0.5")
    assert "content-encoding" not in plain.headers
    assert compressed.headers["content-encoding"] == "gzip"
    assert len(compressed.content) < len(plain.content) / 10
    assert gzip.decompress(compressed.content) == plain.content
    assert compressed.headers["content-length"] == str(len(compressed.content))


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        *(("gzip", True), ("GZIP", True), ("br, gzip", True), ("gzip;q=0.1", True), ("gzip; q=1.0", True)),
        *(("", False), ("br", False), ("x-gzip", False), ("gzip;q=0", False), ("gzip; q=0.000", False)),
        *(("identity", False), ("gzips", False), ("gzip;q=0, br", False)),
    ],
)
def test_gzip_is_used_only_when_accepted(header: str, accepted: bool) -> None:
    assert accepts_gzip(header) is accepted


def test_head_of_the_document_has_no_body(live_api: Api) -> None:
    head, whole = (live_api.sender.send(method, "/api/schema") for method in ("HEAD", "GET"))
    assert (head.status, head.content) == (200, b"")
    assert head.headers["etag"] == whole.headers["etag"]
