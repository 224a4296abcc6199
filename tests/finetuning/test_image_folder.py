"""Image folders: every convention gives the same rows, and every bad input is one sentence that names its row."""

from __future__ import annotations

import csv
import os
import random
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from resurgence_harness.errors import UserError
from resurgence_harness.finetuning.image_folder import (
    FEWEST,
    MOST_HELD_OUT,
    ImageFolder,
    Row,
    digest_of,
    read_folder,
    resized_and_cropped,
)
from tests.finetuning.pictures import captions_for, picture, rows_of, write_folder, write_pictures, write_rows

# Conventions


def as_csv(folder: Path, names: list[str]) -> None:
    """metadata.csv, as a spreadsheet saves it, with a column that is not used."""
    with (folder / "metadata.csv").open("w", encoding="utf-8-sig", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "source", "text"])
        rows.writerows([name, "own, 2024", text] for name, text in zip(names, captions_for(names), strict=True))


def as_text_files(folder: Path, names: list[str]) -> None:
    """A .txt beside each image, and files that are no images."""
    for name, text in zip(names, captions_for(names), strict=True):
        (folder / name).with_suffix(".txt").write_text(text + "\n", encoding="utf-8")
    (folder / "LICENSE").write_text("CC0", encoding="utf-8")
    (folder / "._0000.png").write_bytes(b"macOS")


@pytest.mark.parametrize("write", [lambda folder, names: write_rows(folder, rows_of(names)), as_csv, as_text_files])
def test_every_convention_gives_the_same_rows(tmp_path: Path, write: Callable[[Path, list[str]], None]) -> None:
    """JSON lines, CSV and text files: same images, same captions, same digest."""
    names = write_pictures(tmp_path)
    write(tmp_path, names)

    found = read_folder(tmp_path)

    assert [(row.name, row.caption) for row in found.rows] == list(zip(names, captions_for(names), strict=True))
    assert found.digest == read_folder(write_folder(tmp_path / "other")).digest


def test_the_caption_column_can_be_named(tmp_path: Path) -> None:
    """Other data sets call it caption or prompt; additional columns are not read."""
    names = write_pictures(tmp_path)
    write_rows(tmp_path, [{"file_name": name, "text": 5, "prompt": "a photo"} for name in names])

    assert {row.caption for row in read_folder(tmp_path, column="prompt").rows} == {"a photo"}


def test_names_may_contain_folders_and_lines_may_be_blank(tmp_path: Path) -> None:
    """As `datasets` reads them; links that stay inside the folder are followed."""
    names = write_pictures(tmp_path / "train")
    (tmp_path / "linked.png").symlink_to(tmp_path / "train" / names[0])
    write_rows(tmp_path, rows_of([*(f"./train/{name}" for name in names), "linked.png"]))
    text = (tmp_path / "metadata.jsonl").read_text(encoding="utf-8")
    (tmp_path / "metadata.jsonl").write_text(text.replace("\n", "\r\n\r\n"), encoding="utf-8")

    found = read_folder(tmp_path)

    assert [row.name for row in found.rows] == [*(f"train/{name}" for name in names), "linked.png"]
    assert found.rows[0].sha256 == found.rows[-1].sha256


# The digest

ROWS = st.lists(
    st.tuples(st.sampled_from(["a" * 64, "b" * 64, "c" * 64]), st.sampled_from(["", "a", "b", '","', "é", "a b"])),
    max_size=5,
)


def _rows(content: list[tuple[str, str]], where: str = "x") -> list[Row]:
    return [Row(f"{where}, row {place}", f"{where}{place}.png", *one) for place, one in enumerate(content)]


@given(ROWS, ROWS)
def test_the_digest_is_that_of_bytes_and_captions_in_order(one: list[tuple[str, str]], other: list[tuple[str, str]]):
    """Equal exactly for equal lists of (sha256, caption); names and places never count."""
    assert (digest_of(_rows(one)) == digest_of(_rows(other, "y"))) == (one == other)


def test_the_key_follows_the_content_and_never_the_path(tmp_path: Path) -> None:
    """Moved and renamed: the same. Another order, byte or caption: another digest."""
    names = write_pictures(tmp_path / "here")
    rows = rows_of(names)
    write_rows(tmp_path / "here", rows)
    known = read_folder(tmp_path / "here")

    there = shutil.copytree(tmp_path / "here", tmp_path / "there")
    for name in names:
        (there / name).rename(there / f"new-{name}")
    write_rows(there, [{**row, "file_name": f"new-{row['file_name']}"} for row in rows])
    assert read_folder(there) == known and hash(read_folder(there)) == hash(known)

    changed = [
        [*rows[1:], rows[0]],
        [{**rows[0], "text": f"{rows[0]['text']}."}, *rows[1:]],
        rows[1:],
        [*rows, rows[0]],
    ]
    digests = []
    for one in changed:
        write_rows(tmp_path / "here", one)
        digests.append(read_folder(tmp_path / "here").digest)
    write_rows(tmp_path / "here", rows)
    picture(99).save(tmp_path / "here" / names[3])
    digests.append(read_folder(tmp_path / "here").digest)
    assert len({known.digest, *digests}) == 1 + len(digests)


# The held-out part


@pytest.mark.parametrize(("different", "held_out"), [(8, 4), (20, 4), (30, 6), (500, 100), (2000, MOST_HELD_OUT)])
def test_the_held_out_part_is_fixed_by_the_content(different: int, held_out: int) -> None:
    """The number grows with the set; neither the order nor the names select it, and no image is in both parts."""
    rows = [Row("", f"{place}", f"{place * 7919 % 10007:064x}", "a photo") for place in range(different)]
    rows += [row._replace(name=f"copy of {row.name}", caption="again") for row in rows]
    folder = ImageFolder(digest="", rows=tuple(rows))
    mixed = replace(folder, rows=tuple(random.Random(0).sample(rows, len(rows))))

    assert len({row.sha256 for row in folder.held_out}) == held_out
    assert not {row.sha256 for row in folder.held_out} & {row.sha256 for row in folder.training}
    assert sorted([*folder.training, *folder.held_out]) == sorted(rows)
    assert set(mixed.held_out) == set(folder.held_out)


# The images


@pytest.mark.parametrize("size", [(64, 64), (200, 100), (100, 333), (65, 64), (17, 900), (33, 21), (1023, 767)])
def test_an_image_is_resized_and_cropped_as_torchvision_does(size: tuple[int, int]) -> None:
    """The same pixels as Resize(64, LANCZOS) and CenterCrop(64), the transforms of diffusers' script."""
    from torchvision import transforms

    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    source = Image.fromarray(noise)
    resize = transforms.Resize(64, interpolation=transforms.InterpolationMode.LANCZOS)

    got = resized_and_cropped(source, height=64, width=64)

    assert np.array_equal(np.asarray(got), np.asarray(transforms.CenterCrop(64)(resize(source))))


@pytest.mark.parametrize(("height", "width"), [(32, 64), (64, 32), (48, 48)])
def test_any_size_fills_any_frame(height: int, width: int) -> None:
    """Nothing is padded, and what is cut off is cut equally on both sides."""
    source = Image.new("RGB", (300, 100), (255, 255, 255))

    got = np.asarray(resized_and_cropped(source, height=height, width=width))

    assert got.shape == (height, width, 3) and got.min() == 255


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("RGB", "jpg"), ("L", "png"), ("P", "png"), ("RGBA", "webp"), ("CMYK", "tif"), ("1", "bmp"), ("LA", "png")],
)
def test_every_format_and_mode_becomes_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    """As Pillow converts them."""
    names = []
    for number in range(FEWEST):
        names.append(f"{number}.{suffix}")
        picture(number, width=64, height=64).convert(mode).save(tmp_path / names[-1])
    write_rows(tmp_path, rows_of(names))
    found = read_folder(tmp_path)

    batches = list(found.images(found.rows, height=64, width=64, batch=3))

    assert [len(batch) for batch in batches] == [3, 3, 2]
    with Image.open(tmp_path / names[4]) as same:
        assert np.array_equal(batches[1][1], np.asarray(same.convert("RGB")))


def test_the_orientation_of_photographs_is_applied(tmp_path: Path) -> None:
    """A camera stores a turned picture; `datasets` turns it, so the judge and the model see it upright."""
    names = write_pictures(tmp_path, FEWEST, width=64, height=64)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = picture(50, width=64, height=64)
    turned.save(tmp_path / names[0], exif=exif)
    write_rows(tmp_path, rows_of(names))
    found = read_folder(tmp_path)

    (batch,) = found.images(found.rows[:1], height=64, width=64)

    with Image.open(tmp_path / names[0]) as stored:
        assert np.array_equal(batch[0], np.asarray(ImageOps.exif_transpose(stored)))
    assert not np.array_equal(batch[0], np.asarray(turned))


# Bad input


def _header_only_png(width: int, height: int) -> bytes:
    """A PNG whose header declares a size that its few bytes would be unpacked to."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    )


def _row(folder: Path, change: dict[str, object]) -> None:
    """Change the third row of the metadata; a value of None removes the column."""
    rows = rows_of(sorted(path.name for path in folder.glob("*.png")))
    row = {**rows[2], **change}
    rows[2] = {name: value for name, value in row.items() if value is not None}
    write_rows(folder, rows)


def _no_metadata(folder: Path) -> None:
    (folder / "metadata.jsonl").unlink()


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _one_image(folder: Path) -> None:
    write_rows(folder, rows_of(["0000.png"]))


def _one_image_many_times(folder: Path) -> None:
    write_rows(folder, rows_of(["0000.png"] * 30))


def _link_outside(folder: Path) -> None:
    shutil.copy(folder / "0002.png", folder.parent / "outside.png")
    (folder / "0002.png").unlink()
    (folder / "0002.png").symlink_to(folder.parent / "outside.png")


def _linked_folder(folder: Path) -> None:
    write_pictures(folder.parent / "elsewhere", 3)
    (folder / "inner").symlink_to(folder.parent / "elsewhere")
    _row(folder, {"file_name": "inner/0002.png"})


def _linked_metadata(folder: Path) -> None:
    (folder / "metadata.jsonl").rename(folder.parent / "metadata.jsonl")
    (folder / "metadata.jsonl").symlink_to(folder.parent / "metadata.jsonl")


def _loop(folder: Path) -> None:
    (folder / "0002.png").unlink()
    (folder / "0002.png").symlink_to("0002.png")


def _pipe(folder: Path) -> None:
    (folder / "0002.png").unlink()
    os.mkfifo(folder / "0002.png")


def _folder_as_image(folder: Path) -> None:
    (folder / "0002.png").unlink()
    (folder / "0002.png").mkdir()


def _truncated(folder: Path) -> None:
    os.truncate(folder / "0002.png", 60)


def _size(width: int, height: int) -> Callable[[Path], None]:
    return lambda folder: Image.new("L", (width, height)).save(folder / "0002.png")


def _bytes(data: bytes, name: str = "0002.png") -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


def _metadata(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "metadata.jsonl").write_text(text, encoding="utf-8")


def _csv(text: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        _no_metadata(folder)
        (folder / "metadata.csv").write_text(text, encoding="utf-8", newline="")

    return write


def _text_file(data: bytes) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        _no_metadata(folder)
        as_text_files(folder, sorted(path.name for path in folder.glob("[0-9]*.png")))
        (folder / "0002.txt").write_bytes(data)

    return write


def _no_text_file(folder: Path) -> None:
    _text_file(b"")(folder)
    (folder / "0002.txt").unlink()


def _changed(**change: object) -> Callable[[Path], None]:
    return lambda folder: _row(folder, change)


ROW = "metadata.jsonl, row 3"
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "There is no folder of fine-tuning data"),
    "a file": (
        lambda folder: (shutil.rmtree(folder), folder.write_text("x")),
        "There is no folder of fine-tuning data",
    ),
    "an empty folder": (_empty, "has no images."),
    "one image": (_one_image, "has too few images for a fine-tuning."),
    "one image, many rows": (_one_image_many_times, "has too few images for a fine-tuning."),
    "two metadata files": (_bytes(b"file_name,text\n", "metadata.csv"), "has two metadata files."),
    "a link to an image outside": (_link_outside, "0002.png is a link that leads outside the folder."),
    "a link to a folder outside": (_linked_folder, "inner/0002.png is a link that leads outside the folder."),
    "linked metadata": (_linked_metadata, "metadata.jsonl is a link that leads outside the folder."),
    "a link to itself": (_loop, "0002.png cannot be read."),
    "a pipe": (_pipe, "0002.png is not a regular file."),
    "a folder as image": (_folder_as_image, "0002.png is not a regular file."),
    "a missing file": (lambda folder: (folder / "0002.png").unlink(), "The file 0002.png is missing."),
    "an absolute name": (_changed(file_name="/etc/hostname"), f"The file_name in {ROW} leads outside the folder."),
    "a parent": (_changed(file_name="../0002.png"), f"The file_name in {ROW} leads outside the folder."),
    "an inner parent": (_changed(file_name="a/../../x.png"), f"The file_name in {ROW} leads outside the folder."),
    "a Windows parent": (_changed(file_name="..\\x.png"), f"The file_name in {ROW} leads outside the folder."),
    "a Windows drive": (_changed(file_name="C:\\x.png"), f"The file_name in {ROW} leads outside the folder."),
    "a number as name": (_changed(file_name=5), f"The file_name in {ROW} is not a file name."),
    "an empty name": (_changed(file_name=" "), f"The file_name in {ROW} is not a file name."),
    "a null character": (_changed(file_name="a\0.png"), f"The file_name in {ROW} is not a file name."),
    "a long name": (_changed(file_name="a" * 5000), "cannot be read."),
    "no file name": (_changed(file_name=None), f"{ROW} has no file_name."),
    "no caption column": (_changed(text=None), f"{ROW} has no text."),
    "an empty caption": (_changed(text=" \n"), f"The caption in {ROW} is empty."),
    "a list of captions": (_changed(text=["a", "b"]), f"The caption in {ROW} is not text."),
    "a number as caption": (_changed(text=7), f"The caption in {ROW} is not text."),
    "half a character": (_changed(text="\ud83d"), f"The caption in {ROW} is not text."),
    "a long caption": (_changed(text="a " * 9000), f"The caption in {ROW} is too long."),
    "an empty metadata file": (_metadata("\n"), "metadata.jsonl has no rows."),
    "no JSON": (
        _metadata('{"file_name": "0000.png", "text": "a"}\n{file_name: 1}\n'),
        "metadata.jsonl, row 2 is not JSON.",
    ),
    "no object": (_metadata("[1]\n"), "metadata.jsonl, row 1 is not a JSON object."),
    "deep JSON": (_metadata("[" * 100_000), "metadata.jsonl, row 1 is not JSON."),
    "a long number": (_metadata("9" * 10_000), "metadata.jsonl, row 1 is not JSON."),
    "metadata in UTF-16": (_bytes("{}".encode("utf-16"), "metadata.jsonl"), "metadata.jsonl is not text."),
    "CSV without the column": (_csv("file_name,caption\n0000.png,a\n"), "metadata.csv, row 1 has no text."),
    "CSV with a short row": (_csv("file_name,text\n0000.png\n"), "metadata.csv, row 1 has no text."),
    "CSV with a long row": (
        _csv("file_name,text\n0000.png,a,b\n"),
        "metadata.csv, row 1 has more values than the header.",
    ),
    "CSV with an open quote": (_csv('file_name,text\n0000.png,"a\n'), "metadata.csv, row 1 is not CSV."),
    "an empty CSV": (_csv(""), "metadata.csv has no rows."),
    "no text file": (_no_text_file, "The image 0002.png has no caption."),
    "an empty text file": (_text_file(b"\n"), "The caption in 0002.txt is empty."),
    "a binary text file": (_text_file(b"\xff\xfe\0"), "0002.txt is not text."),
    "an empty image": (_bytes(b""), "The image 0002.png cannot be read."),
    "another file": (
        _bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n"),
        "The image 0002.png cannot be read.",
    ),
    "a truncated image": (_truncated, "The image 0002.png cannot be read."),
    "one pixel": (_size(1, 1), "The image 0002.png is too small."),
    "one pixel high": (_size(64, 1), "The image 0002.png is too small."),
    "20,000 pixels": (_bytes(_header_only_png(20_000, 20_000)), "The image 0002.png is too large."),
    "12,000 pixels": (_bytes(_header_only_png(12_000, 12_000)), "The image 0002.png is too large."),
    "20,000 pixels wide": (_size(20_000, 64), "The image 0002.png is too large or too narrow."),
    "a narrow image": (_size(16, 2000), "The image 0002.png is too large or too narrow."),
    "16 bits": (lambda folder: Image.new("I;16", (64, 64)).save(folder / "0002.png"), "more than 8 bits per channel."),
}
"""Bad input → what makes it from a good folder, and a part of the sentence."""


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(tmp_path: Path, name: str) -> None:
    """Nothing but a UserError, in the package's format; it names the row or the file."""
    spoil, expected = BAD[name]
    folder = write_folder(tmp_path / "data")
    assert len(read_folder(folder)) == 10
    spoil(folder)

    with pytest.raises(UserError) as caught:
        read_folder(folder)

    first, *rest = str(caught.value).splitlines()
    assert expected in first, str(caught.value)
    assert all(line.startswith("  ") for line in rest)
    if "0002.png" in first and not name.startswith("no text"):
        assert "row 3" in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(["metadata.jsonl", "metadata.csv", "0002.png", "0002.txt"]), data=st.data())
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    """Files with cut, repeated and replaced bytes, and files of any bytes: a set, or a UserError."""
    folder = tmp_path_factory.mktemp("any") / "data"
    write_folder(folder)
    if name != "metadata.jsonl" and not name.endswith("png"):
        (folder / "metadata.jsonl").unlink()
        (as_csv if name.endswith("csv") else as_text_files)(folder, sorted(one.name for one in folder.glob("*.png")))
    known = (folder / name).read_bytes()
    low, high = sorted((data.draw(st.integers(0, len(known))), data.draw(st.integers(0, len(known)))))
    spoilt = data.draw(st.sampled_from([known[:low], known[low:], known[:low] + known[high:], known + known[low:high]]))
    (folder / name).write_bytes(data.draw(st.one_of(st.just(spoilt), st.binary(max_size=300))))
    try:
        found = read_folder(folder)
        assert sum(len(batch) for batch in found.images(found.rows, height=16, width=16)) == len(found) >= FEWEST
    except UserError as problem:
        first, *rest = str(problem).splitlines()
        assert first.endswith(".") and rest and all(line.startswith("  ") for line in rest), problem
        assert str(problem).replace("\n", "").isprintable() and max(map(len, rest)) < 1000
    finally:
        shutil.rmtree(folder.parent)


def test_a_damaged_photograph_is_found_when_it_is_decoded(tmp_path: Path) -> None:
    """A JPEG has no checksums: half of one is only found by decoding it, before it is judged or trained on."""
    names = []
    for number in range(FEWEST):
        names.append(f"{number}.jpg")
        noise = np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / names[-1])
    os.truncate(tmp_path / names[5], (tmp_path / names[5]).stat().st_size // 2)
    write_rows(tmp_path, rows_of(names))
    found = read_folder(tmp_path)

    with pytest.raises(UserError, match=r"5\.jpg cannot be read\.\n  place +metadata\.jsonl, row 6"):
        list(found.images(found.rows, height=64, width=64))


@pytest.mark.parametrize("change", ["other bytes", "removed"])
def test_a_file_that_changes_during_the_run_is_refused(tmp_path: Path, change: str) -> None:
    """What is judged and trained on is what the digest is of."""
    folder = write_folder(tmp_path / "data")
    found = read_folder(folder)
    if change == "removed":
        (folder / "0004.png").unlink()
    else:
        picture(77).save(folder / "0004.png")

    with pytest.raises(UserError, match=r"0004\.png (was changed|is missing)"):
        list(found.images(found.rows, height=16, width=16))
