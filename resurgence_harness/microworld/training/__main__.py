"""`python -m resurgence_harness.microworld.training STAGE --out DIR [--layout xl] [--smoke]`."""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.microworld.training.settings import FULL, SMOKE, XL, XL_SMOKE
from resurgence_harness.process import ExitCode, guarded


def main() -> ExitCode | None:
    """Run one stage or all of them; returns an exit code only if argument parsing ends the command."""
    parser = argparse.ArgumentParser(prog="python -m resurgence_harness.microworld.training", description=__doc__)
    parser.add_argument(
        "stage", choices=["autoencoder", "text", "judges", "perception", "calibration", "denoiser", "bars", "all"]
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the weights; a stage reads those of earlier stages there"
    )
    parser.add_argument("--smoke", action="store_true", help="the same code at a size that takes seconds")
    parser.add_argument(
        "--layout", choices=["sd", "xl"], default="sd", help="Stable Diffusion's layout, or SDXL's (micro-xl)"
    )
    parser.add_argument(
        "--least",
        type=float,
        help="with bars: exit code 1 unless every detection at every --guidance is at least this share",
    )
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="override values of settings.py")
    parser.add_argument(
        "--guidance",
        type=float,
        nargs="*",
        default=[3.0, 5.0, 7.5],
        help="guidance scales at which the bars are measured",
    )
    try:
        args = parser.parse_args()
    except SystemExit as left:  # argparse exits with 0 after --help, else with 2
        return ExitCode(int(left.code or 0))
    settings = {"sd": (FULL, SMOKE), "xl": (XL, XL_SMOKE)}[args.layout][args.smoke]
    shared = args.layout == "xl"  # autoencoder and judges are the shipped ones
    for argument in args.set:
        name, _, value = argument.partition("=")
        try:
            kind = type(getattr(settings, name))
            parsed = tuple(int(v) for v in value.split(",")) if kind is tuple else kind(value)
        except (AttributeError, TypeError, ValueError) as error:
            do = "Names and values are in settings.py."
            raise UserError(sentence(f"--set {shown(argument)} cannot be used.", reason=error, do=do)) from None
        changed: dict[str, Any] = {name: parsed}
        settings = dataclasses.replace(settings, **changed)
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(sentence(f"{args.out} cannot be created.", reason=reason, do="Give another --out.")) from None
    began = time.monotonic()
    if args.stage in ("autoencoder", "all") and shared:
        from resurgence_harness.microworld.training.autoencoder import share_autoencoder

        share_autoencoder(args.out)
    elif args.stage in ("autoencoder", "all"):
        from resurgence_harness.microworld.training.autoencoder import train_autoencoder

        train_autoencoder(args.out, settings, device)
    if args.stage in ("text", "perception", "all"):
        from resurgence_harness.microworld.training.perception import train_text_encoder

        train_text_encoder(args.out, settings, device)
    if args.stage in ("judges", "perception", "all") and not shared:
        from resurgence_harness.microworld.training.perception import train_judges

        train_judges(args.out, settings, device)
    if args.stage == "calibration":
        from resurgence_harness.microworld.training.perception import calibrate_judges

        calibrate_judges(args.out, settings, device)
    if args.stage in ("denoiser", "all"):
        from resurgence_harness.microworld.training.denoiser import train_denoiser

        train_denoiser(args.out, settings, device)
    low: list[str] = []
    if args.stage in ("denoiser", "bars", "all") and (shared or (args.out / "judges" / "calibration.json").exists()):
        from resurgence_harness.microworld.training.bars import measure

        for guidance, rows in measure(args.out, settings, device, tuple(args.guidance)).items():
            low += [
                f"{row} at guidance {guidance}: {hits} of {images}"
                for row, (hits, images) in rows.items()
                if args.least is not None and hits < args.least * images
            ]
    print(f"{args.stage}: {time.monotonic() - began:.0f} s", flush=True)
    for row in low:
        print(f"below {args.least}: {row}", flush=True)
    return ExitCode.REGRESSION if low else None


if __name__ == "__main__":
    guarded(main)
