"""Which source a setting and a path mean."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from skicyclerun.errors import LibraryError, UsageError
from skicyclerun.models import SourceKind
from skicyclerun.sources.base import Source
from skicyclerun.sources.choose import SOURCE_NAMES, choose_kind, make_source
from skicyclerun.sources.folder_tree import FolderTree
from skicyclerun.sources.photos_library import PhotosLibrary


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "named like anything"
    (path / "database").mkdir(parents=True)
    (path / "database" / "Photos.sqlite").write_bytes(b"")
    return path


def test_auto_without_a_library_is_photos_app_on_macos_only(tmp_path: Path) -> None:
    assert choose_kind("auto", None, platform="darwin") is SourceKind.APPLE_PHOTOS
    with pytest.raises(UsageError, match="only on macOS") as caught:
        choose_kind("auto", None, platform="linux")
    assert "--library PATH" in caught.value.next_step


@pytest.mark.parametrize("platform", ["darwin", "linux"])
def test_auto_with_a_path_is_what_the_path_is(tmp_path: Path, bundle: Path, platform: str) -> None:
    def kind(path: Path) -> SourceKind:
        return choose_kind("auto", path, platform=platform)

    assert kind(bundle) is SourceKind.PHOTOS_LIBRARY
    assert kind(tmp_path) is SourceKind.FOLDER
    assert kind(tmp_path / "My Library.PhotosLibrary") is SourceKind.PHOTOS_LIBRARY
    assert kind(tmp_path / "Aperture.aplibrary") is SourceKind.PHOTOS_LIBRARY
    assert kind(bundle / "database" / "Photos.sqlite") is SourceKind.PHOTOS_LIBRARY
    assert kind(tmp_path / "not there") is SourceKind.FOLDER


def test_a_named_source_is_that_source(tmp_path: Path, bundle: Path) -> None:
    assert isinstance(make_source("folder", tmp_path), FolderTree)
    assert isinstance(make_source("photos_library", bundle, missing="preview"), PhotosLibrary)
    assert isinstance(make_source("auto", bundle), PhotosLibrary)
    assert isinstance(make_source("auto", tmp_path), FolderTree)


def test_photos_app_is_made_by_whoever_knows_how(tmp_path: Path) -> None:
    stand_in: Source = FolderTree(tmp_path)
    assert make_source("apple_photos", None, platform="linux", make_apple_photos=lambda: stand_in) is stand_in
    assert make_source("auto", None, platform="darwin", make_apple_photos=lambda: stand_in) is stand_in
    with pytest.raises(UsageError, match=r"Photos\.app cannot be used here"):
        make_source("auto", None, platform="darwin")


@pytest.mark.parametrize("name", ["folder", "photos_library"])
def test_a_source_that_needs_a_library_says_what_to_type(name: str) -> None:
    with pytest.raises(UsageError, match=f"source {name} needs a library") as caught:
        make_source(name, None)
    assert "--library PATH" in caught.value.next_step


def test_photos_app_takes_no_library(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be given one") as caught:
        make_source("apple_photos", tmp_path)
    assert "--source photos_library" in caught.value.next_step


def test_an_unknown_source_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match=r"Did you mean 'photos_library'\?"):
        make_source("photo_library", None)
    with pytest.raises(UsageError, match=", ".join(SOURCE_NAMES)):
        make_source("", None)


def test_a_home_directory_in_the_path_is_resolved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert make_source("auto", Path("~/Pictures")).location == str(tmp_path / "Pictures")
    with pytest.raises(UsageError, match="nobody-of-that-name"):
        make_source("auto", Path("~nobody-of-that-name/Pictures"))


async def test_a_path_that_is_not_there_is_said_when_it_is_opened(tmp_path: Path) -> None:
    for name in ("none", "None.photoslibrary"):
        with pytest.raises(LibraryError, match="there is no such"):
            await make_source("auto", tmp_path / name).open()


def test_choosing_imports_neither_osxphotos_nor_the_image_stack() -> None:
    program = (
        "import sys; from pathlib import Path; from skicyclerun.sources.choose import make_source\n"
        "make_source('photos_library', Path('x.photoslibrary')); make_source('folder', Path('x'))\n"
        "print(sorted({'osxphotos', 'PIL', 'pillow_heif', 'exiv2', 'numpy', 'rawpy'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "[]"
