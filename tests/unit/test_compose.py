"""docker-compose.yaml and Dockerfile keep what they promise, as far as that can be told without an engine."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.providers.snowflake.hooks.snowflake import SnowflakeHook
from airflow.sdk import Connection
from compose_processes import container_environment, interpolate, read_services
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from image_analyzer.connections import make_connections
from image_analyzer.errors import ConfigurationError
from image_analyzer.settings import PROJECT_ROOT, load_settings

CONNECTION_SECRETS = {
    name: f"planted-{name.lower()}"
    for name in (
        "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "SNOWFLAKE_PASSWORD", "SNOWFLAKE_PRIVATE_KEY_PASSPHRASE",
        "SNOWFLAKE_TOKEN", "OPENAI_API_KEY",
    )
}  # fmt: skip
AIRFLOW_SECRETS = {
    f"AIRFLOW_{name}": f"planted-{name.lower()}"
    for name in ("DB_PASSWORD", "REDIS_PASSWORD", "FERNET_KEY", "SECRET_KEY", "JWT_SECRET", "ADMIN_PASSWORD")
}
VARIABLES = {
    **CONNECTION_SECRETS,
    **AIRFLOW_SECRETS,
    "S3_BUCKET": "images",
    "SNOWFLAKE_ACCOUNT": "account",
    "API_KEYS": "planted-api-keys",
    "SNOWFLAKE_PRIVATE_KEY_FILE": "/home/ada/key.pem",
}
CORE = {"airflow-init", "airflow-apiserver", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer"}
WORKERS = {"airflow-worker", "airflow-worker-model", "airflow-worker-training"}
FACES = {"addon", "api"}
STORES = {"postgres", "redis"}
DOCUMENT = yaml.safe_load((PROJECT_ROOT / "docker-compose.yaml").read_text())


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services, filled in."""
    return read_services(VARIABLES)


def knowing(services: dict[str, Any], secret: str) -> set[str]:
    """Return the services whose container is given a secret: in a variable, a command or a health check."""
    return {
        name
        for name, service in services.items()
        if secret in json.dumps([container_environment(service, VARIABLES), service.get("command"), service.get("healthcheck")])
    }  # fmt: skip


def test_who_knows_what(services: dict[str, Any]) -> None:
    """Secrets of others reach init, which stores them, and the faces; workers know neither the database nor its keys.

    So does a key file.
    """
    mounting = {name for name, service in services.items() if "secrets" in service}
    assert {"airflow-init"} | FACES == mounting == knowing(services, "/run/secrets/snowflake_key")
    for secret in CONNECTION_SECRETS.values():
        assert {"airflow-init"} | FACES == knowing(services, secret), secret
    assert {"api"} == knowing(services, VARIABLES["API_KEYS"])
    assert CORE | {"postgres"} == knowing(services, "planted-db_password")
    assert CORE | WORKERS | {"redis"} == knowing(services, "planted-redis_password")
    assert {"airflow-init"} == knowing(services, "planted-admin_password")
    for name in ("fernet_key", "secret_key", "jwt_secret"):
        assert CORE == knowing(services, f"planted-{name}"), name


def test_no_argument_is_a_secret(services: dict[str, Any]) -> None:
    """Whoever is on the machine sees the arguments of every process."""
    secrets = (*CONNECTION_SECRETS.values(), *AIRFLOW_SECRETS.values())
    for name, service in services.items():
        said = json.dumps([service.get("command"), service.get("healthcheck")])
        assert not [secret for secret in secrets if secret in said], name


def test_notices_name_the_address_that_people_use() -> None:
    """A worker writes them."""
    services = read_services({**VARIABLES, "AIRFLOW_BASE_URL": "https://airflow.example"})
    for name in CORE | WORKERS:
        assert "https://airflow.example" == services[name]["environment"]["AIRFLOW__API__BASE_URL"], name


@pytest.mark.parametrize("name", [*AIRFLOW_SECRETS, "S3_BUCKET", "SNOWFLAKE_ACCOUNT"])
def test_what_is_missing_is_named(name: str) -> None:
    """Nothing starts with a password that is empty or comes with the project."""
    with pytest.raises(ConfigurationError, match=f"required variable {name} is missing"):
        read_services({**VARIABLES, name: ""})


def test_every_container_is_confined(services: dict[str, Any]) -> None:
    """None is root, may write beside its volumes, has a capability, or grows without bound."""
    assert CORE | WORKERS | FACES | STORES | {"mlflow"} == set(services)
    for name, service in services.items():
        assert service["user"] in ("50000:0", "postgres", "redis"), name
        assert (True, ["ALL"], ["no-new-privileges:true"]) == tuple(
            service[key] for key in ("read_only", "cap_drop", "security_opt")
        ), name
        assert service["mem_limit"], name
        assert {"max-size", "max-file"} == set(service["logging"]["options"]), name
        published = [port for port in service.get("ports", []) if not port.startswith("127.0.0.1:")]
        assert not published, name
        assert ("healthcheck" in service) == (name != "airflow-init"), name
    assert {"internal": True} == DOCUMENT["networks"]["inside"]
    assert {("inside",)} == {tuple(services[name]["networks"]) for name in STORES}


def test_everything_waits_for_what_it_needs(services: dict[str, Any]) -> None:
    """Each condition can hold: healthy where there is a health check, completed where it ends."""
    for name, service in services.items():
        for other, rule in service.get("depends_on", {}).items():
            ends = other == "airflow-init"
            assert ("service_completed_successfully" if ends else "service_healthy") == rule["condition"], name
    assert {"airflow-init", "postgres", "redis"} == set(services["airflow-scheduler"]["depends_on"])
    assert {"airflow-apiserver", "redis"} == set(services["airflow-worker"]["depends_on"])


def test_every_queue_has_a_worker(services: dict[str, Any]) -> None:
    """What the DAGs are told to use as queues is what workers listen to."""
    heard = {
        service["command"][service["command"].index("--queues") + 1]
        for name, service in services.items()
        if name in WORKERS
    }
    environment = services["airflow-scheduler"]["environment"]

    assert {"default", environment["HINT_QUEUE"], environment["TRAIN_QUEUE"]} == heard


def test_the_little_starts_without_profiles(services: dict[str, Any]) -> None:
    """Faces, and training with MLflow, are asked for; `all` is all of them."""
    asked = {name: tuple(service["profiles"]) for name, service in services.items() if "profiles" in service}
    assert {
        **dict.fromkeys(FACES, ("faces", "all")),
        **dict.fromkeys(("airflow-worker-training", "mlflow"), ("training", "all")),
    } == asked


def test_every_secret_that_is_kept_back_is_one_of_ours() -> None:
    """What containers are given as empty is what `make_connections` takes, so that nothing is forgotten."""
    kept = set(DOCUMENT["x-no-connection-secrets"]) - {"API_KEYS", "AWS_ACCESS_KEY_ID", "SNOWFLAKE_PRIVATE_KEY_FILE"}
    secret = {name.upper() for name, value in load_settings() if hasattr(value, "get_secret_value")}

    assert secret == kept


def test_the_image_holds_what_runs_and_no_secret() -> None:
    """Stages that are asked for exist, run as no root, and copy nothing that .dockerignore lets through by mistake."""
    text = (PROJECT_ROOT / "Dockerfile").read_text()
    stages = dict(re.findall(r"^FROM \S+ AS (\S+)\n((?:(?!FROM ).*\n?)*)", text, re.MULTILINE))
    for service in DOCUMENT["services"].values():
        if "build" in service:
            assert "USER 50000:0" in stages[service["build"]["target"]]
    ignored = (PROJECT_ROOT / ".dockerignore").read_text().splitlines()
    assert "*" == ignored[1]
    assert not [line for line in ignored if line.startswith(("!.env", "!.git", "!tests"))]
    for named in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        for source in named.split():
            assert source == "." or f"!{source.removeprefix('./')}" in ignored, source


@pytest.mark.parametrize(
    ("text", "expected"),
    [("$$HOME", "$HOME"), ("a${SET}b", "a1b"), ("${NONE:-d}", "d"), ("${SET:-d}", "1"), ("${SET:+w}", "w"), ("${NONE:+w}", "")],
)  # fmt: skip
def test_variables_are_filled_in_as_compose_does(text: str, expected: str) -> None:
    """Of Compose's notation, what our file uses."""
    assert [expected] == interpolate([text], {"SET": "1"})


def test_connections_are_those_of_the_settings() -> None:
    """An emulator's address goes with it, a session's token, too; what is not set up has none."""
    made = make_connections(
        load_settings(
            aws_access_key_id="AKIA", aws_secret_access_key="s3", aws_session_token="st", sqs_endpoint_url="http://sqs",
            snowflake_account="a", snowflake_password="pw", openai_api_key="sk", openai_base_url="http://o/v1",
        )
    )  # fmt: skip

    assert ("s3", "st") == (made["aws_default"]["password"], made["aws_default"]["extra"]["aws_session_token"])
    assert {"sqs": {"endpoint_url": "http://sqs"}} == made["aws_default"]["extra"]["service_config"]
    assert "pw" == made["snowflake_default"]["password"]
    assert {"conn_type": "openai", "password": "sk", "host": "http://o/v1"} == made["openai_default"]
    assert {} == make_connections(load_settings(aws_access_key_id="", snowflake_account="", openai_api_key=""))


def test_a_key_file_goes_into_the_connection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Airflow's hook gets the key out of it, by its passphrase; one that is not there is named."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    file = tmp_path / "key.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pp")))
    given = {"snowflake_account": "a", "snowflake_user": "u", "snowflake_private_key_passphrase": "pp"}
    made = make_connections(load_settings(**given, snowflake_private_key_file=str(file)))["snowflake_default"]
    monkeypatch.setattr(
        SnowflakeHook,
        "get_connection",
        lambda *_: Connection(conn_id="c", **{**made, "extra": json.dumps(made["extra"])}),
    )
    found = SnowflakeHook().get_private_key()

    assert isinstance(found, rsa.RSAPrivateKey)
    assert key.private_numbers() == found.private_numbers()
    with pytest.raises(ConfigurationError, match=r"none\.pem cannot be read: No such file"):
        make_connections(load_settings(**given, snowflake_private_key_file=str(tmp_path / "none.pem")))


def test_a_token_that_no_connection_can_hold_is_refused() -> None:
    """Airflow's hook asks for OAuth tokens itself; the message names what works, and not the token."""
    with pytest.raises(ConfigurationError, match="SNOWFLAKE_PRIVATE_KEY_FILE") as caught:
        make_connections(load_settings(snowflake_account="a", snowflake_token="secret-token"))
    assert "secret-token" not in str(caught.value)


def test_the_helm_values_serve_every_queue_of_the_same_airflow(services: dict[str, Any]) -> None:
    """Each queue has workers, as many tasks at once as here; the version is the locked one; no value is a secret of its own.

    The chart's probes find what they run.
    """
    text = (PROJECT_ROOT / "include" / "kubernetes" / "values.yaml").read_text()
    values = yaml.safe_load(text)
    celery = values["workers"]["celery"]
    settings = {one["name"]: one["value"] for one in yaml.safe_load(values["extraEnv"])}

    assert {"default", settings["HINT_QUEUE"]} == {celery["queue"], *(one["queue"] for one in celery["sets"])}
    command = services["airflow-worker"]["command"]
    assert command[command.index("--concurrency") + 1] == values["config"]["celery"]["worker_concurrency"]
    assert "> /entrypoint " in (PROJECT_ROOT / "Dockerfile").read_text()
    assert re.search(
        rf"^apache-airflow=={values['airflowVersion']}\b", (PROJECT_ROOT / "requirements.txt").read_text(), re.M
    )
    assert all(name.startswith("image-analyzer") for name in re.findall(r"[sS]ecretName: (\S+)", text))
