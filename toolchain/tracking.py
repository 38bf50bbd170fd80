"""A release in MLflow: a run with its parameters, figures and files, and its bundles registered."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import Error, MissingError
from .packing import bundle_name
from .run import Run

if TYPE_CHECKING:
    from .release import Outcome


def track(uri: str, run: Run, outcome: "Outcome") -> str:
    """Log a release to the MLflow at `uri`; the run's id.

    The experiment is the bundle's name. Bundles of a release whose gates hold are registered as a
    new version of the model of that name; those of another are not made.

    Raises:
        MissingError: MLflow is not installed.
        Error: it cannot be reached, or refuses what is logged.
    """
    try:
        from mlflow import (  # pyright: ignore[reportMissingImports]
            MlflowClient,
        )
    except ImportError as error:
        mend = "pip install 'llmdeploy[mlflow]'"
        raise MissingError("mlflow is not installed", mend=mend) from error
    try:
        return _logged(MlflowClient(tracking_uri=uri, registry_uri=uri), run, outcome)
    except Exception as error:
        what = f"MLflow does not take it: {' '.join(str(error).split())[:300]}"
        raise Error(what, where=uri) from error


def _logged(client: Any, run: Run, outcome: "Outcome") -> str:
    name, report = bundle_name(run), outcome.report
    known = client.get_experiment_by_name(name)
    experiment = known.experiment_id if known else client.create_experiment(name)
    tags = {"llmdeploy.verdict": report.verdict, "llmdeploy.version": run.config.bundle.version}
    made = client.create_run(experiment, run_name=run.config.bundle.version, tags=tags)
    key = made.info.run_id
    asked = run.config.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    for path, value in _flat(asked):
        client.log_param(key, path, str(value)[:500])
    for metric, value in _figures(outcome):
        client.log_metric(key, metric, value)
    for file in outcome.files:
        client.log_artifact(key, str(file))
    for bundle in report.bundles:
        _registered(client, name, key, Path(bundle.path), bundle.kind)
    client.set_terminated(key, "FINISHED" if outcome.exit_code == 0 else "FAILED")
    return key


def _registered(client: Any, name: str, key: str, path: Path, kind: str) -> None:
    place = f"bundle/{kind}"
    if path.is_dir():
        client.log_artifacts(key, str(path), f"{place}/{path.name}")
    else:
        client.log_artifact(key, str(path), place)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    source = f"{client.get_run(key).info.artifact_uri}/{place}/{path.name}"
    client.create_model_version(name, source, run_id=key, tags={"llmdeploy.kind": kind})


def _figures(outcome: "Outcome") -> Iterator[tuple[str, float]]:
    """Every figure that was measured, by the name of what it is of."""
    report = outcome.report
    for gate in report.gates:
        if isinstance(gate.value, (int, float)):
            yield f"gate.{gate.name}", float(gate.value)
    for score in report.scores:
        if score.value is not None:
            yield f"score.{score.name}", float(score.value)
    for stage in report.stages:
        yield f"seconds.{stage.name}", float(stage.seconds)
        yield f"bytes.{stage.name}", float(stage.size_bytes)
    for timing in report.latency:
        shape = f"{timing.batch}x{timing.sequence}"
        if timing.median_ms is not None:
            yield f"median_ms.{timing.name}.{shape}".replace(" ", "-"), float(timing.median_ms)


def _flat(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value
