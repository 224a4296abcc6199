"""Names of methods and profiles, and every value that can be tuned, for each size of model.

    methods.py      the step of each method's name          profiles.py      named sizes of a run
    micro.py        the embedded microworld's values        sd.py, sdxl.py   Stable Diffusion's, from recipes.py
    settings.py     combines a cell's values                choices.py       parses and writes values

Single values are changed with `--resurgence-set esd.iterations=500` or a file (settings_file.py); changes are printed
and recorded with the verdict. docs/settings.md lists all values (`python -m resurgence_harness.presets`).
"""

from __future__ import annotations

from resurgence_harness.presets.bases import check_size, image_of, preset_of
from resurgence_harness.presets.choices import plain, written
from resurgence_harness.presets.choices import read as choice
from resurgence_harness.presets.commands import register_commands
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
    "register_commands",
    "settings_for",
    "settings_of",
    "written",
]
