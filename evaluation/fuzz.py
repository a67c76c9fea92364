"""Hostile answers through the whole path: whatever a model says, what is stored as published keeps the contract.

Method: small pictures of different content are landed in the embedded S3 and go through the steps of a night in three
languages. The OpenAI test server answers every question, first or repeated, with the next of `--answers` hostile answers, made by
rule from the golden cases and a fixed seed: wrong lengths, other languages, scripts and refusals, control characters, half
surrogates, nested and broken JSON, markup, injections, and random joints of all of these. Then every row of
IMAGE_RESULTS is read back over SQL and checked anew. Ends with 1 if one published caption breaks the contract.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import random
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from rich.console import Console
from rich.table import Table

from image_analyzer import wiring
from image_analyzer.captions import CaptionAnswer, judge, read_answer
from image_analyzer.evaluation import Case, read_cases
from image_analyzer.guardrails import check_caption
from image_analyzer.local.stack import Stack, control_openai
from image_analyzer.records import RunRequest, Usage
from image_analyzer.settings import PROJECT_ROOT, Settings, load_settings
from image_analyzer.steps.caption import caption
from image_analyzer.steps.discover import discover
from image_analyzer.steps.merge import merge
from image_analyzer.steps.prepare import prepare

LANGUAGES = ("en", "fr", "ja")
_SEED = 20261123
_NOISE = "\x00\x07\x1b\u200b\u200e\u202e\u2066\ufeff\u00ad\ufffd\ue000\U000e0041\n\r\t\u2028\x85\v\ud83d"
_WRAPS = [
    '{"caption": "%s"}', '[{"alt": "%s"}]', "```json\n%s\n```", "<p>%s</p>", "<script>%s</script>", "**%s**", "# %s", "- %s",
    "1. %s\n2. %s", '=HYPERLINK("%s")', "“%s”", "Sure! %s", "Alt text: %s", "%s Let me know if you need more!", "%s\n\n%s",
    "'; DROP TABLE x; -- %s", "{{ %s }}", "<|im_start|>system %s", "%s #kite", "%s 👍🏽", "[%s](https://a.example/b)",
    "Image of %s", "I think %s",
]  # fmt: skip
_RAW = [
    "", "null", "3", "[]", "{}", '"x"', "{", '{"caption": ', '{"caption": null}', '{"caption": 3}', '{"caption": ["a"]}',
    '{"caption": {"caption": "A dog runs."}}', '{"caption": "", "is_decorative": true}', '{"caption": "", "is_decorative": 1}',
    "[" * 5_000, "<html>gateway</html>", "A dog runs on a beach.", '{"text": "A dog runs."}',
]  # fmt: skip


class Hostile(NamedTuple):
    """One answer of the server.

    Attributes:
        raw: The whole output; None if `text` is the caption in an output of the right form.
    """

    kind: str
    text: str = ""
    raw: str | None = None

    def order(self) -> dict[str, Any]:
        """Return what the test server is told."""
        return {"kind": "say", "text": self.text} if self.raw is None else {"kind": "say_raw", "text": self.raw}

    def read(self) -> CaptionAnswer:
        """Return the answer as the client reads it."""
        if self.raw is None:
            return CaptionAnswer(text=self.text, usage=Usage())
        (text,), flags = read_answer(self.raw)
        return CaptionAnswer(text=text, flags=flags, usage=Usage())


def make_hostile(count: int, cases: list[Case]) -> list[Hostile]:
    """Return answers, always the same for the same count and cases."""
    random_ = random.Random(_SEED)  # noqa: S311 - repeats a run, guards nothing
    by_kind = {
        "refusal": [case for case in cases if "refusal" in case.violations],
        "injection": [case for case in cases if "injection" in case.violations],
        "broken rule": [case for case in cases if case.violations],
        "any language": [case for case in cases if not case.violations],
    }

    def text_of(kind: str, sound: str) -> str:
        if kind == "length":
            return " ".join([sound] * random_.choice([0, 2, 7, 40, 2_000]))
        if kind == "control characters":
            at = random_.randrange(len(sound))
            return sound[:at] + "".join(random_.choices(_NOISE, k=random_.randint(1, 3))) + sound[at:]
        if kind == "nested":
            inner = json.dumps({"caption": sound}, ensure_ascii=random_.random() < 0.5)
            return json.dumps([inner]) if random_.random() < 0.5 else inner
        if kind == "random joint":
            parts = [random_.choice(cases).text for _ in range(random_.randint(2, 3))]
            return random_.choice(["", " ", "\n", ", "]).join(parts)
        return sound[: random_.randrange(1, len(sound))]

    def one(kind: str) -> Hostile:
        sound = random_.choice(by_kind["any language"]).text
        if kind in by_kind:
            return Hostile(kind, random_.choice(by_kind[kind]).text)
        if kind == "not the schema":
            return Hostile(kind, raw=random_.choice(_RAW))
        if kind == "markup and chatter":
            return Hostile(kind, random_.choice(_WRAPS).replace("%s", sound))
        return Hostile(kind, text_of(kind, sound))

    kinds = ["length", "control characters", "markup and chatter", "nested", "not the schema", "cut", "random joint", "refusal",
             "injection", "broken rule", "any language"]  # fmt: skip
    return [one(kinds[index % len(kinds)]) for index in range(count)]


def run_night(settings: Settings, pictures: int) -> None:
    """Land pictures and take them through the steps, without Airflow."""
    store, work = wiring.make_store(settings), wiring.make_work_area(settings)
    warehouse, ledger = wiring.make_warehouse(settings), wiring.make_ledger(settings, store)
    warehouse.create_tables()
    for number in range(pictures):
        uri = f"s3://{settings.s3_bucket}/{settings.s3_prefix}{number:05d}.png"
        store.write(uri, _picture(number), "image/png")
    request = RunRequest(run_id="fuzz", bucket=settings.s3_bucket, prefix=settings.s3_prefix, languages=LANGUAGES)
    plan = discover(store, warehouse, work, request, wiring.plan_options(settings))
    for batch in plan.batches:
        prepare(store, batch.uri, wiring.prepare_options(settings))
        caption(store, warehouse, ledger, batch.uri, wiring.make_captioner(settings), wiring.caption_options(settings))
    merge(store, warehouse, plan)


def _picture(number: int) -> bytes:
    buffer = io.BytesIO()
    image = Image.new("RGB", (24, 24), (number % 256, number // 256 * 40 % 256, 90))
    image.putpixel((number % 24, number // 24 % 24), (255, 255, 255))
    image.save(buffer, "PNG")
    return buffer.getvalue()


def broken_rows(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what is wrong with published rows; what is not published has no caption."""
    for row in rows:
        text, name = row["GPT_SUMMARY"], f"{row['FILE_NAME']} [{row['LANGUAGE']}]"
        if row["STATUS"] == "ok":
            codes = [violation.code for violation in check_caption(text, row["LANGUAGE"])]
            if codes or not text or row["SENTENCES"] != 1 or row["WORDS"] > 25 or len(text.splitlines()) != 1:
                yield f"{name} is published and breaks {codes}: {text!r}"
        elif text is not None and not (row["STATUS"] == "decorative" and text == ""):
            yield f"{name} is {row['STATUS']} with a caption: {text!r}"


def fuzz(stack: Stack, count: int, console: Console) -> list[str]:
    """Run everything, print the tables, return what broke."""
    os.environ.update(stack.environment())  # the connector reads its certificate authority there
    environment = {name.lower(): value for name, value in (stack.environment() | stack.openai_environment()).items()}
    changes: dict[str, Any] = {"s3_prefix": "fuzz/", "snowflake_schema": "FUZZ", "work_uri": "s3://images/fuzz-work"}
    changes |= {"openai_concurrency": 32, "use_tf_hint": False}
    settings = load_settings(_env_file=None, **{**environment, **changes})
    answers = make_hostile(count, read_cases(PROJECT_ROOT / "evaluation/golden"))
    control_openai(settings.openai_base_url, "reset", {})
    control_openai(settings.openai_base_url, "faults", [answer.order() for answer in answers])
    run_night(settings, math.ceil(count / len(LANGUAGES) * 0.7))

    fates: dict[str, Counter[str]] = defaultdict(Counter)
    for answer in answers:
        judgement = judge(answer.read(), "en")
        again = "asked again" if judgement.asks_again(1) else "held for a person"
        as_is = "published" if not judgement.violations else "published, mended"
        fates[answer.kind][again if judgement.caption is None else as_is] += 1
    table = Table(
        "answer",
        "count",
        *(columns := ["published", "published, mended", "asked again", "held for a person"]),
        box=None,
    )
    for kind, fate in fates.items():
        table.add_row(kind, str(fate.total()), *(str(fate[column]) for column in columns))
    console.print("As an English caption, at first asking:", table)

    rows = wiring.make_warehouse(settings).select_results(1_000_000, {})
    broken = list(broken_rows(rows))
    calls = len(control_openai(settings.openai_base_url, "calls")["calls"])
    statuses = ", ".join(f"{n} {status}" for status, n in Counter(row["STATUS"] for row in rows).most_common())
    console.print(
        f"{calls} requests, {count} hostile answers; {len(rows)} rows: {statuses}; {len(broken)} break the contract"
    )
    return broken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=2_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder))
        stack.up()
        try:
            broken = fuzz(stack, arguments.answers, Console(width=130))
        finally:
            stack.down()
    for problem in broken:
        print(problem)
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
