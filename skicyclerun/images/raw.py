"""RAW files: the camera's own full-size JPEG where there is one, else developed with rawpy (an optional extra)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from skicyclerun.errors import PhotoUnreadable
from skicyclerun.images.convert import Picture, check_pixels
from skicyclerun.images.decode_check import check_first_rows
from skicyclerun.images.exiv2_session import TagsUnreadable, exiv2_session
from skicyclerun.images.jpeg_segments import ScanWalker, check_end, read_header
from skicyclerun.images.staging import Original

_FULL_SIZE_SHARE: Final = 0.95
"""Cameras trim some pixels off the edges of the JPEGs they embed; a preview below this share of the sensor is none."""

_MOST_PREVIEW_BYTES: Final = 256 << 20
_STRIP_TAGS: Final = frozenset(("Compression", "StripOffsets", "StripByteCounts"))
_DIRECTORIES: Final = ("Image", "SubImage")
_JPEG_COMPRESSIONS: Final = frozenset((6, 7))
_DISPLAYABLE: Final = frozenset((0xC0, 0xC1, 0xC2))


@dataclass(frozen=True, slots=True)
class Preview:
    """A JPEG embedded in a RAW file. Pixels as stored."""

    data: bytes
    width: int
    height: int


def full_size_jpeg(original: Original) -> Preview | None:
    """The camera's own JPEG, if the file holds a whole one that shows the whole sensor."""
    sensor = _sensor_size(original.path)
    if sensor is None:
        return None
    found = max(_embedded_jpegs(original), key=lambda preview: preview.width * preview.height, default=None)
    if found is None or not _is_full_size(found, sensor):
        found = _librarys_thumbnail(original.path)
    return found if found is not None and _is_full_size(found, sensor) else None


def _embedded_jpegs(original: Original) -> list[Preview]:
    """What exiv2 knows of by the cameras' own ways, and single strips of directories that are JPEGs (DNG)."""
    datas: list[bytes] = []
    strips: dict[str, dict[str, int]] = {}
    try:
        with exiv2_session() as exiv2:
            image = exiv2.ImageFactory.open(str(original.path))
            image.readMetadata()
            manager = exiv2.PreviewManager(image)
            datas += [
                bytes(manager.getPreviewImage(found).data())
                for found in manager.getPreviewProperties()
                if found.mimeType_ == "image/jpeg" and found.size_ <= _MOST_PREVIEW_BYTES
            ]
            for tag in image.exifData():
                if tag.tagName() in _STRIP_TAGS and tag.count() == 1 and tag.groupName().startswith(_DIRECTORIES):
                    strips.setdefault(tag.groupName(), {})[tag.tagName()] = tag.toInt64()
    except TagsUnreadable:
        return []
    for strip in strips.values():
        start, count = strip.get("StripOffsets", 0), strip.get("StripByteCounts", 0)
        if strip.get("Compression") in _JPEG_COMPRESSIONS and 0 < start and 0 < count <= _MOST_PREVIEW_BYTES:
            datas.append(original.read(start, count))
    return [preview for data in datas if (preview := _checked(data)) is not None]


def _librarys_thumbnail(path: Path) -> Preview | None:
    """LibRaw finds JPEGs that exiv2 does not (CR3)."""
    rawpy = _rawpy()
    if rawpy is None:
        return None
    try:
        with rawpy.imread(str(path)) as raw:
            thumbnail = raw.extract_thumb()
    except Exception:
        # LibRaw has an exception for everything, "there is no thumbnail" included.
        return None
    return _checked(bytes(thumbnail.data)) if thumbnail.format == rawpy.ThumbFormat.JPEG else None


def _checked(data: bytes) -> Preview | None:
    """A JPEG that is whole and that readers can decode; lossless ones are sensor data."""
    jpeg = Original.of_bytes(data)
    try:
        header = read_header(jpeg)
        if header.frame.marker not in _DISPLAYABLE:
            return None
        walker = ScanWalker(header.size)
        walker.feed(memoryview(data)[header.size :])
        check_end(walker, header, len(data))
        check_first_rows(jpeg, header)
    except PhotoUnreadable:
        return None
    return Preview(data, header.frame.width, header.frame.height)


def _sensor_size(path: Path) -> tuple[int, int] | None:
    """Width and height the RAW file says its picture has, from rawpy, else from its tags; None if neither knows."""
    rawpy = _rawpy()
    if rawpy is not None:
        try:
            with rawpy.imread(str(path)) as raw:
                return int(raw.sizes.width), int(raw.sizes.height)
        except Exception:
            # LibRaw does not know the camera, or the file is damaged: the tags may still say.
            return _size_in_tags(path)
    return _size_in_tags(path)


def _size_in_tags(path: Path) -> tuple[int, int] | None:
    try:
        with exiv2_session() as exiv2:
            image = exiv2.ImageFactory.open(str(path))
            image.readMetadata()
            found: dict[str, dict[str, int]] = {"": {"Width": image.pixelWidth(), "Height": image.pixelHeight()}}
            for tag in image.exifData():
                side = _SIDES.get(tag.tagName())
                if side is not None and tag.count() == 1:
                    found.setdefault(tag.groupName(), {})[side] = tag.toInt64()
            sizes = [(sides.get("Width", 0), sides.get("Height", 0)) for sides in found.values()]
            best = max(sizes, key=lambda size: size[0] * size[1])
            return best if best[0] > 0 and best[1] > 0 else None
    except TagsUnreadable:
        return None


_SIDES: Final = {
    "ImageWidth": "Width",
    "ImageLength": "Height",
    "PixelXDimension": "Width",
    "PixelYDimension": "Height",
}


def _is_full_size(preview: Preview, sensor: tuple[int, int]) -> bool:
    """Whether the embedded JPEG shows the whole sensor; orientation does not matter."""
    return max(preview.width, preview.height) >= _FULL_SIZE_SHARE * max(sensor) and min(
        preview.width, preview.height
    ) >= _FULL_SIZE_SHARE * min(sensor)


def develop(path: Path, max_pixels: int) -> Picture:
    """From sensor data to sRGB, upright, with the camera's white balance.

    Raises PhotoUnreadable: rawpy is not installed (naming the extra), the camera is not known, the file is damaged.
    """
    rawpy = _rawpy()
    if rawpy is None:
        raise PhotoUnreadable(
            "the RAW file holds no full-size JPEG, and developing it needs rawpy",
            next_step='Install it with `pip install "skicyclerun[raw]"`, then `skicyclerun retry-failed`.',
        )
    from PIL import Image

    try:
        with rawpy.imread(str(path)) as raw:
            check_pixels(raw.sizes.width, raw.sizes.height, max_pixels)
            pixels = raw.postprocess(use_camera_wb=True, output_bps=8)
        return Picture(Image.fromarray(pixels), None, None, None, subsampled=False)
    except PhotoUnreadable:
        raise
    except MemoryError as error:
        raise PhotoUnreadable("developing it needs more memory than there is") from error
    except Exception as error:
        # rawpy has an exception for each of LibRaw's codes, and none of them says more than its text.
        raise PhotoUnreadable(f"the RAW file cannot be developed ({_said(error)})") from error


def _said(error: Exception) -> str:
    first = error.args[0] if error.args else type(error).__name__
    return first.decode("utf-8", "replace") if isinstance(first, bytes) else str(first)[:160]


def _rawpy() -> Any:
    """The module, None where the extra is not installed."""
    try:
        import rawpy
    except ImportError:
        return None
    return rawpy
