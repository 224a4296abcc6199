"""Watching a run: what every process is doing, the rates and bounds so far, and how long it still takes.

    Recorder (in each process) ──events──▶ Course (where the run is shown) ──▶ Screen: a live view, or plain lines

An event is a small JSON object. Workers append theirs to a file in the run's folder; a run of one process passes them
on directly. `forecast` holds the model of the remaining time, which is computed from the events alone, so that a
recorded run can be replayed.
"""

from __future__ import annotations

from resurgence_harness.watching.course import Course
from resurgence_harness.watching.forecast import Work
from resurgence_harness.watching.planned import CellWork, ToPlan, cell_work
from resurgence_harness.watching.recorder import EventFiles, EventWriter, Recorder, word
from resurgence_harness.watching.screen import EVERY, Screen, View, watched

__all__ = [
    "EVERY",
    "CellWork",
    "Course",
    "EventFiles",
    "EventWriter",
    "Recorder",
    "Screen",
    "ToPlan",
    "View",
    "Work",
    "cell_work",
    "watched",
    "word",
]
