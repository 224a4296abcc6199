"""Reads fine-tuning images and captions from a folder in Hugging Face's image-folder convention.

    data/0001.png     data/metadata.jsonl     {"file_name": "0001.png", "text": "a photo of a dog"}, one row per line
                   or data/metadata.csv       the columns file_name and text
                   or data/0001.txt           without a metadata file: the caption of 0001.png

Source: https://huggingface.co/docs/datasets/image_dataset, "ImageFolder"; captions beside the images are the convention
of kohya-ss/sd-scripts. Names may contain folders (cats/0001.png). Of a metadata row only the file's name and the
caption are used; images that the metadata file does not list are not read.

Each image is decoded by Pillow as the `datasets` library does (EXIF orientation applied) and prepared as
examples/text_to_image/train_text_to_image.py of huggingface/diffusers does with --center_crop: converted to RGB, its
shorter side resized to the model's size (Lanczos, the script's default), then cropped at the centre.

Folders may come from anywhere, so a row can neither name a file outside the folder nor make Pillow allocate memory for
more than `MOST_PIXELS`. Only one image is in memory in its original size.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, NamedTuple, final

from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.specs import not_in_key

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

CAPTION_COLUMN = "text"
"""Name of the caption column in the image-folder convention."""
METADATA = ("metadata.jsonl", "metadata.csv")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""Suffixes of images that have their captions in text files beside them."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
"""Formats that Pillow may decode, whatever the suffix; it starts other programs for some others."""
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
"""Pillow's modes with at most 8 bits per channel."""
SMALLEST, LARGEST = 16, 16_384
"""Minimum and maximum length of an image's side in pixels."""
MOST_PIXELS = 89_478_485
"""Maximum number of pixels of an image, before and after resizing: Pillow's own limit against decompression bombs."""
LARGEST_IMAGE, LARGEST_METADATA, LONGEST_CAPTION = 200_000_000, 200_000_000, 10_000
"""Maximum bytes of an image file and of a metadata file, and maximum characters of a caption."""
FEWEST = 8
"""Minimum number of different images."""
HELD_OUT_SHARE, FEWEST_HELD_OUT, MOST_HELD_OUT = 5, 4, 100
"""One of how many different images is held out from training, with a minimum and a maximum number."""


class Row(NamedTuple):
    """One captioned image."""

    place: str
    """Where the row was found, for messages: "metadata.jsonl, row 3"."""
    name: str
    """Path of the image file, relative to the folder."""
    sha256: str
    """Of the image file's bytes."""
    caption: str


@final
@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """The captioned images of a folder, in order. Two folders with the same digest are equal, wherever they are."""

    digest: str
    """`digest_of` the rows."""
    rows: tuple[Row, ...] = not_in_key(())
    path: str = not_in_key("")
    """The folder, from which the images are read when they are needed."""

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _apart(self) -> frozenset[str]:
        """sha256 of the held-out images. Their order by sha256 is random, but the same wherever the folder is."""
        different = sorted({row.sha256 for row in self.rows})
        count = min(max(len(different) // HELD_OUT_SHARE, FEWEST_HELD_OUT), MOST_HELD_OUT)
        return frozenset(different[:count])

    @cached_property
    def training(self) -> tuple[Row, ...]:
        """The rows that a fine-tuning trains on."""
        return tuple(row for row in self.rows if row.sha256 not in self._apart)

    @cached_property
    def held_out(self) -> tuple[Row, ...]:
        """The rows that are never trained on: they measure the fine-tuning's effect. No image is in both parts."""
        return tuple(row for row in self.rows if row.sha256 in self._apart)

    def images(self, rows: Sequence[Row], *, height: int, width: int, batch: int = 64) -> Iterator[np.ndarray]:
        """The images of some rows in batches: uint8 [≤ batch, height, width, 3].

        UserError for a file that was changed or removed since the folder was read, or that Pillow cannot decode.
        """
        import numpy as np

        root = Path(self.path)
        for low in range(0, len(rows), batch):
            yield np.stack([_prepared(root, row, height, width) for row in rows[low : low + batch]])


def read_folder(path: Path, *, column: str = CAPTION_COLUMN) -> ImageFolder:
    """The rows of a folder, with every image's header checked. UserError that names the first wrong row.

    `column`: name of the caption column in a metadata file. Image data beyond PNG checksums are checked when `images`
    decodes them.
    """
    root = _root(path)
    found = [name for name in METADATA if (root / name).exists() or (root / name).is_symlink()]
    if len(found) > 1:
        raise _wrong(f"{_named(path)} has two metadata files.", files=", ".join(found), do="Remove one of them.")
    named = _of_metadata(root, found[0], column) if found else _of_text_files(root)
    hashes: dict[str, str] = {}
    rows = []
    for place, name, caption in named:
        if name not in hashes:
            hashes[name] = _checked(root, place, name)
        rows.append(Row(place, name, hashes[name], caption))
    different = len(set(hashes.values()))
    if different < FEWEST:
        raise _wrong(
            f"{_named(path)} has too few images for a fine-tuning.",
            different_images=different,
            at_least=FEWEST,
            do=f"Give more images: at least {FEWEST_HELD_OUT} are held out to measure the fine-tuning's effect.",
        )
    return ImageFolder(digest=digest_of(rows), rows=tuple(rows), path=str(root))


def digest_of(rows: Sequence[Row]) -> str:
    """sha256 over the (sha256 of the file's bytes, caption) of all rows, in order; names and places do not count."""
    content = json.dumps([[row.sha256, row.caption] for row in rows], separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(content.encode("ascii")).hexdigest()


# Captions


def _of_metadata(root: Path, file: str, column: str) -> Iterator[tuple[str, str, str]]:
    """(place, file name, caption) of every row of a metadata file."""
    text = _text(root, file, file, LARGEST_METADATA)
    rows = _json_rows(file, text) if file.endswith(".jsonl") else _csv_rows(file, text)
    empty = True
    for place, row in rows:
        empty = False
        for name in ("file_name", column):
            if row.get(name) is None:
                raise _wrong(
                    f"{place} has no {shown(name)}.",
                    columns=shown(", ".join(str(one) for one in row)),
                    do="Give every row a file_name and a caption; name the caption's column with "
                    "--resurgence-caption-column.",
                )
        yield place, _inner_name(place, row["file_name"]), _caption(place, row[column])
    if empty:
        raise _wrong(f"{file} has no rows.", do="Give one row per image: its file_name and its caption.")


def _json_rows(file: str, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of every line that is not blank."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{file}, row {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as problem:
            reason = "too deeply nested" if isinstance(problem, RecursionError) else problem
            raise _wrong(f"{place} is not JSON.", reason=reason, do='Write {"file_name": "…", "text": "…"}.') from None
        if not isinstance(row, dict):
            raise _wrong(f"{place} is not a JSON object.", do='Write {"file_name": "…", "text": "…"}.')
        yield place, row


def _csv_rows(file: str, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of every row below the header, counted from 1."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    number = 0
    try:
        for number, row in enumerate(reader, 1):
            place = f"{file}, row {number}"
            if None in row:
                raise _wrong(f"{place} has more values than the header.", do="Quote captions that have commas.")
            yield place, row
    except csv.Error as problem:
        raise _wrong(f"{file}, row {number + 1} is not CSV.", reason=problem, do="Save the file again.") from None


def _of_text_files(root: Path) -> Iterator[tuple[str, str, str]]:
    """(place, file name, caption) of every image in the folder itself, by name."""
    try:
        names = sorted(one.name for one in root.iterdir() if one.suffix.lower() in SUFFIXES and one.name[0] != ".")
    except OSError as problem:
        raise _unreadable(str(root), problem) from None
    if not names:
        raise _wrong(
            f"{_named(root)} has no images.",
            looked_for=f"{', '.join(METADATA)}, or {' '.join(SUFFIXES)} with a .txt beside each",
            do="Give a folder in Hugging Face's image-folder convention.",
        )
    for name in names:
        file = f"{Path(name).stem}.txt"
        if not (root / file).exists() and not (root / file).is_symlink():
            raise _wrong(
                f"The image {shown(name)} has no caption.",
                missing=shown(file),
                do=f"Write its caption into this file, or all captions into {METADATA[0]}.",
            )
        yield shown(file), name, _caption(shown(file), _text(root, file, shown(file), LONGEST_CAPTION * 4).strip())


def _caption(place: str, value: object) -> str:
    """The caption of a row; UserError for one that is not text, is empty or is too long."""
    do = "Write what the image shows, as the text that the model is trained on."
    if not isinstance(value, str):
        raise _wrong(f"The caption in {place} is not text.", caption=shown(repr(value)), do=do)
    if not value.strip():
        raise _wrong(f"The caption in {place} is empty.", do=do)
    if "\0" in value or any("\ud800" <= one <= "\udfff" for one in value):
        raise _wrong(f"The caption in {place} is not text.", caption=shown(ascii(value)), do=do)
    if len(value) > LONGEST_CAPTION:
        raise _wrong(f"The caption in {place} is too long.", characters=len(value), most=LONGEST_CAPTION, do=do)
    return value


# Files


def _root(path: Path) -> Path:
    """The folder, resolved."""
    try:
        root = path.resolve(strict=True)
        if not root.is_dir():
            raise NotADirectoryError("it is not a folder")
    except (OSError, RuntimeError, ValueError) as problem:
        raise _wrong(
            f"There is no folder of fine-tuning data at {_named(path)}.",
            reason=getattr(problem, "strerror", None) or problem,
            do="Give a folder with images and captions with --resurgence-data.",
        ) from None
    return root


def _inner_name(place: str, value: object) -> str:
    """A file name from a metadata row; UserError unless it is a relative path that cannot leave the folder."""
    do = "Give the path of the image relative to the folder, for example 0001.png."
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise _wrong(f"The file_name in {place} is not a file name.", file_name=shown(ascii(value)), do=do)
    windows = PureWindowsPath(value)
    if value.startswith("/") or windows.drive or windows.root or ".." in windows.parts:
        raise _wrong(f"The file_name in {place} leads outside the folder.", file_name=shown(value), do=do)
    return str(PurePosixPath(value))


def _bytes(root: Path, place: str, name: str, most: int) -> bytes:
    """The content of a regular file inside the folder. UserError if it is missing, outside or too large."""
    path = root / name
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(root):
            raise _wrong(
                f"{shown(name)} is a link that leads outside the folder.",
                place=place,
                do="Copy the file into the folder (cp -L follows links).",
            )
        found = real.stat()
        if not stat.S_ISREG(found.st_mode):
            raise _wrong(f"{shown(name)} is not a regular file.", place=place, do="Remove it, or its row.")
        if found.st_size > most:
            raise _wrong(f"{shown(name)} is too large.", place=place, bytes=f"{found.st_size:,}", most=f"{most:,}")
        return real.read_bytes()
    except FileNotFoundError:
        raise _wrong(
            f"The file {shown(name)} is missing.", place=place, do="Add the file, or remove its row."
        ) from None
    except (OSError, RuntimeError) as problem:
        raise _unreadable(shown(name), problem, place=place) from None


def _text(root: Path, name: str, place: str, most: int) -> str:
    """A text file inside the folder; UserError if it is not UTF-8."""
    data = _bytes(root, place, name, most)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise _wrong(
            f"{place} is not text.",
            reason=f"byte {problem.start:,} is 0x{data[problem.start]:02x}, which is not UTF-8",
            do="Save it as UTF-8.",
        ) from None


# Images


def _checked(root: Path, place: str, name: str) -> str:
    """sha256 of an image file; UserError for one that Pillow cannot open, or that is too small or too large."""
    data = _bytes(root, place, name, LARGEST_IMAGE)
    with _reading(place, name):
        _opened(place, name, data).verify()
    return hashlib.sha256(data).hexdigest()


def _prepared(root: Path, row: Row, height: int, width: int) -> np.ndarray:
    """One image of the folder, decoded, resized and cropped: uint8 [height, width, 3]."""
    import numpy as np
    from PIL import ImageOps

    data = _bytes(root, row.place, row.name, LARGEST_IMAGE)
    if hashlib.sha256(data).hexdigest() != row.sha256:
        raise _wrong(
            f"The image {shown(row.name)} was changed while the run was using it.",
            place=row.place,
            do="Leave the folder unchanged during a run; start the run again.",
        )
    with _reading(row.place, row.name):
        picture = ImageOps.exif_transpose(_opened(row.place, row.name, data)).convert("RGB")
        return np.asarray(resized_and_cropped(picture, height=height, width=width), dtype=np.uint8)


def resized_and_cropped(picture: Image, *, height: int, width: int) -> Image:
    """The picture, resized until it just covers width × height pixels, then cropped at the centre.

    For a square this is torchvision's Resize(size, LANCZOS) and CenterCrop(size) on a PIL image.
    """
    from PIL.Image import Resampling

    if picture.width * height <= picture.height * width:
        size = (width, max(width * picture.height // picture.width, height))
    else:
        size = (max(height * picture.width // picture.height, width), height)
    if size != picture.size:
        picture = picture.resize(size, Resampling.LANCZOS)
    left, top = round((size[0] - width) / 2.0), round((size[1] - height) / 2.0)
    return picture.crop((left, top, left + width, top + height))


def _opened(place: str, name: str, data: bytes) -> Image:
    """The image of a file, its data not yet decoded; UserError for a size or a format that is not accepted."""
    from PIL import Image

    picture = Image.open(io.BytesIO(data), formats=FORMATS)
    width, height = picture.size
    facts: dict[str, Any] = {"place": place, "pixels": f"{width} × {height}"}
    if min(width, height) < SMALLEST:
        raise _wrong(f"The image {shown(name)} is too small.", **facts, at_least=f"{SMALLEST} × {SMALLEST}")
    # The shorter side becomes a few hundred pixels: a narrow image would grow by the ratio of its sides.
    if max(width, height) > LARGEST or width * height > MOST_PIXELS or max(width, height) > 64 * min(width, height):
        raise _wrong(
            f"The image {shown(name)} is too large or too narrow.",
            **facts,
            most=f"{LARGEST:,} pixels a side, {MOST_PIXELS:,} in all, one side 64 times the other",
            do="Resize or crop it: for training it is resized to the model's size.",
        )
    if picture.mode not in MODES:
        raise _wrong(
            f"The image {shown(name)} has more than 8 bits per channel.",
            place=place,
            mode=picture.mode,
            do="Convert it to 8 bits per channel.",
        )
    return picture


@contextmanager
def _reading(place: str, name: str) -> Iterator[None]:
    """Turns every error of Pillow, and its warning about a decompression bomb, into a UserError with the row."""
    from PIL import Image

    bombs = (Image.DecompressionBombWarning, Image.DecompressionBombError)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about damaged EXIF data, which do not matter here
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except UserError:
        raise
    except Exception as problem:  # Pillow raises many kinds for damaged files
        raise _wrong(
            f"The image {shown(name)} {'is too large' if isinstance(problem, bombs) else 'cannot be read'}.",
            place=place,
            reason=shown(" ".join(str(problem).split()) or type(problem).__name__),
            do=f"Give an intact {', '.join(FORMATS)} file of at most {MOST_PIXELS:,} pixels, or remove its row.",
        ) from None


# Errors


def _named(path: Path) -> str:
    return shown(str(path), limit=None)


def _wrong(first: str, *, do: str = "", **facts: object) -> UserError:
    return UserError(sentence(first, do=do, **facts))


def _unreadable(name: str, problem: BaseException, **facts: object) -> UserError:
    reason = getattr(problem, "strerror", None) or str(problem)
    return _wrong(f"{name} cannot be read.", **facts, reason=reason, do="Check its permissions and its links.")
