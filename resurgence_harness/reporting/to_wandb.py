"""Logs a gate as a run of Weights & Biases, in WANDB_PROJECT of WANDB_ENTITY; WANDB_MODE=offline keeps it in a folder.

Only what this module logs is sent: not the terminal's output, the code, the git remote, the machine or the list of
installed packages, which the library adds by default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resurgence_harness.reporting.tracking import Tracker, metrics, parameters, texts

PROJECT = "concept-resurgence"
"""The project if WANDB_PROJECT is not set."""


def start(*, title: str, folder: Path) -> Tracker:
    """Open a run; its local files go into `folder`/wandb unless WANDB_DIR is set."""
    import wandb

    settings = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        silent=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    place = None if os.environ.get("WANDB_DIR") else str(folder)
    project = os.environ.get("WANDB_PROJECT") or PROJECT
    return _Wandb(wandb, wandb.init(project=project, name=title, job_type="release-gate", dir=place, settings=settings))


class _Wandb(Tracker):
    def __init__(self, wandb: Any, run: Any) -> None:
        self._wandb, self._run = wandb, run

    def log(self, run: Mapping[str, Any], files: Sequence[Path]) -> str:
        """Parameters as config, numbers and texts as the summary, sheets as images, files as one artifact."""
        self._run.config.update(parameters(run))
        self._run.summary.update({**metrics(run), **texts(run)})
        sheets = {file.stem: self._wandb.Image(str(file)) for file in files if file.suffix == ".jpg"}
        if sheets:
            self._run.log(sheets)
        artifact = self._wandb.Artifact(f"release-gate-{self._run.id}", type="verdict")
        for file in files:
            artifact.add_file(str(file))
        self._run.log_artifact(artifact)
        return f"W&B run {self._run.id} at {self._run.url or self._run.dir}"

    def close(self, code: int) -> None:
        """End the run: finished if there is a verdict, whatever it is; else failed."""
        self._run.finish(exit_code=0 if code in (0, 1, 10) else code)
        self._wandb.teardown()  # an offline run's file is complete only after wandb's own process has ended
