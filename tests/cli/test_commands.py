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

from image_analyzer.cli import app


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
    assert "unsupported_type" in run(app, ["caption", str(folder / "drawing.svg")]).stdout


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


def test_every_command_explains_itself(make_night: Callable[..., Night]) -> None:
    """`--help` of each command says what it does."""
    shell = Shell(make_night())
    for command in ("init", "upload", "caption", "plan", "results", "doctor", "local", "model"):
        result = shell.run(command, "--help")
        assert 0 == result.exit_code
        assert len(result.stdout) > 150
        assert command in shell.run("--help").stdout
