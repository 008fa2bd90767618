"""An album's folder: durable under its name, whoever made it, and never a link."""

from __future__ import annotations

from pathlib import Path

import pytest

from skicyclerun.errors import OutsideFolder
from skicyclerun.files.album_folder import AlbumFolder


def test_a_folder_that_a_killed_run_made_has_its_name_synced_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Alps").mkdir()
    synced: list[Path] = []
    monkeypatch.setattr("skicyclerun.files.album_folder.sync_directory", synced.append)
    AlbumFolder(tmp_path, "Alps").create()
    assert synced == [tmp_path]


@pytest.mark.parametrize("name", ["", ".", "..", "../beside", "a/b", "/etc"])
def test_a_name_that_leads_out_of_the_export_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutsideFolder):
        AlbumFolder(tmp_path, name)


def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "albums").mkdir()
    (tmp_path / "albums" / "Alps").symlink_to(tmp_path / "elsewhere")
    folder = AlbumFolder(tmp_path / "albums", "Alps")
    with pytest.raises(OutsideFolder):
        folder.create()
    with pytest.raises(OutsideFolder):
        folder.publish([])
