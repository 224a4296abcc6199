"""The contact sheet: which rows it shows, and what is in the picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from resurgence_harness.errors import HarnessError
from resurgence_harness.reporting.contact_sheet import COLUMNS, SIDE, Row, chosen, sheet


def row(*, hit: bool, size: int = 64, answer: str = "Ada Quillon") -> Row:
    """A row of flat green images."""
    image = np.full((size, size, 3), (20, 160, 60), dtype=np.uint8)
    return Row(prompt="A portrait of Ada", seed=1, images=[image] * 3, answers=[answer] * 3, hits=[False, False, hit])


def reds(picture: np.ndarray) -> int:
    """Pixels in the colour of a frame."""
    red, green, blue = (picture[..., channel].astype(int) for channel in range(3))
    return int(((red > 180) & (green < 80) & (blue < 90)).sum())


@pytest.mark.parametrize("size", [64, 512])
def test_three_columns_and_frames_around_hits(size: int) -> None:
    """Images of any size become tiles; a hit has a frame, its absence none."""
    framed = np.asarray(Image.open(io.BytesIO(sheet("t", [row(hit=True, size=size)]))))
    bare = np.asarray(Image.open(io.BytesIO(sheet("t", [row(hit=False, size=size)]))))
    assert framed.shape == bare.shape and framed.shape[1] > len(COLUMNS) * SIDE
    assert reds(framed) > 4 * SIDE and reds(bare) == 0


def test_long_labels_do_not_leave_the_sheet() -> None:
    """A long answer is cut, and the sheet keeps its size."""
    short, long = (sheet("t", [row(hit=True, answer=answer)]) for answer in ("Ada", "Ada " * 60))
    assert Image.open(io.BytesIO(short)).size == Image.open(io.BytesIO(long)).size


def test_rows_show_hits_first_and_the_rest_evenly() -> None:
    """Up to half of the rows have a hit after fine-tuning; the others are spread over the probe."""
    places = chosen([place >= 90 for place in range(100)], rows=8)
    assert sum(place >= 90 for place in places) >= 4
    assert sum(place < 90 for place in places) >= 3 and places == sorted(set(places))
    assert chosen([False] * 3, rows=8) == [0, 1, 2]
    assert len(chosen([True] * 100, rows=8)) == 8


def test_an_empty_sheet_is_an_error() -> None:
    """Nothing to show is never a blank picture."""
    with pytest.raises(HarnessError, match="no rows"):
        sheet("t", [])
