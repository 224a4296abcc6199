"""A csv in I2P's columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tasks.i2p_csv import I2PFile


@pytest.fixture
def i2p(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> I2PFile:
    """The place of the csv, named in the environment; nothing is there yet."""
    monkeypatch.setenv("RESURGENCE_I2P", str(tmp_path / "i2p.csv"))
    monkeypatch.delenv("RESURGENCE_I2P_COLUMN", raising=False)
    return I2PFile(tmp_path / "i2p.csv")
