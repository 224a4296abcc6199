"""Unlearning methods, one file each. A new one is a file, an entry here, a row in tests/unlearning/test_contract.py."""

from __future__ import annotations

from resurgence_harness.unlearning.closed_form import CaptionFile, CaptionSample
from resurgence_harness.unlearning.contract import Unlearning
from resurgence_harness.unlearning.erasediff import AdaptiveWeight, EraseDiff, FixedWeight
from resurgence_harness.unlearning.esd import ESD
from resurgence_harness.unlearning.given import Given, GivenModel
from resurgence_harness.unlearning.mace import MACE, ScaledOnce, ScaledTwice
from resurgence_harness.unlearning.mace_lora import (
    FocalTimesteps,
    FrobeniusNorm,
    SquaredFrobeniusNorm,
    UniformTimesteps,
)
from resurgence_harness.unlearning.masks import AttentionMasks, GivenMasks, SegmentedMasks, WholeImage
from resurgence_harness.unlearning.projection import GradientMemory, NoProjection
from resurgence_harness.unlearning.redirection import NameReplaced, TextReplaced
from resurgence_harness.unlearning.saliency import Denoising, Guided
from resurgence_harness.unlearning.salun import MostSalient, SalUn, Unmasked
from resurgence_harness.unlearning.scissorhands import SHS, Ascend, KaimingUniform, Redirect, TruncatedNormal
from resurgence_harness.unlearning.sdd import SDD, StudentOutput, TeacherOutput
from resurgence_harness.unlearning.uce import UCE, LastSubjectToken, SubjectAndAfter

__all__ = [
    "ESD",
    "MACE",
    "SDD",
    "SHS",
    "UCE",
    "AdaptiveWeight",
    "Ascend",
    "AttentionMasks",
    "CaptionFile",
    "CaptionSample",
    "Denoising",
    "EraseDiff",
    "FixedWeight",
    "FocalTimesteps",
    "FrobeniusNorm",
    "Given",
    "GivenMasks",
    "GivenModel",
    "GradientMemory",
    "Guided",
    "KaimingUniform",
    "LastSubjectToken",
    "MostSalient",
    "NameReplaced",
    "NoProjection",
    "Redirect",
    "SalUn",
    "ScaledOnce",
    "ScaledTwice",
    "SegmentedMasks",
    "SquaredFrobeniusNorm",
    "StudentOutput",
    "SubjectAndAfter",
    "TeacherOutput",
    "TextReplaced",
    "TruncatedNormal",
    "UniformTimesteps",
    "Unlearning",
    "Unmasked",
    "WholeImage",
]
