"""Logs a gate as a run of MLflow, to MLFLOW_TRACKING_URI, in the experiment MLFLOW_EXPERIMENT_NAME."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resurgence_harness.errors import shown
from resurgence_harness.reporting.tracking import Tracker, metrics, parameters, texts

LONGEST, MOST_PARAMETERS, MOST_METRICS, MOST_TAGS = 5000, 100, 1000, 100
"""Characters of a value, and entries in one request, that every version of MLflow's server accepts."""
RETRIES = "2"
"""Retries of a request unless the environment sets them; MLflow's default of seven takes minutes to give up."""


def start(*, title: str, folder: Path) -> Tracker:
    """Open a run; `folder` is not used."""
    del folder
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # the URL may hold credentials
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", RETRIES)
    import mlflow

    run = mlflow.start_run(run_name=title, tags={"kind": "release gate"})
    return _Mlflow(mlflow, run.info.run_id)


class _Mlflow(Tracker):
    def __init__(self, mlflow: Any, run_id: str) -> None:
        self._mlflow, self._run_id = mlflow, run_id

    def log(self, run: Mapping[str, Any], files: Sequence[Path]) -> str:
        """Parameters, metrics, texts as tags, files as artifacts."""
        settings = {_key(name): shown(value, limit=LONGEST) for name, value in parameters(run).items()}
        tags = {_key(name): shown(value, limit=LONGEST) for name, value in texts(run).items()}
        measured = {_key(name): value for name, value in metrics(run).items()}
        for send, pairs, most in (
            (self._mlflow.log_params, settings, MOST_PARAMETERS),
            (self._mlflow.set_tags, tags, MOST_TAGS),
            (self._mlflow.log_metrics, measured, MOST_METRICS),
        ):
            names = sorted(pairs)
            for first in range(0, len(names), most):
                send({name: pairs[name] for name in names[first : first + most]})
        for file in files:
            self._mlflow.log_artifact(str(file))
        return f"MLflow run {self._run_id} at {self._mlflow.get_tracking_uri()}"

    def close(self, code: int) -> None:
        """End the run: FINISHED if there is a verdict, whatever it is; else FAILED."""
        self._mlflow.end_run("FINISHED" if code in (0, 1, 10) else "FAILED")


def _key(name: str) -> str:
    """A name that MLflow accepts: letters, digits, and _ - . / and spaces."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "_-. /") else "_" for c in name)
    return "/".join(part.strip(".") or "_" for part in plain.split("/"))[:250]
