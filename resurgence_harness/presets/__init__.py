"""The words of methods and profiles, and every value that a person may want to tune for a model of one size.

    methods.py      which step a word stands for            profiles.py      named sizes of a run
    micro.py        the embedded microworld's values        sd.py            Stable Diffusion's, from recipes.py
    settings.py     where a cell's values come together     choices.py       values as people write them

Single values are changed with `--resurgence-set esd.iterations=500` or a file (settings_file.py); what was changed is
printed and recorded with the verdict. docs/settings.md lists them all (`python -m resurgence_harness.presets`).
"""

from __future__ import annotations

from resurgence_harness.presets.bases import check_size, image_of, preset_of
from resurgence_harness.presets.choices import plain, written
from resurgence_harness.presets.choices import read as choice
from resurgence_harness.presets.methods import METHODS, SEVEN, Method, check_names
from resurgence_harness.presets.profiles import PROFILES, Profile
from resurgence_harness.presets.settings import (
    OF_TASK,
    OF_VARIANT,
    PRESETS,
    Settings,
    parse_change,
    settings_for,
    settings_of,
)
from resurgence_harness.presets.settings_file import SettingsFile, read_settings
from resurgence_harness.presets.values import ByCount, FromTask, OwnPictures, PerPreserved

__all__ = [
    "METHODS",
    "OF_TASK",
    "OF_VARIANT",
    "PRESETS",
    "PROFILES",
    "SEVEN",
    "ByCount",
    "FromTask",
    "Method",
    "OwnPictures",
    "PerPreserved",
    "Profile",
    "Settings",
    "SettingsFile",
    "check_size",
    "check_names",
    "choice",
    "image_of",
    "parse_change",
    "plain",
    "preset_of",
    "read_settings",
    "settings_for",
    "settings_of",
    "written",
]
