"""A watermark on a picture: one or two lines, fitted, drawn, and the picture written as what it was.

Sizes, margins and strokes are pixels of a picture whose longest side is `reference_dimension`; on others they grow
and shrink with it.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageDraw, PngImagePlugin

from skicyclerun.errors import PhotoUnreadable
from skicyclerun.images.convert import Picture, decode, displayed_size, encode_jpeg, open_with_pillow, quiet_pillow
from skicyclerun.images.fonts import Font, shapes
from skicyclerun.images.jpeg_segments import APP1, APP13, EXIF, XMP, read_header, replace_metadata
from skicyclerun.images.sniff import HEAD_BYTES, Content, describe_unknown, sniff
from skicyclerun.images.staging import Original, StagedFile, open_original
from skicyclerun.images.text_runs import ELLIPSIS, Run, clusters, runs_of
from skicyclerun.wording import pixels_in_words

MAX_PIXELS: Final = 300_000_000
"""A picture with more is not decoded."""
WRITABLE: Final = (Content.JPEG, Content.WEBP, Content.AVIF, Content.PNG)
"""What can be written again as it was."""

_Rgba = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class LineStyle:
    """How one line looks. Pixels of the reference picture."""

    size: float
    """Of the em."""
    min_size: float
    """It is made no smaller than this to fit; then it is cut."""
    color: _Rgba
    """Red, green, blue and opacity, 0 to 255, in the colour space of the picture."""
    stroke_color: _Rgba
    stroke_width: float
    """Around each letter, on every side."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a watermark looks. Pixels of the reference picture."""

    lines: tuple[LineStyle, ...]
    """From the top."""
    vertical: str
    """`top`, `center` or `bottom`."""
    horizontal: str
    """`left`, `center` or `right`."""
    margin_x: float
    margin_y: float
    line_spacing: float
    max_width_percent: float
    """Of the picture's width, for a line with its stroke; never beyond the margins."""
    shrink: bool
    """False: a line that is too wide is cut at once."""
    reference_dimension: int
    """The longest side that sizes are meant for; 0 leaves them as they are."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written."""

    width: int
    height: int
    note: str = ""
    """What is to be said of it, if anything."""
    drawn: bool = True


def write_watermarked(
    source: Path, destination: Path, lines: Sequence[str], style: Style, fonts: Sequence[Font], quality: int
) -> Written:
    """Write `source` with these lines (as many as `style.lines`; empty ones are not drawn) to `destination`.

    It is written upright, in the format of its bytes, with the source's colour profile, EXIF, IPTC and XMP, and its
    modification time. Without a line it is copied byte for byte. The same input gives the same bytes. Nothing is
    synced. Raises PhotoUnreadable with the reason, PhotoTransient if the source changes meanwhile; OSError (a full
    disk) passes through.
    """
    with open_original(source) as original, StagedFile(destination) as staged:
        content = sniff(original.stream)
        if content is None:
            raise PhotoUnreadable(describe_unknown(original.read(0, HEAD_BYTES), source.name))
        if content not in WRITABLE:
            raise PhotoUnreadable(f"it is a {content} file; a watermark is written on JPEG, WebP, AVIF and PNG")
        if not any(lines):
            width, height = displayed_size(original, content)
            for block in original.blocks():
                staged.write(block)
            written = Written(
                width, height, "none of the facts of the watermark is known; it was copied without", False
            )
        else:
            picture = decode(original, content, MAX_PIXELS)
            note, drawn = draw(picture, lines, style, fonts)
            staged.write(_encoded(picture, original, content, quality))
            written = Written(*picture.image.size, note, drawn)
        staged.finish(original.mtime_ns)
    return written


# ── layout ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Set:
    """A line in its final size. Pixels; the origin is where the pen starts, on the base line."""

    runs: list[Run]
    size: int
    stroke: float
    starts: list[float]
    left: float
    top: float
    right: float
    bottom: float
    """Of what is seen, stroke included."""
    ascent: float
    descent: float
    """Of the first font, stroke included: they hold for every line of this size."""
    cut: bool = False

    @property
    def width(self) -> float:
        return self.right - self.left


def _typeset(text: str, fonts: Sequence[Font], size: int, stroke: float) -> _Set:
    runs = runs_of(text, fonts)
    starts: list[float] = []
    boxes: list[tuple[float, float, float, float]] = []
    at = 0.0
    for run in runs:
        face = run.font.face(size)
        starts.append(at)
        left, top, right, bottom = face.getbbox(run.text, direction=run.direction, stroke_width=stroke, anchor="ls")
        if right > left and bottom > top:
            boxes.append((at + left, top, at + right, bottom))
        at += face.getlength(run.text, direction=run.direction)
    ascent, descent = fonts[0].face(size).getmetrics()
    return _Set(
        runs,
        size,
        stroke,
        starts,
        min((box[0] for box in boxes), default=0.0),
        min((box[1] for box in boxes), default=0.0),
        max((box[2] for box in boxes), default=0.0),
        max((box[3] for box in boxes), default=0.0),
        ascent + stroke,
        descent + stroke,
    )


def _fitted(
    text: str, fonts: Sequence[Font], style: LineStyle, scale: float, room: float, tallest: int, shrink: bool
) -> _Set | None:
    """The line as large as fits into `room` pixels; cut where it is too wide at its smallest; None if nothing fits.

    No letter is made larger than `tallest` pixels: beyond the picture's height there is nothing but memory to lose.
    """
    size = max(1, min(round(style.size * scale), tallest))
    least = min(size, max(1, round(style.min_size * scale))) if shrink else size
    stroke = min(style.stroke_width * scale, size)
    line = _typeset(text, fonts, size, stroke)
    while line.width > room and size > least:
        # Nearly proportional, so this comes close in one step; the stroke and hinting take another one or two.
        size = max(least, min(size - 1, int(size * room / line.width) + 1))
        line = _typeset(text, fonts, size, stroke)
    if line.width <= room:
        return line
    parts = list(clusters(text))
    end = ELLIPSIS if any(font.has(ELLIPSIS) for font in fonts) else "..."
    fits, too_many = 0, len(parts)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        shorter = _typeset("".join(parts[:middle]).rstrip(" ,;:-\u2013") + end, fonts, size, stroke)
        if shorter.width <= room:
            fits, line = middle, replace(shorter, cut=True)
        else:
            too_many = middle
    return line if fits else None


def draw(picture: Picture, lines: Sequence[str], style: Style, fonts: Sequence[Font]) -> tuple[str, bool]:
    """Draw the lines that are not empty onto the picture. Returns what is to be said of it, and whether there was
    room."""
    width, height = picture.image.size
    scale = max(width, height) / style.reference_dimension if style.reference_dimension else 1.0
    margin_x, margin_y = style.margin_x * scale, style.margin_y * scale
    room = min(width * style.max_width_percent / 100, width - 2 * margin_x if width > 2 * margin_x else width)
    block: list[tuple[LineStyle, _Set]] = []
    for text, line_style in zip(lines, style.lines, strict=True):
        if text:
            line = _fitted(text, fonts, line_style, scale, room, height, style.shrink)
            if line is None:
                return f"at {pixels_in_words(width, height)} there is no room for the watermark", False
            block.append((line_style, line))
    spacing = style.line_spacing * scale
    tall = sum(line.ascent + line.descent for _, line in block) + spacing * (len(block) - 1)
    if tall > height:
        return f"at {pixels_in_words(width, height)} there is no room for the watermark", False
    y = _aligned(style.vertical, tall, height, margin_y)
    _make_room_for_colours(picture, [line_style for line_style, _ in block])
    for line_style, line in block:
        x = _aligned(style.horizontal, line.width, width, margin_x)
        _paint(picture.image, line, line_style, x - line.left, y + line.ascent)
        y += line.ascent + line.descent + spacing
    return "the watermark was cut to fit" if any(line.cut for _, line in block) else "", True


def _aligned(side: str, length: float, whole: float, margin: float) -> float:
    """Where something of this length begins; within the picture, also where the margin leaves no room."""
    if side in ("left", "top"):
        start = margin
    elif side == "center":
        start = (whole - length) / 2
    else:
        start = whole - margin - length
    return max(0.0, min(start, whole - length))


# ── painting ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _make_room_for_colours(picture: Picture, styles: Sequence[LineStyle]) -> None:
    """A grey picture stays one for a grey watermark; for a coloured one it becomes RGB, without its grey profile."""
    used = [style.color for style in styles] + [style.stroke_color for style in styles if style.stroke_width]
    if picture.image.mode == "L" and any(len({*color[:3]}) > 1 for color in used):
        picture.image, picture.icc = picture.image.convert("RGB"), None


def _paint(image: Image.Image, line: _Set, style: LineStyle, x: float, y: float) -> None:
    """Put the line on the picture, its pen starting at x, y. The letters replace their stroke, so that with half
    opacity the picture shines through them and not the stroke."""
    box = (
        max(0, int(x + line.left) - 2),
        max(0, int(y + line.top) - 2),
        min(image.width, int(x + line.right) + 3),
        min(image.height, int(y + line.bottom) + 3),
    )
    size = (box[2] - box[0], box[3] - box[1])
    if size[0] <= 0 or size[1] <= 0:
        return
    letters = _mask(line, size, x - box[0], y - box[1], 0)
    if line.stroke:
        colour = Image.new("RGB", size, style.stroke_color[:3])
        opacity = _dimmed(_mask(line, size, x - box[0], y - box[1], line.stroke), style.stroke_color[3])
        colour.paste(style.color[:3], mask=letters)
        opacity.paste(style.color[3], mask=letters)
    else:
        colour = Image.new("RGB", size, style.color[:3])
        opacity = _dimmed(letters, style.color[3])
    image.paste(colour.convert(image.mode), box[:2], opacity)


def _mask(line: _Set, size: tuple[int, int], x: float, y: float, stroke: float) -> Image.Image:
    mask = Image.new("L", size)
    pen = ImageDraw.Draw(mask)
    for run, start in zip(line.runs, line.starts, strict=True):
        face = run.font.face(line.size)
        pen.text((x + start, y), run.text, 255, face, anchor="ls", direction=run.direction, stroke_width=stroke)
    return mask


def _dimmed(mask: Image.Image, opacity: int) -> Image.Image:
    return mask if opacity == 255 else mask.point([round(value * opacity / 255) for value in range(256)])


# ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _encoded(picture: Picture, original: Original, content: Content, quality: int) -> bytes:
    """The file's bytes, in its own format and with the metadata of the original."""
    if content is Content.JPEG:
        return _as_jpeg(picture, original, quality)
    exif, xmp = _blobs(original, content)
    options: dict[str, Any] = {"icc_profile": picture.icc}
    if exif:
        options["exif"] = _upright_exif(exif)
    if content is Content.PNG:
        if xmp:
            texts = PngImagePlugin.PngInfo()
            texts.add_itxt("XML:com.adobe.xmp", _upright_xmp(xmp).decode("utf-8", "replace"))
            options["pnginfo"] = texts
    else:
        options["quality"] = quality
        if xmp:
            options["xmp"] = _upright_xmp(xmp)
        # One thread and no tiles by their number: the same bytes on every machine, and pictures run side by side.
        options |= {"method": 4} if content is Content.WEBP else {"max_threads": 1, "autotiling": False}
    picture.image.info = {}
    written = io.BytesIO()
    try:
        picture.image.save(
            written, {Content.WEBP: "WEBP", Content.AVIF: "AVIF", Content.PNG: "PNG"}[content], **options
        )
    except MemoryError as error:
        raise PhotoUnreadable("encoding it needs more memory than there is") from error
    except (OSError, ValueError, RuntimeError, struct.error) as error:
        raise PhotoUnreadable(f"it could not be written as {content} again ({' '.join(str(error).split())})") from error
    return written.getvalue()


def _as_jpeg(picture: Picture, original: Original, quality: int) -> bytes:
    old = read_header(original).segments
    jpeg = encode_jpeg(picture, quality)
    header = read_header(Original.of_bytes(jpeg))
    exif = [segment.data for segment in old if segment.holds(APP1, EXIF)]
    others = [s.data for s in old if s.marker == APP1 and not s.holds(APP1, EXIF)]
    return (
        replace_metadata(
            header,
            exif=[data[:10] + _upright_exif(data[10:]) for data in exif],
            xmp=[_upright_xmp(data) if data.startswith(XMP, 4) else data for data in others],
            iptc=[segment.data for segment in old if segment.marker == APP13],
        )
        + jpeg[header.size :]
    )


def _blobs(original: Original, content: Content) -> tuple[bytes | None, bytes | None]:
    """EXIF and XMP as the container has them."""
    quiet_pillow()
    original.stream.seek(0)
    with open_with_pillow(original.stream, content) as image:
        if content is Content.PNG:
            image.load()  # they may stand behind the pixels
        exif, xmp = image.info.get("exif"), image.info.get("xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode("utf-8", "surrogateescape")
    return (exif if isinstance(exif, bytes) else None), (xmp if isinstance(xmp, bytes) else None)


def _upright_exif(exif: bytes) -> bytes:
    """The same block with an orientation of 1 where it names one: the pixels are upright now."""
    at = exif.find(b"Exif\0\0") + 6 if exif.startswith(b"Exif\0\0") else 0
    order = {b"II": "<", b"MM": ">"}.get(exif[at : at + 2])
    if order is None:
        return exif
    changed = bytearray(exif)
    try:
        directory = at + struct.unpack_from(order + "I", exif, at + 4)[0]
        for number in range(struct.unpack_from(order + "H", exif, directory)[0]):
            entry = directory + 2 + 12 * number
            tag, kind = struct.unpack_from(order + "HH", exif, entry)
            if tag == 0x0112 and kind == 3:
                struct.pack_into(order + "H", changed, entry + 8, 1)
    except struct.error:
        return exif  # damaged before, and no worse now
    return bytes(changed)


def _upright_xmp(xmp: bytes) -> bytes:
    return re.sub(rb"(tiff:Orientation(?:=[\"']|>))[2-8]", rb"\g<1>1", xmp)


def layout_engine() -> str:
    """What sets the text: a line comes out differently without raqm."""
    return "raqm" if shapes() else "basic"
