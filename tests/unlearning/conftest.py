"""The tiny Stable Diffusions of these tests."""

from __future__ import annotations

from tests.two_models import load, model, v1, v2, xl

__all__ = ["load", "model", "v1", "v2", "xl"]
