"""One photo in several albums: hard links and clones, through updates, verify, repair, archives and a kill."""

from __future__ import annotations

import shutil
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from skicyclerun.actors.messages import Intent
from skicyclerun.errors import PhotoTransient
from skicyclerun.files.shared_bytes import CannotShare, share_bytes
from skicyclerun.models import Album, Photo
from skicyclerun.progress.events import Notice
from skicyclerun.run.plan import RunRequest
from skicyclerun.run.session import RunSession
from skicyclerun.verification.report import Depth
from skicyclerun.verification.session import verify_and_repair, verify_only
from tests.command_line import ToldSource, Watching, exported, inodes, settings_for, skicyclerun
from tests.test_outputs import picture


class InTwoAlbums(ToldSource):
    """The photos of Alps are in Lake as well, as they are in a library: the same ones, before Lake's own."""

    def __init__(self, root: Path, fails: str = "") -> None:
        async def before(photo: Photo) -> None:
            if photo.original_filename == fails:
                raise PhotoTransient("not now")

        super().__init__(root, before)

    async def albums(self) -> list[Album]:
        return [album for album in await super().albums() if album.title in ("Alps", "Lake")]

    async def photos(self, album_id: str) -> list[Photo]:
        own = await super().photos(album_id)
        return own if album_id == "Alps" else [*await super().photos("Alps"), *own]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    root = tmp_path / "library"
    picture(root / "Alps" / "IMG_1.jpg")
    picture(root / "Alps" / "IMG_2.png", shade=20)
    picture(root / "Lake" / "IMG_3.jpg", shade=30)
    return root


@pytest.fixture
def lib_root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def export(
    lib_root: Path,
    library: Path,
    *,
    mode: str = "fresh",
    only: tuple[str, ...] = (),
    source: ToldSource | None = None,
    **settings: Any,
) -> tuple[list[str], list[str]]:
    """(notices, what was fetched from the source)."""
    source, watching = source or InTwoAlbums(library), Watching()
    given = {"duplicates": "hardlink", "mode": mode} | settings
    request = RunRequest(
        Intent.FRESH,
        settings_for(lib_root, library, {f"export.{key}": value for key, value in given.items()}),
        ("export",) if mode == "update" else ("cleanup", "export"),
        only,
        may_empty=True,
    )
    outcome = anyio.run(RunSession(request, renderer=watching, make=lambda *_: source).carry_out)
    assert outcome.ended_well, outcome
    return [event.text for event in watching.events if isinstance(event, Notice)], source.fetched


def update(lib_root: Path, library: Path, **settings: Any) -> tuple[list[str], list[str]]:
    return export(lib_root, library, mode="update", **settings)


def linked(lib_root: Path, name: str) -> bool:
    found = inodes(lib_root)
    return found[f"Alps/{name}"][0] == found[f"Lake/{name}"][0]


def sound(lib_root: Path) -> bool:
    return skicyclerun("verify", "--full", "--lib-root", lib_root).code == 0


def test_a_photo_in_two_albums_is_one_file_under_two_names_and_rendered_once(lib_root: Path, library: Path) -> None:
    said, fetched = export(lib_root, library)
    assert linked(lib_root, "IMG_1.jpg")
    assert linked(lib_root, "IMG_2.jpg")
    assert fetched == ["IMG_1.jpg", "IMG_2.png", "IMG_3.jpg"]
    assert not [text for text in said if "hard links" in text]
    assert sound(lib_root)


def test_linked_files_are_what_copies_would_be(lib_root: Path, library: Path, tmp_path: Path) -> None:
    export(lib_root, library)
    export(tmp_path / "copies", library, duplicates="copy")
    assert exported(lib_root) == exported(tmp_path / "copies")
    assert not linked(tmp_path / "copies", "IMG_1.jpg")
    times = [{name: mtime for name, (_, mtime) in inodes(root).items()} for root in (lib_root, tmp_path / "copies")]
    assert times[0] == times[1]


def test_an_update_of_one_album_leaves_the_bytes_of_the_other(lib_root: Path, library: Path) -> None:
    export(lib_root, library)
    before, was = exported(lib_root), inodes(lib_root)
    picture(library / "Alps" / "IMG_1.jpg", (60, 44), 250)
    update(lib_root, library, only=("Alps",))
    now = exported(lib_root)
    assert now["Alps/IMG_1.jpg"] != before["Alps/IMG_1.jpg"]
    assert now["Lake/IMG_1.jpg"] == before["Lake/IMG_1.jpg"]
    assert inodes(lib_root)["Lake/IMG_1.jpg"] == was["Lake/IMG_1.jpg"]
    assert sound(lib_root)
    _, fetched = update(lib_root, library)
    assert fetched == []
    assert exported(lib_root)["Lake/IMG_1.jpg"] == now["Alps/IMG_1.jpg"]
    assert linked(lib_root, "IMG_1.jpg")


def test_an_update_with_nothing_changed_writes_nothing(lib_root: Path, library: Path) -> None:
    export(lib_root, library)
    before = inodes(lib_root)
    update(lib_root, library)
    update(lib_root, library, duplicates="copy")
    assert inodes(lib_root) == before


def test_another_setting_is_another_picture_and_is_not_shared(lib_root: Path, library: Path) -> None:
    export(lib_root, library)
    update(lib_root, library, only=("Lake",), max_size=50)
    assert not linked(lib_root, "IMG_1.jpg")
    assert len(exported(lib_root)["Lake/IMG_1.jpg"]) < len(exported(lib_root)["Alps/IMG_1.jpg"])
    update(lib_root, library, max_size=50)
    assert linked(lib_root, "IMG_1.jpg")
    assert sound(lib_root)


def test_a_file_that_somebody_changed_is_not_handed_on(lib_root: Path, library: Path) -> None:
    export(lib_root, library, only=("Alps",))
    good = exported(lib_root)["Alps/IMG_1.jpg"]
    path = lib_root / "pipeline" / "albums" / "Alps" / "IMG_1.jpg"
    path.write_bytes(good[:-3] + b"bad")
    update(lib_root, library)
    assert exported(lib_root)["Lake/IMG_1.jpg"] == good
    assert not linked(lib_root, "IMG_1.jpg")


def test_damage_in_place_shows_under_both_names_and_both_are_repaired(lib_root: Path, library: Path) -> None:
    export(lib_root, library)
    before = exported(lib_root)
    path = lib_root / "pipeline" / "albums" / "Alps" / "IMG_1.jpg"
    with path.open("r+b") as stream:
        stream.write(b"damaged")
    settings = settings_for(lib_root, library, {"export.duplicates": "hardlink"})
    report = anyio.run(verify_only, settings, Depth("full")).report
    damaged = [f"{problem.folder}/{problem.name}" for problem in report.problems]
    assert sorted(damaged) == ["Alps/IMG_1.jpg", "Lake/IMG_1.jpg"]
    source = InTwoAlbums(library)
    repair = partial(verify_and_repair, settings, Depth("full"), Watching(), make=lambda *_: source)
    assert anyio.run(repair).report.sound
    assert exported(lib_root) == before
    assert linked(lib_root, "IMG_1.jpg")


def test_an_archive_holds_each_as_a_file_and_gives_each_back(lib_root: Path, library: Path, tmp_path: Path) -> None:
    export(lib_root, library)
    before = exported(lib_root)
    export(lib_root, library)
    assert exported(lib_root) == before
    (archive,) = (lib_root / "archive").glob("*.zip")
    with zipfile.ZipFile(archive) as members:
        held = {name.partition("/albums/")[2]: members.read(name) for name in members.namelist()}
    assert {name: data for name, data in held.items() if name in before} == before
    out = tmp_path / "restored"
    ended = skicyclerun("archive", "restore", "latest", "--to", out, "--lib-root", lib_root)
    assert ended.code == 0, ended.stderr
    restored = {str(path.relative_to(out)).partition("albums/")[2]: path for path in out.rglob("*.jpg")}
    assert {name: path.read_bytes() for name, path in restored.items()} == before
    assert len({path.stat().st_ino for path in restored.values()}) == len(before)


def test_one_name_leaves_its_album_and_the_other_stays(lib_root: Path, library: Path) -> None:
    export(lib_root, library)
    kept = exported(lib_root)["Alps/IMG_1.jpg"]
    source = ToldSource(library, lambda photo: _at_once())
    update(lib_root, library, source=source)
    assert sorted(exported(lib_root)) == ["Alps/IMG_1.jpg", "Alps/IMG_2.jpg", "Lake/IMG_3.jpg"]
    assert exported(lib_root)["Alps/IMG_1.jpg"] == kept
    assert sound(lib_root)


async def _at_once() -> None:
    """Nothing is waited for."""


def test_a_state_made_anew_knows_both_names(lib_root: Path, library: Path) -> None:
    export(lib_root, library)
    ended = skicyclerun("rebuild-state", "--force", "--lib-root", lib_root)
    assert ended.code == 0, ended.stderr
    assert sound(lib_root)
    before = inodes(lib_root)
    update(lib_root, library)
    assert inodes(lib_root) == before


def test_kept_originals_are_shared_too(lib_root: Path, library: Path) -> None:
    export(lib_root, library, keep_original=True, sidecar="xmp")
    assert linked(lib_root, "originals/IMG_2.png")
    assert linked(lib_root, "IMG_2.jpg.xmp")
    assert exported(lib_root)["Lake/originals/IMG_2.png"] == (library / "Alps" / "IMG_2.png").read_bytes()
    assert sound(lib_root)


# ── clones, and where there is neither ────────────────────────────────────────────────────────────────────────────


def has_clones(folder: Path) -> bool:
    (folder / "probe").mkdir()
    (folder / "probe" / "file").write_bytes(b"x" * 5000)
    digest = "0d4ed16b57f8b3f7b4a8b1a8e0d5f8e5a9f8f4f7"
    try:
        share_bytes(folder, ("probe", "file"), folder / "clone", "clone", sha256=digest)
    except CannotShare:
        return False
    return True


def test_where_the_disk_has_clones_each_is_a_file_of_its_own(lib_root: Path, library: Path, tmp_path: Path) -> None:
    if not has_clones(tmp_path):
        pytest.skip(f"the file system of {tmp_path} has no clones")
    said, fetched = export(lib_root, library, duplicates="clone")
    assert not linked(lib_root, "IMG_1.jpg")
    assert exported(lib_root)["Alps/IMG_1.jpg"] == exported(lib_root)["Lake/IMG_1.jpg"]
    assert len(fetched) == 3
    assert not [text for text in said if "clones" in text]
    with (lib_root / "pipeline" / "albums" / "Alps" / "IMG_1.jpg").open("r+b") as stream:
        stream.write(b"damaged")
    assert exported(lib_root)["Lake/IMG_1.jpg"][:7] != b"damaged"


def test_where_the_disk_has_none_photos_are_copied_and_it_is_said_once(
    lib_root: Path, library: Path, tmp_path: Path
) -> None:
    if has_clones(tmp_path):
        pytest.skip(f"the file system of {tmp_path} has clones")
    said, fetched = export(lib_root, library, duplicates="clone")
    assert len([text for text in said if "has no clones" in text]) == 1
    assert fetched == ["IMG_1.jpg", "IMG_2.png", "IMG_1.jpg", "IMG_2.png", "IMG_3.jpg"]
    assert not linked(lib_root, "IMG_1.jpg")
    assert exported(lib_root)["Alps/IMG_1.jpg"] == exported(lib_root)["Lake/IMG_1.jpg"]
    assert sound(lib_root)


def test_bytes_are_shared_only_if_they_are_those_and_no_link_leads_to_them(tmp_path: Path) -> None:
    import hashlib

    outputs, staged = tmp_path / "outputs", tmp_path / "staged"
    (outputs / "Alps").mkdir(parents=True)
    (outputs / "Alps" / "one.jpg").write_bytes(b"bytes")
    digest = hashlib.sha256(b"bytes").hexdigest()
    assert share_bytes(outputs, ("Alps", "one.jpg"), staged, "hardlink", sha256=digest) is not None
    assert staged.samefile(outputs / "Alps" / "one.jpg")
    staged.unlink()
    assert share_bytes(outputs, ("Alps", "one.jpg"), staged, "hardlink", sha256="0" * 64) is None
    assert share_bytes(outputs, ("Alps", "gone.jpg"), staged, "hardlink", sha256=digest) is None
    (outputs / "link").symlink_to(outputs / "Alps")
    (outputs / "Alps" / "link.jpg").symlink_to("one.jpg")
    for parts in (("link", "one.jpg"), ("Alps", "link.jpg")):
        assert share_bytes(outputs, parts, staged, "hardlink", sha256=digest) is None
        assert not staged.is_symlink()
        assert not staged.exists()
    shutil.rmtree(outputs)
