"""Readable sizes, times, ages and counts."""

from __future__ import annotations

from datetime import timedelta


def format_size(size: int) -> str:
    """ "3.4 MB"."""
    number = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def format_time(seconds: float) -> str:
    """ "0.4 s", "12 s", "3 min", "2.5 h"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def format_age(age: timedelta) -> str:
    """ "just now", "5 min ago", "3 h ago", "12 d ago"."""
    seconds = age.total_seconds()
    if seconds < 60:
        return "just now"
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return "just now"


def format_count(number: int, noun: str) -> str:
    """ "1 cell", "1,200 cells"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
