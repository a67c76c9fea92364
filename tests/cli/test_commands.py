"""The console command against the embedded stack."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Night, paint, photograph
from pipeline import Pipeline
from typer.testing import CliRunner, Result

from image_analyzer import captions, prompts
from image_analyzer.cli import app
from image_analyzer.clients.mlflow_tracker import MlflowTracker
from image_analyzer.guardrails import check_caption


class Shell:
    """A shell whose environment is a night's."""

    def __init__(self, night: Night) -> None:
        self.night = night

    def run(self, *arguments: str, **environment: str) -> Result:
        """Run `image-analyzer …`."""
        given = {**self.night.environment, "COLUMNS": "200", **environment}
        return CliRunner(env=given).invoke(app, list(arguments))


@pytest.fixture
def shell(night: Night) -> Shell:
    """A shell on a stack with empty tables."""
    shell = Shell(night)
    assert "tables are there" in shell.run("init").stdout
    return shell


@pytest.fixture
def night_with_openai(make_night: Callable[..., Night]) -> Shell:
    """A shell whose captions come from the test server."""
    shell = Shell(make_night())
    shell.run("init")
    return shell


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of pictures with a sub-folder and a hidden file."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "cat.jpg").write_bytes(photograph("chelsea.png"))
    (tmp_path / "sub" / "red.png").write_bytes(paint("red", fmt="PNG"))
    (tmp_path / ".hidden").write_bytes(b"x")
    return tmp_path


def test_from_a_folder_to_rows(shell: Shell, folder: Path) -> None:
    """Upload, plan, a night, results: what a data team does on its first day."""
    first, second = shell.run("upload", str(folder)), shell.run("upload", str(folder))
    assert "2 uploaded" in first.stdout
    assert "0 uploaded" in second.stdout
    assert "2 there already" in second.stdout

    plan = shell.run("plan").stdout
    assert "2 new or changed, in 1 batches" in plan
    assert "2 captions in en by gpt-6-luna, at most $0.0" in plan
    assert [] == shell.night.calls()

    Pipeline(shell.night).run()

    assert "0 new or changed" in shell.run("plan").stdout
    assert "0 objects under" in shell.run("plan", "--to-day", "2026-01-01").stdout
    assert (
        "--from-day 2026-01-02 is after"
        in shell.run("plan", "--from-day", "2026-01-02", "--to-day", "2026-01-01").output
    )
    stale = shell.run("plan", OPENAI_MODEL="gpt-5.6-luna").stdout
    assert "to reprocess, not part of it: model: 2 captions, at most $0.00" in stale
    chosen = shell.run("plan", "--reprocess", "model", OPENAI_MODEL="gpt-5.6-luna").stdout
    assert "2 pictures of IMAGE_RESULTS to run again, for model" in chosen
    rows = json.loads(shell.run("results", "--format", "json").stdout)
    assert {"cat.jpg", "red.png"} == {row["FILE_NAME"] for row in rows}
    table = list(csv.DictReader(io.StringIO(shell.run("results", "--format", "csv", "--status", "ok").stdout)))
    assert {row["GPT_SUMMARY"] for row in rows} == {row["GPT_SUMMARY"] for row in table}
    assert "2 rows" in shell.run("results").stdout
    assert "0 rows" in shell.run("results", "--language", "fr").stdout


def test_csv_runs_no_formula(shell: Shell) -> None:
    """A file name that a spreadsheet would run as a formula is made plain text."""
    pipeline = Pipeline(shell.night)
    pipeline.store.write(pipeline.uri("=HYPERLINK(1).jpg"), paint("red"), "image/jpeg")
    pipeline.run()

    (row,) = csv.DictReader(io.StringIO(shell.run("results", "--format", "csv").stdout))
    assert "'=HYPERLINK(1).jpg" == row["FILE_NAME"]


def test_one_picture_is_captioned_and_paid_for_once(shell: Shell, folder: Path) -> None:
    """`caption` runs the same steps; the ledger knows the answer the next time, and so does the night."""
    for _ in range(2):
        output = shell.run("caption", str(folder / "cat.jpg"), "--language", "fr").stdout
        assert "fr ok" in output
        assert "image/jpeg, 451 x 300; model (gpt-6-luna)" in output
    assert 1 == len(shell.night.calls())

    pipeline = Pipeline(shell.night)
    pipeline.land(cat__jpg=(folder / "cat.jpg").read_bytes())
    pipeline.run(languages=("fr",))

    assert 1 == len(shell.night.calls())
    assert "reused" == pipeline.rows("fr")["cat.jpg"]["CAPTION_ORIGIN"]


def test_a_single_picture_needs_no_bucket_and_no_warehouse(night: Night, folder: Path, tmp_path: Path) -> None:
    """With nothing set at all a caption is written offline; a file that is no picture says why."""
    environment = dict.fromkeys(night.environment, "") | {"LOCAL_STACK_DIR": str(tmp_path / "stack")}
    (folder / "drawing.svg").write_text("<svg/>")

    run = CliRunner(env=environment).invoke
    assert "Egyptian cat: " in run(app, ["caption", str(folder / "cat.jpg")]).stdout
    assert "unsupported_type" in run(app, ["caption", str(folder / "drawing.svg")]).output


def test_doctor_finds_everything_sound(shell: Shell) -> None:
    """One line a subject, and nothing was asked for."""
    result = shell.run("doctor")

    assert 0 == result.exit_code
    assert ["settings", "bucket", "snowflake", "captions", "model"] == [
        line.split()[1] for line in result.stdout.splitlines()
    ]
    assert [] == shell.night.calls()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"CAPTION_LANGUAGES": "en,xx"}, "CAPTION_LANGUAGES"),
        ({"S3_BUCKET": "no-such-bucket"}, "NoSuchBucket"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong-secret-value"}, "check the bucket, the credentials"),
        ({"SNOWFLAKE_SCHEMA": "NOT_INITIALISED"}, "image-analyzer init"),
        ({"SNOWFLAKE_PASSWORD": ""}, "SNOWFLAKE_PASSWORD"),
        ({"OPENAI_API_KEY": "sk-wrong-key-value"}, "check OPENAI_API_KEY"),
        ({"OPENAI_MODEL": "somebodys-model"}, "OPENAI_INPUT_USD_PER_MTOK"),
        ({"HINT_MODEL": "no-such-model"}, "USE_TF_HINT=false"),
    ],
)
def test_doctor_names_the_mend(shell: Shell, changes: dict[str, str], line: str) -> None:
    """Whatever is wrong has a FAIL line that says what to do, exit code 1, and shows no secret."""
    result = shell.run("doctor", **changes)

    (failed,) = [text for text in result.stdout.splitlines() if text.startswith("FAIL")]
    assert 1 == result.exit_code
    assert line in failed
    assert "wrong-secret-value" not in result.stdout
    assert "sk-wrong-key-value" not in result.stdout


def test_a_wrong_setting_is_one_sentence(shell: Shell) -> None:
    """An error is shown without a traceback."""
    result = shell.run("plan", BATCH_SIZE="many")

    assert 1 == result.exit_code
    assert "BATCH_SIZE" in result.stderr
    assert "Traceback" not in result.output


def test_evaluating_writes_figures_and_a_picture(shell: Shell, tmp_path: Path) -> None:
    """Judged answers give a report, JSON and exit code 0; a case that got worse is named and gives 1."""
    good = {"id": "a", "text": "A dog runs.", "language": "en", "sentences": 1, "words": 3}
    gap = {"id": "b", "text": "Sit. Stay.", "language": "en", "known_gap": "not yet"}
    cases, out = tmp_path / "cases", tmp_path / "out"
    cases.mkdir()
    (cases / "one.jsonl").write_text("\n".join(map(json.dumps, (good, gap))))

    sound = shell.run("evaluate", "--cases", str(cases), "--out", str(out))
    (cases / "two.jsonl").write_text(json.dumps({**good, "id": "c", "words": 9}))
    worse = shell.run("evaluate", "--cases", str(cases), "--out", str(out))

    assert (0, 1) == (sound.exit_code, worse.exit_code)
    assert "1 of 2 cases right" in sound.stdout
    assert "c: 3 words instead of 9" in worse.stdout
    assert (3, 1) == tuple(json.loads((out / "evaluation.json").read_text())[name] for name in ("cases", "right"))
    assert (out / "evaluation.html").read_text().count("<svg") == 2


def test_evaluating_live_captions_pictures_once(night_with_openai: Shell, folder: Path, tmp_path: Path) -> None:
    """Pictures go to the captioner in each language; figures of its answers join the report."""
    arguments = [
        "evaluate",
        "--out",
        str(tmp_path / "out"),
        "--pictures",
        str(folder),
        "--language",
        "en",
        "--language",
        "fr",
    ]
    night_with_openai.night.order({"kind": "say", "text": '"A cat sits."', "language": "en"})
    cases = tmp_path / "cases"
    cases.mkdir()
    (cases / "one.jsonl").write_text(json.dumps({"id": "a", "text": "A dog runs.", "language": "en"}))

    result = night_with_openai.run(*arguments, "--cases", str(cases))

    assert "2 of 2 captions published, 1 as they came, 1 requests" in result.stdout, result.output


class Golden:
    """Golden captions of one's own: one judged text, the demonstration's photographs, the test server as model."""

    def __init__(self, shell: Shell, folder: Path) -> None:
        self.shell, self.cases, self.out = shell, folder / "cases", folder / "out"
        self.cases.mkdir()
        (self.cases / "one.jsonl").write_text(json.dumps({"id": "a", "text": "A dog runs.", "language": "en"}))

    def run(self, *options: str, **environment: str) -> Result:
        """Run `image-analyzer evaluate`; `Result.stdout` has long lines whole."""
        return self.shell.run("evaluate", "--cases", str(self.cases), "--out", str(self.out), *options, **environment)

    def calls(self) -> int:
        """Return how many requests the model has had."""
        return len(self.shell.night.calls())


@pytest.fixture
def golden(night_with_openai: Shell, tmp_path: Path) -> Golden:
    """A champion, recorded of the test server: one answer was asked for again, one was never good."""
    made = Golden(night_with_openai, tmp_path)
    refusals = [{"kind": "say", "text": "Marie Curie smiles.", "language": "fr"}] * 2
    night_with_openai.night.order({"kind": "two_sentences", "language": "en"}, *refusals)
    accepted = made.run("--live", "--accept")
    assert 0 == accepted.exit_code, accepted.output
    assert "The champion is now" in accepted.stdout
    return made


def test_recorded_answers_come_to_the_same_and_cost_nothing(golden: Golden) -> None:
    """Nobody is asked, the figures are the champion's, second answers included; the report shows the pictures."""
    before = golden.calls()
    champion = json.loads((golden.cases / "champion.json").read_text())
    again = golden.run(OPENAI_API_KEY="")

    assert 0 == again.exit_code, again.output
    assert before == golden.calls()
    assert 44 == champion["captions"]
    assert 0.9 < champion["at_once"] < champion["published"] <= 1
    gate = json.loads((golden.out / "evaluation.json").read_text())["gate"]
    figures = ("captions", "published", "at_once", "usd_per_1000")
    assert [champion[name] for name in figures] == [gate["new"][name] for name in figures]
    assert "test server, recorded on" in gate["source"]
    assert 11 == (golden.out / "evaluation.html").read_text().count("<img ")


def test_the_gate_refuses_a_worse_prompt(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded answers cannot tell of a new prompt, and say so; asked live, one that forgets the word limit is refused."""
    asks = {
        code: {**words, "ask": "Describe this picture in one sentence."} for code, words in prompts._prompts().items()
    }
    monkeypatch.setattr(prompts, "_INSTRUCTIONS", "{field}: exactly one sentence in {language}.")
    monkeypatch.setattr(prompts, "_prompts", lambda: asks)

    recorded, live = golden.run(), golden.run("--live")

    assert (1, 1) == (recorded.exit_code, live.exit_code)
    assert "the prompt is not the one that was answered" in recorded.stdout
    assert "raise PROMPT_VERSION" in recorded.stdout
    assert "The gate refuses this: " in live.stdout
    assert "at_once 0.00%, champion" in live.stdout
    assert "usd_per_1000" in live.stdout.rsplit("refuses", 1)[-1]


def test_the_gate_refuses_another_policy(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    """A contract that has become stricter refuses captions that a person agreed to: each is named."""
    strict = check_caption
    monkeypatch.setattr(
        captions, "check_caption", lambda text, language, **more: strict(text + " " + text, language, **more)
    )

    result = golden.run()

    assert 1 == result.exit_code
    assert "coffee.png [en]: " in result.stdout
    assert "published 0.00%" in result.stdout


def test_nothing_is_accepted_that_says_nothing(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a session without answers nor answers to another prompt become champion; without a champion nothing passes."""
    files = {name: (golden.cases / name).read_text() for name in ("champion.json", "recording.json")}
    dead = golden.run("--live", "--accept", OPENAI_BASE_URL="http://127.0.0.1:9/v1", OPENAI_MAX_ATTEMPTS="1")
    with monkeypatch.context() as patch:
        patch.setattr(prompts, "_INSTRUCTIONS", "{field}: exactly one sentence in {language}.")
        stale = golden.run("--accept")

    assert "44 golden captions have no answer" in dead.output.replace("\n", " ")
    assert "not accepted: the prompt is not the one" in stale.output.replace("\n", " ")
    assert files == {name: (golden.cases / name).read_text() for name in files}
    (golden.cases / "champion.json").unlink()
    assert (1, True) == ((found := golden.run()).exit_code, "no champion.json" in found.stdout)
    (golden.cases / "champion.json").write_text(files["champion.json"])
    (golden.cases / "recording.json").unlink()
    assert (1, True) == (
        (found := golden.run()).exit_code,
        "recording.json is missing" in found.output.replace("\n", " "),
    )


def test_another_model_needs_answers_of_its_own(golden: Golden) -> None:
    """Recorded answers of one model, or at one image detail, say nothing of another."""
    result = golden.run(OPENAI_MODEL="gpt-6-sol", OPENAI_INPUT_USD_PER_MTOK="1", OPENAI_OUTPUT_USD_PER_MTOK="1")

    assert 1 == result.exit_code
    assert "not of gpt-6-sol" in result.stdout
    without_key = golden.run(OPENAI_MODEL="gpt-6-sol", OPENAI_API_KEY="")
    assert (1, True) == (without_key.exit_code, "not of gpt-6-sol" in without_key.stdout), (
        "nor where nobody could be asked"
    )
    assert "not of gpt-6-luna at image detail low" in golden.run(OPENAI_IMAGE_DETAIL="low").stdout


def test_evaluations_are_kept_in_mlflow(golden: Golden, tmp_path: Path) -> None:
    """Figures, versions, report and answers are with the run, and whether the gate let it pass."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert 0 == golden.run("--track", MLFLOW_TRACKING_URI=uri).exit_code

    client = MlflowTracker(uri, None)._client
    (experiment,) = [e for e in client.search_experiments() if e.name == "captions"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert {"model", "prompt_version", "policies"} == set(run.data.params)
    assert "passed" == run.data.tags["gate"]
    assert {"published", "usd_per_1000", "code_multi_sentence_recall"} <= set(run.data.metrics)
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"evaluation.html", "evaluation.json", "recording.json"} == files


def test_live_golden_captions_need_a_model(shell: Shell, tmp_path: Path) -> None:
    """Without a key `--live` says which setting; `--accept` without answers says what to add."""
    golden = Golden(shell, tmp_path)
    assert "OPENAI_API_KEY" in golden.run("--live", OPENAI_API_KEY="").stderr
    assert "add --live" in golden.run("--accept", OPENAI_API_KEY="").stderr


@pytest.mark.parametrize(
    ("content", "said"), [(None, "holds no cases"), ("{", "no case"), ('{"id": "a", "text": "b"}', "language")]
)
def test_what_are_no_cases_is_said(shell: Shell, tmp_path: Path, content: str | None, said: str) -> None:
    """An empty folder or a broken line is named."""
    if content is not None:
        (tmp_path / "one.jsonl").write_text(content)

    result = shell.run("evaluate", "--cases", str(tmp_path), "--out", str(tmp_path))

    assert 1 == result.exit_code
    assert said in result.stderr


def test_every_command_explains_itself(make_night: Callable[..., Night]) -> None:
    """`--help` of each command says what it does."""
    shell = Shell(make_night())
    for command in ("init", "upload", "caption", "plan", "results", "doctor", "local", "model", "evaluate"):
        result = shell.run(command, "--help")
        assert 0 == result.exit_code
        assert len(result.stdout) > 150
        assert command in shell.run("--help").stdout
