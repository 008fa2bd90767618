"""Plain HEICs by FFmpeg: which are plain, and that what comes out is what libheif and libjpeg would have made."""

from __future__ import annotations

import io
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageStat

from skicyclerun.errors import PhotoUnreadable
from skicyclerun.images import convert as conversions
from skicyclerun.images import heif_ffmpeg
from skicyclerun.images.convert import convert_plain_heic
from skicyclerun.images.heif_boxes import NotPlain, read_plain_picture
from skicyclerun.images.heif_ffmpeg import plain_jpeg
from skicyclerun.images.render import RenderOptions
from skicyclerun.images.sniff import Content
from skicyclerun.images.staging import Original
from tests.heif_samples import FULL_RANGE_601, box, full_box, heif, tiled
from tests.images_samples import KNOWN, exif_with, photo_like, quadrants, render, srgb_profile
from tests.shared_libraries import LIBRARIES, needs_full_libraries


@pytest.fixture
def by_libheif(monkeypatch: pytest.MonkeyPatch) -> Any:
    """As if the extra were not installed, from when it is called on."""
    return lambda: monkeypatch.setattr(conversions, "why_not_used", lambda: "av is not installed")


def ours(data: bytes, quality: int = 95) -> bytes | None:
    """The JPEG by FFmpeg; None where it is left to libheif."""
    return plain_jpeg(data, pillow_heif.HeifFile(data).size, quality, None)


def theirs(data: bytes, quality: int = 95) -> bytes:
    """The JPEG by libheif and libjpeg."""
    return conversions.encode_jpeg(conversions.decode(Original.of_bytes(data), Content.HEIF, 10**8), quality)


def psnr(one: Image.Image, other: Image.Image) -> float:
    """How near two pictures are, decibels."""
    assert one.size == other.size
    squares = ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).sum2
    mean = sum(squares) / (3 * one.width * one.height)
    return math.inf if mean == 0 else 10 * math.log10(255**2 / mean)


def opened(jpeg: bytes) -> Image.Image:
    return Image.open(io.BytesIO(jpeg))


# ── the same picture ──────────────────────────────────────────────────────────────────────────────────────────────


@needs_full_libraries
def test_every_real_heic_comes_out_as_libheif_and_libjpeg_make_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_libheif: Any
) -> None:
    found = {source.name: source for source in sorted(LIBRARIES.glob("*/originals/*/*.heic"))}
    found |= {source.name: source for source in sorted(LIBRARIES.glob("*/resources/renders/*/*.heic"))}
    assert len(found) >= 8
    monkeypatch.setattr(
        "skicyclerun.images.render.decode", lambda *_: pytest.fail("an iPhone's picture was left to libheif")
    )
    facts = {name: render(source, tmp_path / f"{name}.new.jpg", KNOWN) for name, source in found.items()}
    monkeypatch.undo()
    by_libheif()
    for name, source in found.items():
        before = render(source, tmp_path / f"{name}.jpg", KNOWN)
        unlike = {"size", "sha256"}
        assert {key: getattr(facts[name], key) for key in before.__slots__ if key not in unlike} == {
            key: getattr(before, key) for key in before.__slots__ if key not in unlike
        }
        assert abs(facts[name].size - before.size) < before.size * 0.03
        with (
            Image.open(tmp_path / f"{name}.new.jpg") as new,
            Image.open(tmp_path / f"{name}.jpg") as old,
            pillow_heif.open_heif(source).to_pillow() as decoded,
        ):
            assert new.info.get("icc_profile") == old.info.get("icc_profile") == decoded.info.get("icc_profile")
            assert new.getexif() == old.getexif()
            assert new.layer == old.layer  # type: ignore[attr-defined]  # the sampling of the three planes
            assert new.quantization == old.quantization  # type: ignore[attr-defined]
            assert psnr(new, old) > 46
            assert psnr(new, decoded) > psnr(old, decoded) - 1.5
            assert max(ImageStat.Stat(ImageChops.difference(new, old).convert("RGB")).mean) < 1


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [(192, 128), (150, 100), (64, 70)])
def test_a_grid_is_put_together_and_turned_as_it_says(turns: int, size: tuple[int, int]) -> None:
    data = tiled(quadrants(size), turns=turns)
    jpeg = ours(data)
    assert jpeg is not None
    assert psnr(opened(jpeg), opened(theirs(data))) > 38


def test_a_grid_with_odd_sides_is_put_together() -> None:
    data = tiled(photo_like((256, 256)).resize((97, 61)))
    jpeg = ours(data)
    assert jpeg is not None
    assert psnr(opened(jpeg), opened(theirs(data))) > 38


@pytest.mark.parametrize("size", [(64, 64), (120, 72), (200, 136)])
def test_a_picture_in_one_piece_needs_no_grid(size: tuple[int, int]) -> None:
    data = heif(photo_like((256, 256)).resize(size))
    jpeg = ours(data)
    assert jpeg is not None
    assert psnr(opened(jpeg), opened(theirs(data))) > 38


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_turned_picture_comes_upright_with_tags_that_say_so(
    tmp_path: Path, by_libheif: Any, orientation: int
) -> None:
    source = tmp_path / "a.heic"
    turns = {1: 0, 3: 2, 6: 3, 8: 1}[orientation]
    source.write_bytes(tiled(quadrants((128, 64)), turns=turns, exif=exif_with(orientation).tobytes()))
    facts = render(source, tmp_path / "new.jpg", KNOWN)
    by_libheif()
    before = render(source, tmp_path / "old.jpg", KNOWN)
    assert (facts.width, facts.height) == (before.width, before.height) == ((64, 128) if turns % 2 else (128, 64))
    new, old = Image.open(tmp_path / "new.jpg"), Image.open(tmp_path / "old.jpg")
    with new, old:
        assert new.getexif() == old.getexif()
        assert new.getexif().get(0x0112, 1) == 1
        assert psnr(new, old) > 38


@pytest.mark.parametrize("size", [40, 70_000, 200_000])
def test_a_profile_of_any_size_arrives_whole(size: int) -> None:
    profile = srgb_profile().ljust(size, b"\7")
    data = heif(quadrants((128, 128)))
    jpeg = plain_jpeg(data, (128, 128), 90, profile)
    assert jpeg is not None
    assert opened(jpeg).info["icc_profile"] == profile
    assert psnr(opened(jpeg), opened(theirs(data, 90))) > 35


def test_a_profile_that_does_not_fit_is_dropped_as_everywhere(tmp_path: Path) -> None:
    source = tmp_path / "a.heic"
    grey = srgb_profile()[:16] + b"GRAY" + srgb_profile()[20:]
    source.write_bytes(heif(quadrants((128, 128)), icc_profile=grey))
    assert ours(source.read_bytes()) is not None
    render(source, tmp_path / "out.jpg")
    assert "icc_profile" not in opened((tmp_path / "out.jpg").read_bytes()).info


def test_the_same_bytes_come_out_however_many_are_in_hand(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    source = tmp_path / "a.heic"
    source.write_bytes(tiled(photo_like((256, 192))))

    def sha256(number: int) -> str:
        return render(source, tmp_path / f"{number}.jpg", KNOWN).sha256

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(sha256, range(32)))) == 1


# ── what is not plain ─────────────────────────────────────────────────────────────────────────────────────────────


def transparent() -> Image.Image:
    picture = quadrants((256, 256))
    picture.putalpha(Image.linear_gradient("L"))
    return picture


_FINE = b"nclx\0\x01\0\x0d\0\x06\x80"
_NOT_PLAIN = {
    "4:4:4": lambda: heif(quadrants((128, 128)), chroma=444),
    "4:2:2": lambda: heif(quadrants((128, 128)), chroma=422),
    "grey": lambda: heif(quadrants((128, 128)).convert("L")),
    "transparent": lambda: heif(transparent()),
    "mirrored": lambda: tiled(quadrants((128, 64)), properties=[box(b"imir", b"\0")]),
    "turned twice": lambda: tiled(quadrants((128, 64)), properties=[box(b"irot", b"\1")]),
    "padded": lambda: heif(quadrants((64, 48))),
    "cropped": lambda: tiled(
        quadrants((128, 64)),
        properties=[box(b"clap", *(number.to_bytes(4, "big") for number in (100, 1, 60, 1, 0, 1, 0, 1)))],
    ),
    "oblong pixels": lambda: tiled(quadrants((128, 64)), properties=[box(b"pasp", b"\0\0\0\2\0\0\0\1")]),
    "with a property nobody knows": lambda: tiled(quadrants((128, 64)), properties=[box(b"wxyz", b"\0\0\0\0")]),
    "a tile that is turned": lambda: tiled(quadrants((128, 64)), tile_properties=[box(b"irot", b"\1")]),
    "a tile with an alpha of its own": lambda: tiled(quadrants((128, 64)), alpha_of_tile=True),
    "limited range": lambda: heif(quadrants((128, 128)), full_range_flag=0),
    "limited range, says the grid": lambda: tiled(
        quadrants((128, 64)), properties=[box(b"colr", _FINE[:-1] + b"\0")]
    ),
    "limited range, say the tiles": lambda: tiled(quadrants((128, 64)), tile_options=[{"full_range_flag": 0}]),
    "BT.709": lambda: heif(quadrants((128, 128)), matrix_coefficients=1),
    "BT.709, says the grid": lambda: tiled(
        quadrants((128, 64)), properties=[box(b"colr", _FINE[:9] + b"\x01\x80")]
    ),
    "tiles of two kinds": lambda: tiled(quadrants((128, 64)), tile_options=[{}, {"chroma": 444}]),
    "a grid of another size than it says": lambda: tiled(quadrants((128, 64)), grid_size=(128, 60)),
    "odd sides, and turned": lambda: tiled(quadrants((127, 63)), turns=1),
}  # fmt: skip


@pytest.mark.parametrize("kind", _NOT_PLAIN)
def test_what_is_not_plain_is_left_to_libheif(kind: str, tmp_path: Path, by_libheif: Any) -> None:
    source = tmp_path / "a.heic"
    source.write_bytes(_NOT_PLAIN[kind]())
    said = _rendered(source, tmp_path / "new.jpg")
    by_libheif()
    assert said == _rendered(source, tmp_path / "old.jpg")


def test_what_these_pictures_differ_in_is_all_that_keeps_them_from_being_plain() -> None:
    fine = box(b"colr", _FINE)
    assert _FINE == FULL_RANGE_601
    assert ours(heif(quadrants((128, 128)))) is not None
    assert ours(tiled(quadrants((128, 64)))) is not None
    assert ours(tiled(quadrants((128, 64)), properties=[fine], tile_properties=[fine])) is not None
    light = full_box(b"pixi", b"\x03\x08\x08\x08"), box(b"clli", b"\0\x10\0\x10")
    assert ours(tiled(quadrants((128, 64)), properties=light, tile_properties=light)) is not None


def test_ten_bits_are_left_to_libheif() -> None:
    written = io.BytesIO()
    ramp = bytes(range(256)) * 384
    pillow_heif.encode(mode="RGB;16", size=(128, 128), data=ramp, fp=written, quality=95, chroma=420)
    assert ours(written.getvalue()) is None


def test_too_many_pixels_are_refused_before_any_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversions, "plain_jpeg", lambda *_: pytest.fail("it was decoded"))
    source = tmp_path / "a.heic"
    source.write_bytes(heif(quadrants((200, 100))))
    with pytest.raises(PhotoUnreadable, match=r"more than the limit of 0\.01 million"):
        render(source, tmp_path / "a.jpg", options=RenderOptions(max_pixels=10_000))


def test_tiles_larger_than_they_say_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a tile says of its own size comes to light only in the decoder, which is told how much it may take."""
    data = bytearray(heif(quadrants((512, 512))))
    extent = data.index(b"ispe") + 8
    data[extent : extent + 8] = (64).to_bytes(4, "big") * 2
    assert read_plain_picture(bytes(data)).tile_width == 64
    with monkeypatch.context() as patched:
        patched.setattr(heif_ffmpeg, "_check_frame", lambda *_: pytest.fail("it was decoded"))
        assert plain_jpeg(bytes(data), (64, 64), 95, None) is None


@pytest.mark.parametrize("damage", ["zeros", "the end", "half a tile"])
def test_a_damaged_picture_is_left_to_libheif_which_has_the_last_word(
    damage: str, tmp_path: Path, by_libheif: Any
) -> None:
    data = tiled(photo_like((256, 192)))
    start, size = read_plain_picture(data).tiles[5]
    if damage == "zeros":
        data = data[: start + 6] + bytes(size - 6) + data[start + size :]
    else:
        data = data[: start + size // 2] + (data[start + size :] if damage == "half a tile" else b"")
    source = tmp_path / "a.heic"
    source.write_bytes(data)
    assert plain_jpeg(data, (256, 192), 95, None) is None
    said = _rendered(source, tmp_path / "new.jpg")
    by_libheif()
    assert said == _rendered(source, tmp_path / "old.jpg")


def _rendered(source: Path, out: Path) -> str:
    try:
        return render(source, out, KNOWN).sha256
    except PhotoUnreadable as error:
        return str(error)


@given(st.data())
@settings(max_examples=300)
def test_boxes_that_lie_are_refused_or_understood_and_nothing_else(data: st.DataObject) -> None:
    picture = bytearray(_sample())
    end = picture.index(b"mdat")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, end))
        lie = data.draw(st.sampled_from([b"\0", b"\xff", b"\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff"]))
        picture[at : at + len(lie)] = lie
    cut = data.draw(st.just(len(picture)) | st.integers(0, end))
    try:
        found = read_plain_picture(bytes(picture[:cut]))
    except NotPlain:
        return
    assert all(0 <= start < start + size <= cut for start, size in found.tiles)
    columns = found.columns
    rows = len(found.tiles) // columns
    if len(found.tiles) > 1:
        assert (columns - 1) * found.tile_width < found.width <= columns * found.tile_width
        assert (rows - 1) * found.tile_height < found.height <= rows * found.tile_height


_samples: list[bytes] = []


def _sample() -> bytes:
    if not _samples:
        _samples.append(tiled(quadrants((192, 128)), exif=exif_with().tobytes()))
    return _samples[0]


def test_many_small_boxes_cost_nothing() -> None:
    endless = box(b"ftyp", b"heic\0\0\0\0") + box(b"free") * 1_000_000
    with pytest.raises(NotPlain, match="too many boxes"):
        read_plain_picture(endless)
    with pytest.raises(NotPlain):
        read_plain_picture(full_box(b"meta", box(b"free") * 500_000))


# ── without the extra ─────────────────────────────────────────────────────────────────────────────────────────────

_WITHOUT = """
import sys
sys.modules[{module!r}] = None
from skicyclerun.images.heif_ffmpeg import why_not_used
from skicyclerun.images.render import RenderOptions, render_photo
from skicyclerun.models import Component, Fetched
from pathlib import Path
facts = render_photo(Fetched(Path(sys.argv[1])), Component.STILL, Path(sys.argv[2]), RenderOptions())
print(facts.sha256, why_not_used())
"""


@pytest.mark.parametrize("module", ["av", "simplejpeg"])
def test_without_its_packages_libheif_does_it(module: str, tmp_path: Path, by_libheif: Any) -> None:
    source = tmp_path / "a.heic"
    source.write_bytes(heif(photo_like((128, 96))))
    ended = subprocess.run(
        [sys.executable, "-c", _WITHOUT.format(module=module), str(source), str(tmp_path / "out.jpg")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    with_it = render(source, tmp_path / "new.jpg").sha256
    by_libheif()
    assert ended.stdout.split(" ", 1) == [render(source, tmp_path / "old.jpg").sha256, f"{module} is not installed\n"]
    assert with_it != ended.stdout.split()[0]


def test_nothing_but_a_heic_loads_ffmpeg(tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    quadrants().save(source)
    program = _WITHOUT.format(module="nothing").replace(
        "print(facts.sha256, why_not_used())", "print('av' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(source), str(tmp_path / "out.jpg")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ended.stdout == "False\n"


def test_a_decoder_without_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(heif_ffmpeg, "_planes", none_left)
    with pytest.raises(PhotoUnreadable, match="more memory than there is"):
        convert_plain_heic(Original.of_bytes(heif(quadrants((128, 128)))), Content.HEIF, 10**6, 95)


def test_what_ffmpeg_remarks_on_a_damaged_file_stays_off_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(heif(photo_like((256, 192))))
    chance = random.Random(int(os.environ.get("SKICYCLERUN_SEED", "1")))
    for _ in range(20):
        start = data.index(b"mdat") + 10
        data[chance.randrange(start, len(data))] ^= 0xFF
        plain_jpeg(bytes(data), (256, 192), 95, None)
    assert capfd.readouterr() == ("", "")
