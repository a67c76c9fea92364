"""Settings, and the documents that must name each of them."""

import re
from pathlib import Path

import pytest

from image_analyzer.errors import ConfigurationError
from image_analyzer.settings import PROJECT_ROOT, CaptionBackend, Settings, load_settings

NAMES = {name.upper() for name in Settings.model_fields}


def test_the_example_file_is_complete() -> None:
    """`.env.example` names every setting, and nothing else but Airflow's connections and what docker-compose.yaml asks for."""
    text = (PROJECT_ROOT / ".env.example").read_text()
    named = set(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", text, re.MULTILINE))

    compose = (PROJECT_ROOT / "docker-compose.yaml").read_text()
    asked = set(re.findall(r"\$\{([A-Z0-9_]+)", compose))

    assert NAMES | asked == {name for name in named if not name.startswith("AIRFLOW_CONN_")}


def test_the_readme_documents_every_setting_with_its_default() -> None:
    """The table of the README has one row per setting, with the default that the code has."""
    table = dict(re.findall(r"^\| `([A-Z0-9_]+)` \| (.*?) \|", (PROJECT_ROOT / "README.md").read_text(), re.MULTILINE))

    assert set(table) == NAMES
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, str | int | float) and not isinstance(default, bool) and default not in ("", None):
            assert f"`{default}`" == table[name.upper()], name


@pytest.mark.parametrize(
    ("name", "value"),
    [("caption_languages", "en,klingon"), ("thumbnail_px", "9"), ("batch_size", "many")],
)
def test_a_wrong_value_names_its_setting(name: str, value: str) -> None:
    """The message says which setting is wrong."""
    with pytest.raises(ConfigurationError, match=name.upper()):
        load_settings(**{name: value})


def test_an_error_never_shows_a_secret() -> None:
    """A wrong type of a secret is reported without its value."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings(openai_api_key=["sk-very-secret"])

    assert "sk-very-secret" not in str(caught.value)
    assert "sk-very-secret" not in repr(load_settings(openai_api_key="sk-very-secret"))


@pytest.mark.parametrize(
    ("sensed", "readable"), [("incoming", "s3://b/incoming/"), ("in/coming/", "s3://b/in/coming/"), ("/", "s3://b/")]
)
def test_the_service_reads_a_folder_not_what_begins_like_it(sensed: str, readable: str) -> None:
    """Without API_PREFIXES it is the sensed prefix as a folder: `incoming` does not open `incoming-private/`."""
    assert (readable,) == load_settings(s3_bucket="b", s3_prefix=sensed).readable_prefixes


def test_languages_are_canonical_and_unique() -> None:
    """Codes get BCP 47's case, keep their order, and stand once."""
    assert ("en", "pt-BR", "zh-Hant") == load_settings(caption_languages="EN, pt-br,zh-hant,en").caption_languages


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, CaptionBackend.OFFLINE),
        ({"openai_api_key": "k"}, CaptionBackend.OPENAI),
        ({"openai_api_key": "k", "openai_send_image": "false"}, CaptionBackend.OFFLINE),
        ({"openai_api_key": "k", "caption_backend": "offline"}, CaptionBackend.OFFLINE),
    ],
)
def test_who_captions(given: dict[str, str], expected: CaptionBackend) -> None:
    """Without a key, or where images may not leave, captions are written offline."""
    assert expected is load_settings(**given).backend


def test_openai_without_images_is_a_contradiction() -> None:
    """One cannot ask for OpenAI and forbid sending images."""
    with pytest.raises(ConfigurationError, match="OPENAI_SEND_IMAGE"):
        load_settings(caption_backend="openai", openai_send_image=False)


def test_a_missing_setting_says_what_it_is_for() -> None:
    """`need` names the setting and its purpose."""
    with pytest.raises(ConfigurationError, match=r"S3_BUCKET is not set \(Bucket that images land in"):
        load_settings().need("s3_bucket")


def test_only_settings_reads_the_environment() -> None:
    """No other module of the core looks at os.environ, but for the starters of local processes; defaults for libraries pass."""
    core = PROJECT_ROOT / "include" / "image_analyzer"
    reads = re.compile(r"os\.(environ(?!\.(setdefault|update)\()|getenv)")
    readers = [p.relative_to(core) for p in core.rglob("*.py") if reads.search(p.read_text())]

    assert all(Path("local") in reader.parents for reader in readers)
