"""The service over HTTP: a real server process, a real client, the real stack behind it."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Night, paint
from pipeline import Pipeline
from serving import Served
from typer.testing import CliRunner

from caption_api.addresses import allowed_location
from image_analyzer.cli import app
from image_analyzer.errors import ItemError

KEY = "sia_a-key-for-tests"
KEYS = f"tests:{hashlib.sha256(KEY.encode()).hexdigest()}"


class Api(Pipeline):
    """The service on a night of its own."""

    def __init__(self, night: Night, folder: Path, **settings: str) -> None:
        super().__init__(night)
        more = {"API_KEYS": KEYS, "API_RATE_PER_MINUTE": "1000", "MAX_IMAGE_BYTES": "300000", **settings}
        self.served = Served(night, ["api"], "/healthz", folder / "api.log", more)
        self.client = httpx.Client(base_url=self.served.url, headers={"authorization": f"Bearer {KEY}"}, timeout=60)

    def upload(self, content: bytes, name: str = "a.jpg", **form: Any) -> httpx.Response:
        """Post a picture."""
        return self.client.post("/v1/captions", files={"file": (name, content)}, data=form)


@pytest.fixture
def make_api(make_night: Callable[..., Night], tmp_path: Path) -> Iterator[Callable[..., Api]]:
    """Start the service; stop it afterwards."""
    started: list[Api] = []

    def make(latency_s: float = 0, **settings: str) -> Api:
        api = Api(make_night(latency_s=latency_s), tmp_path, **settings)
        started.append(api)
        return api

    yield make
    for api in started:
        api.served.stop()


def test_a_picture_over_http(make_api: Callable[..., Api]) -> None:
    """Uploaded, captioned, stored, found by its bytes and page by page; the second time it costs nothing; hints stay inside."""
    api = make_api()
    red = paint("red", (200, 100))

    answer = api.upload(red, languages=["en", "fr"], archive="true")

    assert 200 == answer.status_code, answer.text
    found = answer.json()
    image = found["image"]
    assert (True, None, 200, "upload") == (
        found["stored"],
        found["storage_problem"],
        image["width_px"],
        image["source"],
    )
    assert ["en", "fr"] == [caption["language"] for caption in image["captions"]]
    assert all(c["status"] == "ok" and c["words"] and c["origin"] == "model" for c in image["captions"])
    assert image["captions"][0]["caption"] == api.rows()["a.jpg"]["GPT_SUMMARY"]
    again = api.upload(red, "b.jpg", languages="en").json()
    assert ("reused", 0.0, 1) == (
        again["image"]["captions"][0]["origin"], again["image"]["captions"][0]["cost_usd"], len(api.night.calls()),
    )  # fmt: skip

    by_bytes = api.client.get(f"/v1/images/{image['sha256']}").json()
    assert {image["image_uri"], f"sha256:{image['sha256']}"} == {one["image_uri"] for one in by_bytes}
    first = api.client.get("/v1/results", params={"limit": 2}).json()
    second = api.client.get("/v1/results", params={"limit": 2, **first["next_page"]}).json()
    assert [2, 1, None] == [
        sum(len(one["captions"]) for one in first["images"]), sum(len(one["captions"]) for one in second["images"]),
        second["next_page"],
    ]  # fmt: skip
    published = api.client.get("/v1/results", params={"status": "ok", "language": "fr"}).json()["images"]
    assert [["fr"]] == [[caption["language"] for caption in one["captions"]] for one in published]
    everything = json.dumps([found, by_bytes, first])
    assert not [word for word in ("hint", "predicted", "rejected", "HINT") if word in everything]


def test_an_address_is_captioned_where_it_is_allowed(make_api: Callable[..., Api]) -> None:
    """An object below the prefix becomes the row of a run; nothing else of the bucket can be read, by whatever trick."""
    api = make_api()
    api.land(cat__jpg=paint("red"))

    def ask(uri: str) -> httpx.Response:
        return api.client.post("/v1/captions", json={"image_uri": uri})

    assert "s3" == ask(api.uri("cat.jpg")).json()["image"]["source"]
    assert (404, "object_deleted") == (ask(api.uri("no.jpg")).status_code, ask(api.uri("no.jpg")).json()["code"])
    prefix = api.uri("")
    for uri in (
        "s3://images/other/cat.jpg", "s3://elsewhere/incoming/cat.jpg", f"{prefix}../work/ledger/x", f"{prefix}./cat.jpg",
        f"{prefix}/cat.jpg", prefix, "http://169.254.169.254/latest", "file:///etc/passwd", "s3://images", f"{prefix}a\nb", "",
    ):  # fmt: skip
        assert (403, "forbidden_address") == (ask(uri).status_code, ask(uri).json()["code"]), uri
    assert 0 == api.run().images


def test_our_own_files_are_not_readable_below_a_wide_prefix() -> None:
    """The ledger lies in the same bucket: a prefix that holds it does not open it."""
    with pytest.raises(ItemError):
        allowed_location("s3://b/_image_analyzer/ledger/x.json", ["s3://b/"], "s3://b/_image_analyzer")
    assert ("b", "_image_analyzer2/x.jpg") == allowed_location(
        "s3://b/_image_analyzer2/x.jpg", ["s3://b/"], "s3://b/_image_analyzer"
    )


def test_what_is_wrong_is_a_problem_document(make_api: Callable[..., Api]) -> None:
    """Bad pictures, forms, languages and cursors are 4xx with a code and a sentence; nothing of them is stored or asked."""
    api = make_api()
    red = paint("red")
    answers = {
        "truncated": api.upload(red[:300]),
        "unsupported_type": api.upload(b"<svg/>"),
        "empty_file": api.upload(b""),
        "no file": api.client.post("/v1/captions", files={"other": b"x"}),
        "no json": api.client.post("/v1/captions", content=b"{", headers={"content-type": "application/json"}),
        "deep json": api.client.post(
            "/v1/captions", content=b"[" * 100_000, headers={"content-type": "application/json"}
        ),
        "no type": api.client.post("/v1/captions", content=b"x"),
        "language": api.upload(red, languages="xx"),
        "languages": api.upload(red, languages=["en"] * 9),
        "field": api.upload(red, colour="red"),
        "status": api.client.get("/v1/results", params={"status": "x"}),
        "sha": api.client.get("/v1/images/..%2f..%2fetc"),
        "unknown": api.client.get(f"/v1/images/{'0' * 64}"),
    }
    statuses = {name: answer.status_code for name, answer in answers.items()}

    assert {
        "truncated": 422, "unsupported_type": 422, "empty_file": 422, "no file": 422, "no json": 400, "deep json": 400,
        "no type": 415, "language": 422, "languages": 422, "field": 422, "status": 422, "sha": 404, "unknown": 404,
    } == statuses  # fmt: skip
    for name, answer in answers.items():
        assert "application/problem+json" == answer.headers["content-type"], name
        document = answer.json()
        assert (answer.status_code, True) == (document["status"], len(document["detail"]) > 5), name
        assert document.get("code", name) == name or "code" not in document or document["code"] == "invalid_request"
    assert ({}, []) == (api.rows(), api.night.calls())


def test_nothing_is_read_without_a_key(make_api: Callable[..., Api]) -> None:
    """No key, a wrong one, its hash, another scheme: 401 before the body; probes need none."""
    api = make_api()
    stored_hash = KEYS.partition(":")[2]
    for header in ("", "Bearer", "Bearer wrong", f"Bearer {stored_hash}", f"Basic {KEY}", f"Bearer {KEY}x"):
        answer = httpx.post(f"{api.served.url}/v1/captions", content=b"x" * 200_000, headers={"authorization": header})
        assert (401, "Bearer", "unauthorized") == (
            answer.status_code, answer.headers["www-authenticate"], answer.json()["code"],
        ), header  # fmt: skip
    assert [200, 200, 200] == [
        httpx.get(api.served.url + path).status_code for path in ("/healthz", "/readyz", "/metrics")
    ]
    assert KEY not in api.served.log.read_text()


def test_oversized_and_lying_requests_end_early(make_api: Callable[..., Api]) -> None:
    """Too long by its header: refused unread. Longer than announced, or never ending: cut off. Shorter: timed out."""
    api = make_api(API_BODY_TIMEOUT_S="1")
    host, port = api.served.url.removeprefix("http://").split(":")
    head = (
        f"POST /v1/captions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        "content-type: multipart/form-data; boundary=b\r\n"
    )

    def send(more: str, body: bytes = b"") -> str:
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(f"{head}{more}\r\n\r\n".encode() + body)
            return connection.recv(4_000).decode().splitlines()[0]

    assert "413" in send("content-length: 9000000000")
    assert "408" in send("content-length: 5000", b"--b\r\n")

    def endless() -> Iterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
        for _ in range(400):
            yield b"x" * 1_000

    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert 413 == api.client.post("/v1/captions", content=endless(), headers=headers).status_code
    assert 413 == api.upload(paint("red", (1_000, 1_000), "BMP")).status_code
    assert 200 == api.upload(paint("red")).status_code


def test_it_does_what_its_description_says(make_api: Callable[..., Api], tmp_path: Path) -> None:
    """Requests made from the OpenAPI description, sound and broken ones, get what it says; never a 5xx.

    That every binary file is accepted cannot be asked of a service that wants pictures: this one check is left out.
    """
    api = make_api(API_RATE_PER_MINUTE="100000")
    command = [
        str(Path(sys.executable).parent / "st"), "run", f"{api.served.url}/openapi.json", "--no-color", "--seed", "1",
        "--header", f"Authorization: Bearer {KEY}", "--max-examples", "20", "--exclude-checks", "positive_data_acceptance",
    ]  # fmt: skip

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)

    assert 0 == done.returncode, done.stdout[-4_000:]
    assert "Tested: 6" in done.stdout


def test_each_key_has_its_rate(make_api: Callable[..., Api]) -> None:
    """Past its share a key is told when to come again; a request id comes back as it was sent."""
    api = make_api(API_RATE_PER_MINUTE="3")

    answers = [api.client.get("/v1/results", headers={"x-request-id": f"id-{number}"}) for number in range(5)]

    assert [200, 200, 200, 429, 429] == [answer.status_code for answer in answers]
    assert 0 < int(answers[-1].headers["retry-after"]) <= 61
    assert ["id-0", "id-4"] == [answers[i].headers["x-request-id"] for i in (0, 4)]


def test_what_cannot_answer_now_says_when(make_api: Callable[..., Api]) -> None:
    """OpenAI down is 503 with Retry-After; with the warehouse down the caption comes all the same."""
    api = make_api(OPENAI_MAX_ATTEMPTS="1", SNOWFLAKE_PORT="1")
    api.night.order({"kind": "server_error", "times": 1})

    down = api.upload(paint("red"))
    assert (503, "unavailable") == (down.status_code, down.json()["code"])
    assert int(down.headers["retry-after"]) > 0

    found = api.upload(paint("red")).json()
    assert (False, True) == (found["stored"], "Snowflake" in found["storage_problem"])
    assert found["image"]["captions"][0]["caption"]
    ready = api.client.get("/readyz")
    assert (503, {"status": "not ready", "no_answer": ["warehouse"]}) == (ready.status_code, ready.json())


def test_pictures_at_the_same_time_are_all_stored_and_each_is_paid_once(make_api: Callable[..., Api]) -> None:
    """Rows of requests that wait for the table go into it together; the same picture twice at once is one payment."""
    api = make_api(latency_s=0.2)
    pictures = [paint("red", (40 + number % 9, 30)) for number in range(12)]

    with ThreadPoolExecutor(len(pictures)) as people:
        answers = list(people.map(lambda numbered: api.upload(numbered[1], f"{numbered[0]}.jpg"), enumerate(pictures)))

    assert {(200, True)} == {(answer.status_code, answer.json()["stored"]) for answer in answers}
    assert 9 == len(api.night.calls()) == len({row["SHA256"] for row in api.rows().values()})


def test_a_probe_does_not_wait_for_captions(make_api: Callable[..., Api]) -> None:
    """With more captions under way than there are threads for them, probes, counters and lookups answer at once."""
    api = make_api(latency_s=5)
    with ThreadPoolExecutor(50) as people:
        answers = [people.submit(api.upload, paint("red", (40 + number, 30))) for number in range(46)]
        time.sleep(2.5)
        for path in ("/healthz", "/metrics", "/v1/results"):
            assert 200 == httpx.get(api.served.url + path, headers=api.client.headers, timeout=2).status_code, path
        assert not any(answer.done() for answer in answers)
        assert {200} == {answer.result().status_code for answer in answers}


def test_a_cap_on_cost_holds_here_too(make_api: Callable[..., Api]) -> None:
    """When the day's money is spent, new pictures are 503 with an hour to wait, known ones still 200."""
    api = make_api(MAX_DAY_COST_USD="0.0007")
    first = api.upload(paint("red"))

    later = (api.upload(paint("blue", (64, 48 + number))) for number in range(20))
    spent = next(answer for answer in later if answer.status_code != 200)

    assert (200, 503, "budget_spent", "3600") == (
        first.status_code, spent.status_code, spent.json()["code"], spent.headers["retry-after"],
    )  # fmt: skip
    assert 200 == api.upload(paint("red")).status_code


def test_it_stops_after_the_last_answer(make_api: Callable[..., Api]) -> None:
    """A request that is under way when the service is stopped gets its caption."""
    api = make_api(latency_s=2.0)
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(api.upload(paint("red"))))
    asking.start()
    while not api.night.calls():
        time.sleep(0.05)

    api.served.stop()
    asking.join()

    assert [200] == [answer.status_code for answer in answers]


def test_without_a_key_nothing_is_served(night: Night) -> None:
    """The service says which command makes a key; what that prints is a key and its hash."""
    run = CliRunner(env=night.environment).invoke
    assert "api-key" in run(app, ["api"]).output
    printed = run(app, ["api-key", "nightly"]).output.split()
    key = next(word for word in printed if word.startswith("sia_"))
    assert f"nightly:{hashlib.sha256(key.encode()).hexdigest()}" in printed
