"""Trainings and evaluations in MLflow: runs, figures, files, and the registry with its champion."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from image_analyzer.errors import ConfigurationError, RetryableError

CHAMPION = "champion"
# Folder of a run that holds what the nightly run loads.
HINT_MODEL = "hint_model"
_MODEL_TAG = "hint_model"
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


class Version(NamedTuple):
    """A registered model.

    Attributes:
        folder_name: Name of its folder below `models/`, which is also what rows carry.
    """

    registered_name: str
    version: str
    run_id: str
    folder_name: str


class MlflowTracker:
    """An MLflow store.

    Args:
        uri: Of a server, or of a store on this machine.
        artifacts: Folder for files where the store on this machine is a database.
    """

    def __init__(self, uri: str, artifacts: Path | None) -> None:
        # MLflow would tell its makers of every run; nothing leaves unless the user's store is elsewhere.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # noqa: TID251 - read by MLflow when it is imported
        import mlflow

        self._mlflow, self._artifacts = mlflow, artifacts
        self.uri = _masked(uri)  # as it may be shown
        address = urlsplit(uri)
        if address.scheme in ("http", "https") and address.password:
            # MLflow prints the address it is given, into logs, too: a password goes another way.
            user, password = unquote(address.username or ""), unquote(address.password)
            os.environ.update(MLFLOW_TRACKING_USERNAME=user, MLFLOW_TRACKING_PASSWORD=password)  # noqa: TID251
            uri = self.uri
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        self._client = mlflow.MlflowClient()

    @contextmanager
    def run(self, experiment: str, name: str, run_id: str | None = None) -> Iterator[str]:
        """Open a run, or go on with an earlier one; yields its id. It is marked failed if an error gets out.

        Raises:
            RetryableError: The store does not answer.
        """
        with _mapped_errors(self.uri):
            experiment_id = self._experiment(experiment)
            active = self._mlflow.start_run(run_id=run_id, experiment_id=experiment_id, run_name=name)
        status = "FAILED"
        try:
            yield str(active.info.run_id)
            status = "FINISHED"
        finally:
            self._mlflow.end_run(status)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Open a child run in which Keras logs itself. Children that a killed process left open are marked so."""
        self._mlflow.tensorflow.autolog(log_models=False, log_datasets=False, checkpoint=False, silent=True)
        open_run: Any = self._mlflow.active_run()
        parent = open_run.info
        left = f"tags.mlflow.parentRunId = '{parent.run_id}' and attributes.status = 'RUNNING'"
        with _mapped_errors(self.uri):
            for child in self._client.search_runs([parent.experiment_id], left):
                self._client.set_terminated(child.info.run_id, "KILLED")
        with self._mlflow.start_run(experiment_id=parent.experiment_id, run_name=name, nested=True):
            yield

    def knows(self, run_id: str) -> bool:
        """Tell whether there is such a run, and it was not deleted."""
        from mlflow.exceptions import MlflowException

        with _mapped_errors(self.uri):
            try:
                return bool(self._client.get_run(run_id).info.lifecycle_stage == "active")
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return False
                raise

    def log(self, params: Mapping[str, Any], metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Log figures of the open run."""
        with _mapped_errors(self.uri):
            self._mlflow.log_params(dict(params))
            self._mlflow.log_metrics(dict(metrics))
            self._mlflow.set_tags(dict(tags))

    def log_epochs(self, prefix: str, history: Sequence[Mapping[str, float]]) -> None:
        """Log what each epoch of a phase came to, with the open run."""
        with _mapped_errors(self.uri):
            for epoch, figures in enumerate(history):
                named = {f"{prefix}_{name}": value for name, value in figures.items() if name != "epoch"}
                self._mlflow.log_metrics(named, step=epoch)

    def log_file(self, name: str, content: bytes) -> None:
        """Keep a file with the open run."""
        folder, _, file_name = name.rpartition("/")
        with _mapped_errors(self.uri), tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / file_name
            path.write_bytes(content)
            self._mlflow.log_artifact(str(path), folder or None)

    def log_folder(self, folder: Path, name: str) -> None:
        """Keep a folder with the open run."""
        with _mapped_errors(self.uri):
            self._mlflow.log_artifacts(str(folder), name)

    def register(self, network: Any, inputs: Any, registered_name: str, run_id: str, folder_name: str) -> Version:
        """Register the open run's network once; a run that registered before gets the same version.

        Args:
            inputs: One picture's, to say what the model takes and gives.
        """
        with _mapped_errors(self.uri):
            of_run = [v for v in self._versions(f"name = '{registered_name}'") if v.run_id == run_id]
            if not of_run:
                signature = self._mlflow.models.infer_signature(inputs, network.predict_on_batch(inputs))
                self._mlflow.tensorflow.log_model(
                    network,
                    name="keras_model",
                    signature=signature,
                    registered_model_name=registered_name,
                    pip_requirements=["tensorflow"],
                )
                of_run = [v for v in self._versions(f"name = '{registered_name}'") if v.run_id == run_id]
            made = of_run[0]
            # Also of a version that is there: a training may have been killed between the two.
            self._client.set_model_version_tag(registered_name, made.version, _MODEL_TAG, folder_name)
            return made._replace(folder_name=folder_name)

    def champion(self, registered_name: str) -> Version | None:
        """Return the version with the alias `champion`; None if there is none."""
        return self.find_alias(registered_name, CHAMPION)

    def find_alias(self, registered_name: str, alias: str) -> Version | None:
        """Return the version with an alias; None if there is none."""
        from mlflow.exceptions import MlflowException

        try:
            found = self._client.get_model_version_by_alias(registered_name, alias)
        except MlflowException as error:
            if error.error_code in _ABSENT:
                return None
            raise RetryableError(f"MLflow at {self.uri}: {_masked(str(error.message))}") from None
        return _version(found)

    def crown(self, version: Version) -> None:
        """Give a version the alias `champion`."""
        with _mapped_errors(self.uri):
            self._client.set_registered_model_alias(version.registered_name, CHAMPION, version.version)

    def find(self, wanted: str) -> Version:
        """Return what `RUN`, `ALIAS` or `NAME@ALIAS` means.

        Raises:
            ConfigurationError: Nothing, or more than one model.
        """
        name, _, alias = wanted.rpartition("@")
        with _mapped_errors(self.uri):
            versions = self._versions(f"name = '{name}'" if name else "")
            names = dict.fromkeys(version.registered_name for version in versions)
        found = [v for v in versions if v.run_id == wanted]
        found = found or [v for known in names if (v := self.find_alias(known, alias)) is not None]
        if len(found) == 1:
            return found[0]
        if found:
            choices = " or ".join(f"{v.registered_name}@{alias}" for v in found)
            raise ConfigurationError(f"{wanted} is ambiguous: say {choices}")
        known = ", ".join(f"{v.registered_name} version {v.version} (run {v.run_id})" for v in versions) or "no model"
        raise ConfigurationError(f"there is no model {wanted}: `models/` has no such folder, MLflow has {known}")

    def fetch(self, run_id: str, name: str, folder: Path) -> Path:
        """Bring a file or folder of a run here; return where it lies.

        Raises:
            ConfigurationError: The run has no such file.
        """
        from mlflow.exceptions import MlflowException

        try:
            return Path(self._mlflow.artifacts.download_artifacts(f"runs:/{run_id}/{name}", dst_path=str(folder)))
        except (MlflowException, OSError) as error:
            if isinstance(error, MlflowException) and error.error_code not in _ABSENT:
                raise RetryableError(f"MLflow at {self.uri}: {_masked(str(error))}") from None
            raise ConfigurationError(f"run {run_id} has no {name}: {_masked(str(error))}") from None

    def _versions(self, filter_string: str) -> list[Version]:
        return [_version(version) for version in self._client.search_model_versions(filter_string)]

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        place = self._artifacts.as_uri() + f"/{name}" if self._artifacts else None
        return str(self._client.create_experiment(name, artifact_location=place))


def _version(found: Any) -> Version:
    return Version(found.name, str(found.version), found.run_id, found.tags.get(_MODEL_TAG, found.name))


@contextmanager
def _mapped_errors(uri: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        raise RetryableError(f"MLflow at {uri}: {_masked(str(error))}") from None


def _masked(text: str) -> str:
    """Return a text in which addresses have no password."""
    return re.sub(r"//[^/@\s]*@", "//", text)
