"""The add-on as people use it: a real browser, a real server process, the real stack behind it."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from browsing import TALL, browser, look_at
from conftest import Night, paint, photograph
from fault_proxy import FaultProxy, Rule
from identity_provider import CLIENT_ID, CLIENT_SECRET, IdentityProvider
from pipeline import Pipeline
from playwright.sync_api import Browser, Page, expect
from serving import Served
from typer.testing import CliRunner

from caption_desk.desk import may_enter, plain
from image_analyzer.cli import app
from image_analyzer.commands import serve_app
from image_analyzer.errors import ConfigurationError
from image_analyzer.local.stack import Stack, free_ports
from image_analyzer.reports import RunReport

__all__ = ["browser"]
ALIVE = "/_stcore/health"
expect.set_options(timeout=60_000)


class Addon(Pipeline):
    """The add-on on a night of its own."""

    def __init__(self, night: Night, browser: Browser, folder: Path, **settings: str) -> None:
        super().__init__(night)
        self.served = Served(night, ["app"], ALIVE, folder / "app.log", settings)
        self._browser = browser

    def run(self, *args: Any, **wanted: Any) -> RunReport:
        """Run one night in a thread of its own: this one has Playwright's event loop."""
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(super().run, *args, **wanted).result()

    def open(self, path: str = "") -> Page:
        """Open a page as somebody new."""
        context = self._browser.new_context(viewport=TALL, permissions=["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(f"{self.served.url}/{path}")
        page.get_by_role("heading", level=1).wait_for()
        return page


@pytest.fixture
def make_addon(make_night: Callable[..., Night], browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Addon]]:
    """Start the add-on; stop it afterwards."""
    started: list[Addon] = []

    def make(**settings: str) -> Addon:
        addon = Addon(make_night(), browser, tmp_path, **settings)
        started.append(addon)
        return addon

    yield make
    for addon in started:
        addon.served.stop()


def drop(page: Page, **files: bytes) -> None:
    """Choose pictures and ask for captions."""
    chosen: Any = [
        {"name": name.replace("__", "."), "mimeType": "image/jpeg", "buffer": content}
        for name, content in files.items()
    ]
    page.locator("input[type=file]").set_input_files(chosen)
    for name in files:
        page.get_by_role("button", name=f"Remove {name.replace('__', '.')}", exact=True).wait_for()
    page.get_by_role("button", name="Generate description").click()


def test_pictures_become_sentences(make_addon: Callable[..., Addon]) -> None:
    """Three files at once, one of them broken, in two languages, archived: sentences, facts, rows; a hint nowhere."""
    addon = make_addon()
    page = addon.open()
    page.get_by_label("Languages").click()
    page.keyboard.type("French")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    page.get_by_text("Save upload to S3").click()

    drop(page, cat__jpg=photograph("chelsea.png"), red__jpg=paint("red", (400, 300)), torn__jpg=paint("blue")[:300])

    expect(page.get_by_text("In IMAGE_RESULTS as")).to_have_count(2)
    rows = addon.rows()
    sentence = rows["red.jpg"]["GPT_SUMMARY"]
    expect(page.get_by_text(sentence)).to_be_visible()
    expect(page.get_by_role("img", name=sentence)).to_be_visible()
    expect(page.get_by_text(re.compile(r"\d+ words · Written by gpt-6-luna · cost \$0\.0000"))).to_have_count(4)
    expect(page.get_by_role("alert").filter(has_text="This file cannot be captioned")).to_be_visible()
    address = rows["red.jpg"]["IMAGE_URI"]
    assert re.search(r"/uploads/\d{4}/\d\d/\d\d/[0-9a-f]{16}/red\.jpg$", address), address
    expect(page.get_by_text(address)).to_be_visible()
    page.get_by_role("button", name="Copy").nth(2).click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert sentence == page.evaluate("navigator.clipboard.readText()")
    text = page.inner_text("body").lower()
    assert not [hint for hint in json.loads(rows["cat.jpg"]["HINTS"]) if hint["label"].lower() in text]
    assert "torn.jpg" not in rows
    look_at(page, "caption")


def test_the_same_picture_again_costs_nothing(make_addon: Callable[..., Addon]) -> None:
    """Not archived: the row is keyed by the bytes. The second time nothing is asked; a hostile name is only a name."""
    addon = make_addon()
    name = "![x](http://127.0.0.1:9/x) <b>$5$.jpg"
    addon.land(known__jpg=paint("red"))
    addon.run()
    page = addon.open()

    drop(page, **{name: paint("red")})

    expect(page.get_by_text("Known already")).to_contain_text("cost nothing")
    expect(page.get_by_text("In IMAGE_RESULTS as sha256:")).to_be_visible()
    expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
    assert (1, 1) == (
        len(addon.night.calls()),
        page.get_by_role("img", name=addon.rows()["known.jpg"]["GPT_SUMMARY"]).count(),
    )


def test_what_is_wrong_is_said_plainly(make_addon: Callable[..., Addon], stack: Stack) -> None:
    """OpenAI down, too large a file: a sentence each. The warehouse down: the caption is shown, and stored when it is back."""
    (port,) = free_ports(1)
    tls = (stack.folder / "tls" / "cert.pem", stack.folder / "tls" / "key.pem")
    snowflake = FaultProxy(f"https://localhost:{stack.environment()['SNOWFLAKE_PORT']}", port, tls)
    addon = make_addon(SNOWFLAKE_PORT=str(port), OPENAI_MAX_ATTEMPTS="1", MAX_IMAGE_BYTES="1000000")
    page = addon.open()
    addon.night.order({"kind": "server_error", "times": 1})
    drop(page, a__jpg=paint("red"))
    expect(page.get_by_text("It does not work just now, try again in a minute")).to_be_visible()

    big = {"name": "big.bmp", "mimeType": "image/bmp", "buffer": paint("red", (900, 900), "BMP")}
    page.locator("input[type=file]").set_input_files([big])  # type: ignore[list-item]
    expect(page.get_by_text(re.compile(r"1(\.0)?MB or smaller"))).to_be_visible()

    snowflake.rules.append(Rule("status", status=503, times=1_000_000))
    page = addon.open()
    drop(page, b__jpg=paint("blue"))
    again = page.get_by_role("button", name="Store again")
    again.wait_for(timeout=60_000)
    expect(page.get_by_text("is paid for and not lost")).to_be_visible()
    look_at(page, "caption-not-stored")
    assert {} == addon.rows()
    snowflake.rules.clear()
    again.click()
    expect(page.get_by_text("In IMAGE_RESULTS as sha256:")).to_be_visible(timeout=60_000)
    assert ({"b.jpg"}, 2) == (set(addon.rows()), len(addon.night.calls()))
    snowflake.stop()
    assert "local-stack-secret" not in addon.served.log.read_text()


def expect_next(page: Page, text: str) -> None:
    """Wait until the page shows a text and is whole: while it is drawn, fields of the row before are still there."""
    expect(page.get_by_text(text)).to_be_visible()
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")


def make_waiting(addon: Addon, count: int = 1) -> None:
    """Let pictures wait for a person: both answers broke the contract."""
    for number in range(count):
        addon.land(**{f"w{number}__jpg": paint("red", (200 + 40 * number, 150))})
    addon.night.order({"kind": "two_sentences", "times": 2 * count})
    addon.run()
    assert {"needs_review"} == {row["STATUS"] for row in addon.rows().values()}


def test_a_reviewer_needs_no_mouse(make_addon: Callable[..., Addon]) -> None:
    """Checked while one types; a text that breaks the contract cannot be stored; edit, reject, skip, decorative by keys."""
    addon = make_addon()
    make_waiting(addon, 3)
    page = addon.open("review")
    page.get_by_role("textbox", name="Your name").fill("Ada")
    page.keyboard.press("Tab")
    area = page.get_by_role("textbox", name="Caption in English")
    expect(page.get_by_text("The contract is broken")).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("Accept|Save edit"))).to_be_disabled()
    look_at(page, "review")

    area.focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("A red square with a black corner. It is red", delay=10)
    expect(page.get_by_role("listitem").filter(has_text="multi_sentence")).to_be_visible()
    page.keyboard.press("Control+A")
    page.keyboard.type("A red square with a black corner.")
    expect(page.get_by_text("7 words in one sentence: the contract is kept.")).to_be_visible()
    expect(page.get_by_role("button", name="Save edit")).to_be_enabled()
    page.keyboard.press("Alt+A")
    expect_next(page, "2 to look at")

    page.keyboard.press("Alt+X")
    expect_next(page, "Not stored: say why the caption is rejected")
    note = page.get_by_label("Reason")
    note.focus()
    page.keyboard.type("tells nothing")
    page.keyboard.press("Enter")
    page.keyboard.press("Alt+X")
    expect_next(page, "1 to look at")
    page.keyboard.press("Alt+S")
    expect_next(page, "Nothing else waits here: you skipped 1.")
    page.get_by_role("button", name="Show what I skipped").focus()
    page.keyboard.press("Enter")
    expect_next(page, "1 to look at")
    page.get_by_label("Reason").focus()
    page.keyboard.type("a plain divider")
    page.keyboard.press("Enter")
    page.keyboard.press("Alt+N")
    expect(page.get_by_text("Nothing waits here.")).to_be_visible()

    rows = addon.rows()
    assert {
        ("edited", "A red square with a black corner.", "Ada"),
        ("rejected", None, "Ada"),
        ("edited", "", "Ada"),
    } == {(row["REVIEW_STATUS"], row["GPT_SUMMARY"], row["REVIEWED_BY"]) for row in rows.values()}
    assert {"tells nothing", "a plain divider", None} == {row["REVIEW_NOTE"] for row in rows.values()}


def test_two_reviewers_on_one_row(make_addon: Callable[..., Addon]) -> None:
    """The second is told who was first, sees what the row says now, and has stored nothing."""
    addon = make_addon()
    addon.land(a__jpg=paint("red"))
    addon.run()
    pages = [addon.open("review") for _ in range(2)]
    for page, name in zip(pages, ("Ada", "Grace"), strict=True):
        page.get_by_text("Published, by chance").click()
        page.get_by_role("textbox", name="Your name").fill(name)
        page.keyboard.press("Enter")
        page.get_by_role("textbox", name="Caption in English").wait_for()
    first, second = pages
    first.get_by_role("textbox", name="Caption in English").fill("A red square.")
    expect(first.get_by_text("3 words in one sentence")).to_be_visible()
    first.get_by_role("button", name="Save edit").click()
    expect(first.get_by_text("Nothing waits here.")).to_be_visible()

    second.get_by_role("button", name="Accept").click()

    expect(second.get_by_text("Not stored: Ada has decided on it meanwhile")).to_be_visible()
    expect(second.get_by_role("textbox", name="Caption in English")).to_have_value("A red square.")
    expect(second.get_by_role("button", name="Accept")).to_be_enabled()
    look_at(second, "review-conflict")
    assert ("A red square.", "Ada") == (addon.rows()["a.jpg"]["GPT_SUMMARY"], addon.rows()["a.jpg"]["REVIEWED_BY"])


def test_look_for_results(make_addon: Callable[..., Addon]) -> None:
    """Words, status, language and label narrow the gallery; the table and the csv say the same."""
    addon = make_addon()
    addon.land(cat__jpg=photograph("chelsea.png"), red__jpg=paint("red"), bad__jpg=b"nothing")
    addon.run(addon.night.settings(caption_languages=("en", "fr")), languages=("en", "fr"))
    rows = addon.rows()
    page = addon.open("browse")
    gallery = page.locator("ul.sheet > li")
    expect(gallery).to_have_count(3)
    expect(page.get_by_role("img", name=rows["red.jpg"]["GPT_SUMMARY"])).to_be_visible()
    look_at(page, "browse")

    page.get_by_role("textbox", name="Label hint").fill(str(rows["cat.jpg"]["PREDICTED_LABEL"]))
    page.keyboard.press("Enter")
    expect(gallery).to_have_count(1)
    expect(gallery).to_contain_text("cat.jpg")
    page.get_by_role("textbox", name="Label hint").fill("")
    page.get_by_label("Words in caption or file name").fill("red")
    page.keyboard.press("Enter")
    expect(gallery.get_by_text("red.jpg")).to_be_visible()
    page.get_by_role("radio", name="Table").click()
    expect(page.get_by_test_id("stDataFrame")).to_be_visible()
    look_at(page, "browse-table")
    page.get_by_role("button", name="Prepare csv").click()
    with page.expect_download() as started:
        page.get_by_role("button", name=re.compile(r"Download \d+ rows")).click()
    found = list(csv.DictReader(started.value.path().read_text(encoding="utf-8").splitlines()))
    assert {("red.jpg", "en"), ("red.jpg", "fr")} == {
        (row["FILE_NAME"], row["LANGUAGE"]) for row in found if row["FILE_NAME"] == "red.jpg"
    }
    assert all("red" in (row["FILE_NAME"] + row["GPT_SUMMARY"]).lower() for row in found)


def test_health_at_a_glance(make_addon: Callable[..., Addon]) -> None:
    """Figures and plots, each of which says in words what it shows."""
    addon = make_addon()
    addon.land(a__jpg=paint("red"), b__jpg=paint("blue"), bad__jpg=b"nothing", torn__jpg=paint("blue")[:300])
    addon.run()
    page = addon.open("health")

    expect(page.get_by_role("heading", name="Last runs")).to_be_visible()
    for said in (
        "Share published: en",
        "Cost per day by model",
        "unsupported_type 1",
        "Share sound at the first answer",
    ):
        expect(page.get_by_label(re.compile(said)).first).to_be_attached()
    look_at(page, "health")


def test_others_are_let_in_only_where_they_sign_in(
    night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond this machine the add-on does not listen without a sign-in, unless that is what its owner says."""
    monkeypatch.chdir(tmp_path)
    refused = CliRunner(env={**night.environment, "HOME": str(tmp_path)}).invoke(app, ["app", "--host", "0.0.0.0"])  # noqa: S104

    assert (1, True) == (refused.exit_code, "--open-to-all" in refused.output.replace("\n", " "))
    user = {"email": "Ada@Example.org", "email_verified": True}
    assert may_enter(user, ())
    assert may_enter(user, ("ada@example.org",))
    assert may_enter(user, ("@example.org",))
    assert not may_enter(user, ("@example.com", "da@example.org"))
    assert not may_enter({**user, "email_verified": False}, ())
    assert not may_enter({**user, "email_verified": "false"}, ())
    assert not may_enter({"sub": "x"}, ("@example.org",))
    unsaid = {"email": "ada@example.org"}
    assert not may_enter(unsaid, ("@example.org",))
    assert may_enter(unsaid, ("@example.org",), believe_email=True)
    assert not may_enter({**unsaid, "email_verified": False}, ("@example.org",), believe_email=True)


def test_a_sign_in_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its file is there, so somebody means it: it is not taken for no sign-in."""
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("it was started"))
    monkeypatch.chdir(tmp_path)
    secrets = tmp_path / ".streamlit" / "secrets.toml"
    secrets.parent.mkdir()
    secrets.write_text("[auth")
    with pytest.raises(ConfigurationError, match=r"secrets\.toml is no TOML"):
        serve_app("127.0.0.1", 1, open_to_all=False)
    secrets.unlink()
    secrets.mkdir()
    with pytest.raises(ConfigurationError, match=r"secrets\.toml cannot be read: Is a directory"):
        serve_app("127.0.0.1", 1, open_to_all=False)


def test_decisions_are_signed_by_who_signed_in(night: Night, browser: Browser, tmp_path: Path) -> None:
    """With an identity provider set up nothing is shown before the sign-in; its address signs; others are turned away."""
    provider, (port,) = IdentityProvider(), free_ports(1)
    secrets = tmp_path / ".streamlit" / "secrets.toml"
    secrets.parent.mkdir()
    secrets.write_text(
        f'[auth]\nredirect_uri = "http://127.0.0.1:{port}/oauth2callback"\ncookie_secret = "{"c" * 40}"\n'
        f'client_id = "{CLIENT_ID}"\nclient_secret = "{CLIENT_SECRET}"\n'
        f'server_metadata_url = "{provider.url}/.well-known/openid-configuration"\n'
    )
    more = {"APP_USERS": "@example.org"}
    pipeline = Pipeline(night)
    pipeline.land(a__jpg=paint("red"))
    with ThreadPoolExecutor(1) as thread:
        thread.submit(pipeline.run).result()
    served = Served(night, ["app", "--host", "127.0.0.1"], ALIVE, tmp_path / "app.log", more, port)
    try:
        page = browser.new_context(viewport=TALL).new_page()
        page.set_default_timeout(60_000)
        page.goto(f"{served.url}/review")
        expect_next(page, "Sign in")
        provider.claims = {"sub": "1", "email": "mallory@example.com", "email_verified": True}
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_text("not among those who may use this")).to_be_visible()
        assert not page.get_by_text("Review").count()
        page.get_by_role("button", name="Sign out").click()
        expect_next(page, "Sign in")

        provider.claims = {"sub": "2", "email": "ada@example.org", "email_verified": True}
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_text("Signed in as ada@example.org")).to_be_visible()
        page.get_by_role("link", name="Review").click()
        expect_next(page, "Nothing waits here.")
        page.get_by_text("Published, by chance").click()
        page.get_by_role("button", name="Accept").click()
        expect(page.get_by_text("Nothing waits here.")).to_be_visible()
        look_at(page, "review-signed-in")
    finally:
        served.stop()
        provider.stop()
    assert ("approved", "ada@example.org") == (
        pipeline.rows()["a.jpg"]["REVIEW_STATUS"], pipeline.rows()["a.jpg"]["REVIEWED_BY"],
    )  # fmt: skip
    assert CLIENT_SECRET not in served.log.read_text()


def test_text_of_others_is_no_markup() -> None:
    """A file name or a caption is shown as it is written."""
    assert r"\!\[x\]\(http\:\/\/a\) \$x\$ \:red\[b\] \<b\>" == plain("![x](http://a) $x$ :red[b] <b>")
