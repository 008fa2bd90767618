"""The demo's sample library, looked at with the folder source, Pillow and exiv2."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import exiv2
import pillow_heif
import pytest
from PIL import Image, ImageOps
from PIL.ExifTags import GPS, IFD, Base

from skicyclerun.errors import DiskFull, NotWritable, UsageError
from skicyclerun.sources.folder_tree import FolderTree
from skicyclerun.sources.sample_library import make_sample_library
from tests.shared_libraries import folder_for_everyone, without_root_powers


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "sample"
    make_sample_library(root)
    return root


def files_of(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def opened(path: Path) -> Image.Image:
    if path.suffix == ".HEIC":
        return pillow_heif.open_heif(path).to_pillow()  # type: ignore[no-any-return]  # the package has no types
    return Image.open(path)


async def test_it_has_a_slash_in_a_title_two_albums_of_one_title_and_all_formats(sample: Path) -> None:
    source = FolderTree(sample)
    albums = await source.albums()
    assert [album.path for album in albums] == ["2024/Alps", "2025/Alps", "Coast/Harbour", "Frühling am Fluss"]
    names = [photo.original_filename for album in albums for photo in await source.photos(album.id)]
    assert 10 <= len(names) <= 14
    assert {Path(name).suffix for name in names} == {".JPG", ".HEIC", ".PNG"}
    assert sum(path.stat().st_size for path in files_of(sample)) < 2_000_000


def test_every_picture_is_whole_and_upright_after_its_orientation(sample: Path) -> None:
    upright = []
    for path in files_of(sample):
        with opened(path) as image:
            image.load()
            shown = ImageOps.exif_transpose(image)
            assert sorted(shown.size) == [800, 1200]
            upright += [path.name] * (shown.height > shown.width)
            # The sky is at the top, the land at the bottom: the colours differ, and the picture is no noise.
            top, bottom = (
                shown.convert("L").resize((1, 8)).getpixel((0, 0)),
                shown.convert("L").resize((1, 8)).getpixel((0, 7)),
            )
            assert top != bottom
    assert upright == ["IMG_0004.JPG"]


def test_every_photo_has_its_date_with_offset_and_its_camera_and_most_a_position(sample: Path) -> None:
    with_position = 0
    for path in files_of(sample):
        with opened(path) as image:
            exif = image.getexif()
        details = exif.get_ifd(IFD.Exif)
        assert details[Base.DateTimeOriginal][:4] in ("2024", "2025")
        assert details[Base.OffsetTimeOriginal] in ("+01:00", "+02:00", "-07:00")
        assert exif[Base.Make] in ("Apple", "FUJIFILM")
        assert exif[Base.Model]
        place = exif.get_ifd(IFD.GPSInfo)
        with_position += GPS.GPSLatitude in place
        if GPS.GPSLatitude in place:
            degrees, minutes, seconds = place[GPS.GPSLatitude]
            assert 37 <= degrees + minutes / 60 + seconds / 3600 <= 53
    assert len(files_of(sample)) - 3 < with_position < len(files_of(sample))


def test_titles_and_keywords_are_there_as_xmp_and_in_jpegs_as_iptc_too(sample: Path) -> None:
    def texts(path: Path, key: str) -> Sequence[str]:
        image = exiv2.ImageFactory.open(str(path))
        image.readMetadata()
        data = image.iptcData() if key.startswith("Iptc") else image.xmpData()
        return [datum.toString() for datum in data if datum.key() == key]

    river = sample / "Frühling am Fluss" / "DSCF0010.JPG"
    assert texts(river, "Xmp.dc.subject") == ["Fluss, Frühling"]
    assert texts(river, "Iptc.Application2.Keywords") == ["Fluss", "Frühling"]
    assert texts(river, "Xmp.dc.title") == ['lang="x-default" Frühling']
    assert texts(sample / "Coast:Harbour" / "IMG_0102.PNG", "Xmp.dc.subject") == ["running, bay"]
    heic = pillow_heif.open_heif(sample / "Coast:Harbour" / "IMG_0103.HEIC")
    assert b"Headlands" in heic.info["xmp"]
    assert b"<rdf:li>running</rdf:li>" in heic.info["xmp"]


def test_it_is_the_same_every_time(sample: Path, tmp_path: Path) -> None:
    make_sample_library(tmp_path / "again")

    def facts(root: Path) -> list[tuple[Path, int, str]]:
        return [
            (path.relative_to(root), path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
            for path in files_of(root)
        ]

    assert facts(tmp_path / "again") == facts(sample)
    assert os.listdir(tmp_path) == ["again"]


def test_an_empty_folder_is_filled_and_a_full_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    make_sample_library(tmp_path / "empty")
    assert files_of(tmp_path / "empty")
    before = files_of(tmp_path)
    with pytest.raises(UsageError, match="not an empty folder"):
        make_sample_library(tmp_path / "empty")
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(UsageError, match="not an empty folder"):
            make_sample_library(tmp_path / name)
    assert [path for path in files_of(tmp_path) if path.name not in ("file", "link")] == before


def test_a_folder_that_cannot_be_written_is_said() -> None:
    with folder_for_everyone() as folder:
        folder.chmod(0o555)
        with without_root_powers(), pytest.raises(NotWritable, match="cannot be written"):
            make_sample_library(folder / "sample")


def test_a_disk_that_fills_up_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "utime", full)
    with pytest.raises(DiskFull, match="No space left"):
        make_sample_library(tmp_path / "sample")
    assert os.listdir(tmp_path) == []
