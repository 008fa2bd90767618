"""A lost or damaged state database is made anew from files and catalog, a lost catalog from the database."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skicyclerun.errors import LockHeld, StateDamaged, StateForeign, StateTooNew, StorageError, UsageError
from skicyclerun.rebuild.session import REASON
from skicyclerun.run.lock import RunLock
from skicyclerun.verification.report import Finding
from tests.exported_sample import SAMPLE_FILES, Exported, exported_once, flip_a_byte
from tests.shared_libraries import MEDIA_TYPES_LIBRARY, TEST_LIBRARY


@pytest.fixture(scope="module")
def library(sample_library: Path) -> Path:
    return sample_library


@pytest.fixture(scope="module")
def put_back(tmp_path_factory: pytest.TempPathFactory, library: Path) -> Callable[[], Exported]:
    return exported_once(tmp_path_factory.mktemp("exported"), library)


@pytest.fixture
def exported(put_back: Callable[[], Exported]) -> Exported:
    return put_back()


def lose_state(exported: Exported) -> None:
    shutil.rmtree(exported.state_db.parent)


#: What a run knows of its files; the order within an album is that of the catalog.
WHAT_IS_KNOWN = """
SELECT albums.source_id, albums.title, albums.folder_path, albums.folder, albums.status, albums.expected,
       photos.source_id, photos.component, photos.original_filename, photos.fingerprint, photos.file_name,
       photos.status, photos.size, photos.sha256, photos.mtime_ns, photos.facts, photos.exported_at, photos.present,
       photos.path_key
FROM photos JOIN albums ON albums.id = photos.album WHERE photos.present = 1 ORDER BY photos.path_key
"""


def aside(exported: Exported, label: str) -> list[Path]:
    return sorted(exported.state_db.parent.glob(f"{exported.state_db.name}.{label}-*"))


# ── lost ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_lost_database_comes_back_with_all_it_knew(exported: Exported) -> None:
    known = exported.sql(WHAT_IS_KNOWN)
    folders = exported.sql("SELECT * FROM album_folders")
    catalog, files = exported.catalog.read_bytes(), exported.files()
    lose_state(exported)
    report = exported.exporter.rebuild_state()
    assert report.whole
    assert (report.albums, report.claimed, report.kept_as) == (4, 13, None)
    assert exported.sql(WHAT_IS_KNOWN) == known
    assert exported.sql("SELECT * FROM album_folders") == folders
    assert exported.sql("SELECT status, reason, source_kind, source_location FROM runs") == [
        ("finished", REASON, "folder", str(exported.library))
    ]
    assert exported.exporter.verify_exports(full=True).sound
    assert not exported.exporter.catalog_exports().written
    assert exported.catalog.read_bytes() == catalog
    assert exported.files() == files


def test_every_step_of_a_rebuilt_album_is_a_legal_one(exported: Exported) -> None:
    lose_state(exported)
    exported.exporter.rebuild_state()
    steps = exported.sql("SELECT subject, subject_id, from_status, to_status FROM transitions ORDER BY id")
    assert steps[0] == ("run", 1, "", "active")
    assert steps[-1] == ("run", 1, "active", "finished")
    for album in (1, 2, 3, 4):
        own = [(before, after) for subject, number, before, after in steps if (subject, number) == ("album", album)]
        assert own == [("pending", "exporting"), ("exporting", "done")]


@pytest.mark.parametrize("real", [TEST_LIBRARY, MEDIA_TYPES_LIBRARY], ids=lambda path: path.stem)
def test_exports_of_real_libraries_come_back(tmp_path: Path, real: Path) -> None:
    exported = Exported(tmp_path / "out", real).export()
    known = [row[:4] + row[6:] for row in exported.sql(WHAT_IS_KNOWN)]
    catalog = exported.catalog.read_bytes()
    lose_state(exported)
    report = exported.exporter.rebuild_state()
    assert report.whole
    assert report.claimed == len(known) > 0
    # The title with its folders is what counts; a folder whose name holds a `/` may come back as two.
    rebuilt = [row[:4] + row[6:] for row in exported.sql(WHAT_IS_KNOWN)]
    assert [_joined(row) for row in rebuilt] == [_joined(row) for row in known]
    assert exported.exporter.verify_exports(full=True).sound
    assert not exported.exporter.catalog_exports().written
    assert exported.catalog.read_bytes() == catalog


def _joined(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*row[:2], "/".join(json.loads(row[2])), *row[3:])


def test_a_run_after_a_rebuild_keeps_folders_and_names(exported: Exported) -> None:
    files = exported.files()
    folders = dict(exported.sql("SELECT album_id, folder FROM album_folders"))
    # Folders that no run would choose by itself again: kept because they are remembered, not because they come out so.
    (exported.albums / "Alps").rename(exported.albums / "First Alps")
    text = exported.catalog.read_text().replace("/albums/Alps/", "/albums/First Alps/")
    exported.catalog.write_text(text)
    lose_state(exported)
    assert exported.exporter.rebuild_state().whole
    exported.export()
    moved = {
        name.replace("Alps/", "First Alps/", 1) if name.startswith("Alps/") else name: digest
        for name, digest in files.items()
    }
    assert exported.files() == moved
    now = dict(exported.sql("SELECT album_id, folder FROM album_folders"))
    assert now == {album: "First Alps" if folder == "Alps" else folder for album, folder in folders.items()}


def test_a_moved_lib_root_is_rebuilt_where_it_is_now(exported: Exported, tmp_path: Path) -> None:
    moved = Exported(tmp_path / "moved", exported.library)
    exported.lib_root.rename(moved.lib_root)
    lose_state(moved)
    report = moved.exporter.rebuild_state()
    assert report.claimed == 13
    assert report.whole


# ── files that are not as the catalog says ────────────────────────────────────────────────────────────────────────


def test_files_that_differ_are_named_and_not_claimed(exported: Exported) -> None:
    changed = exported.albums / "Alps" / "IMG_0001.jpg"
    flip_a_byte(changed)
    short = exported.albums / "Alps" / "IMG_0002.jpg"
    os.truncate(short, 100)
    linked = exported.albums / "Alps" / "IMG_0003.jpg"
    linked.rename(exported.lib_root / "elsewhere.jpg")
    linked.symlink_to(exported.lib_root / "elsewhere.jpg")
    before = exported.files()
    lose_state(exported)
    report = exported.exporter.rebuild_state()
    assert {path for path, _ in report.differing} == {str(changed), str(short), str(linked)}
    assert (report.claimed, report.gone, report.unknown) == (10, (), ())
    assert exported.files() == before
    # Nobody speaks for them, so nobody will write over them.
    unknown = [p.name for p in exported.exporter.verify_exports().problems if p.finding is Finding.UNKNOWN_FILE]
    assert sorted(unknown) == ["IMG_0001.jpg", "IMG_0002.jpg", "IMG_0003.jpg"]
    assert exported.command("rebuild-state", "--force") == 3


def test_files_that_are_gone_can_be_asked_for_again(exported: Exported) -> None:
    before = exported.files()
    (exported.albums / "Alps (2)" / "IMG_0001 (2).jpg").unlink()
    shutil.rmtree(exported.albums / "Coast_Harbour")
    lose_state(exported)
    report = exported.exporter.rebuild_state()
    assert {Path(path).name for path in report.gone} == {"IMG_0001 (2).jpg", *SAMPLE_FILES["Coast_Harbour"]}
    assert exported.command("retry-failed", "--yes") == 0
    assert exported.files() == before
    assert exported.exporter.verify_exports(full=True).sound


def test_strangers_are_named(exported: Exported) -> None:
    (exported.albums / "Alps" / "mine.jpg").write_text("mine")
    lose_state(exported)
    report = exported.exporter.rebuild_state()
    assert report.unknown == ("Alps/mine.jpg",)
    assert not report.whole


def test_entries_that_contradict_each_other_are_named_and_the_others_claimed(exported: Exported) -> None:
    entries = exported.entries()
    paths = sorted(entries)
    first = exported.albums / "Alps" / "IMG_0004.jpg"
    copy = exported.albums / "Alps" / "copy.jpg"
    shutil.copy2(first, copy)
    entries[str(copy)] = entries[str(first)]  # one photo under two names
    entries[paths[1]]["source"]["album_id"] = "another album"  # two albums in one folder
    entries[paths[2]]["sha256"] = "no hash"
    entries[paths[3]] = None
    entries["/etc/passwd"] = entries[paths[4]]
    entries[str(exported.albums / "Alps" / ".." / ".." / "x.jpg")] = entries[paths[4]]
    entries[str(exported.albums)] = entries[paths[4]]
    exported.write_entries(entries)
    lose_state(exported)
    report = exported.exporter.rebuild_state()
    assert report.claimed == 10
    assert str(first) not in dict(report.unclaimed)
    named = {path for path, _ in report.unclaimed}
    assert {str(copy), paths[1], "/etc/passwd", str(exported.albums)} <= named
    assert exported.sql("SELECT COUNT(*) FROM photos WHERE present = 1") == [(10,)]


_ENTRY_TEXT = st.text(max_size=8) | st.sampled_from(["..", ".", "", "a/b", "Alps", "\0", "é", "e\u0301"])


@settings(max_examples=25)
@given(
    strange=st.dictionaries(
        st.tuples(_ENTRY_TEXT, _ENTRY_TEXT).map("/".join),
        st.fixed_dictionaries(
            {
                "type": st.just("exported"),
                "export_timestamp": st.just("2026-01-01T00:00:00Z"),
                "sha256": st.sampled_from(["0" * 64, "x"]),
                "size": st.integers(-1, 3),
                "source": st.fixed_dictionaries(
                    {
                        "kind": st.sampled_from(["folder", "apple_photos", "x"]),
                        "album_id": _ENTRY_TEXT,
                        "photo_id": _ENTRY_TEXT,
                    }
                ),
            }
        ),
        max_size=6,
    )
)
def test_no_catalog_whatever_it_holds_makes_a_file_ours_that_is_not(
    worn: tuple[Exported, dict[str, Any]], strange: dict[str, Any]
) -> None:
    exported, entries = worn
    exported.write_entries(entries | {f"{exported.albums}/{path}": entry for path, entry in strange.items()})
    before = exported.files()
    report = exported.exporter.rebuild_state(force=True)
    assert report.claimed == 13
    assert exported.files() == before
    assert exported.sql("PRAGMA integrity_check") == [("ok",)]
    assert exported.sql("SELECT COUNT(*) FROM photos WHERE present = 1") == [(13,)]


@pytest.fixture(scope="module")
def worn(tmp_path_factory: pytest.TempPathFactory, library: Path) -> tuple[Exported, dict[str, Any]]:
    exported = Exported(tmp_path_factory.mktemp("worn") / "out", library).export()
    return exported, exported.entries()


# ── a database that is there ──────────────────────────────────────────────────────────────────────────────────────


def test_a_sound_database_only_gives_way_to_force_and_is_kept(exported: Exported) -> None:
    known = exported.sql(WHAT_IS_KNOWN)
    with pytest.raises(UsageError, match="sound"):
        exported.exporter.rebuild_state()
    assert exported.command("rebuild-state") == 2
    assert aside(exported, "replaced") == []
    report = exported.exporter.rebuild_state(force=True)
    assert report.kept_as is not None
    assert aside(exported, "replaced") == [report.kept_as]
    with closing(sqlite3.connect(report.kept_as)) as connection:
        assert connection.execute(WHAT_IS_KNOWN).fetchall() == known
    assert exported.sql(WHAT_IS_KNOWN) == known


def test_what_is_set_aside_never_replaces_what_was(exported: Exported) -> None:
    for _ in range(3):
        exported.exporter.rebuild_state(force=True)
    assert len(aside(exported, "replaced")) == 3


def _page(number: int) -> Callable[[bytearray], None]:
    def damage(data: bytearray) -> None:
        data[number * 4096 : (number + 1) * 4096] = b"\xaa" * 4096

    return damage


def _cut(data: bytearray) -> None:
    del data[len(data) // 2 :]


def _magic(data: bytearray) -> None:
    data[:16] = b"no database at al"[:16]


def _zeros(data: bytearray) -> None:
    data[:] = bytes(len(data))


def _text(data: bytearray) -> None:
    data[:] = b"this is no database\n" * 300


DAMAGES: dict[str, Callable[[bytearray], None]] = {
    "first page": _page(0),
    "second page": _page(1),
    "a page in the middle": _page(7),
    "cut": _cut,
    "magic": _magic,
    "zeros": _zeros,
    "text": _text,
}


@pytest.mark.parametrize("where", DAMAGES)
def test_a_damaged_database_is_set_aside_by_a_run_and_rebuilt(
    exported: Exported, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files, catalog = exported.files(), exported.catalog.read_bytes()
    data = bytearray(exported.state_db.read_bytes())
    DAMAGES[where](data)
    exported.state_db.write_bytes(data)
    library = ("--library", str(exported.library))
    assert exported.command("run", "--yes", *library) == 1
    said = capsys.readouterr().err
    (kept,) = aside(exported, "corrupt")
    assert str(kept) in said
    assert "rebuild-state" in said
    assert kept.read_bytes() == data
    assert not exported.state_db.exists()
    assert exported.files() == files
    assert exported.command("rebuild-state", *library) == 0
    assert exported.exporter.verify_exports(full=True).sound
    exported.export()
    assert exported.files() == files
    assert json.loads(catalog).keys() == exported.entries().keys()


@pytest.mark.parametrize("where", DAMAGES)
def test_rebuild_sets_a_damaged_database_aside_itself(exported: Exported, where: str) -> None:
    known = exported.sql(WHAT_IS_KNOWN)
    data = bytearray(exported.state_db.read_bytes())
    DAMAGES[where](data)
    exported.state_db.write_bytes(data)
    report = exported.exporter.rebuild_state()
    assert report.whole
    assert [report.kept_as] == aside(exported, "corrupt")
    assert aside(exported, "corrupt")[0].read_bytes() == data
    assert exported.sql(WHAT_IS_KNOWN) == known


def test_the_log_of_a_damaged_database_goes_with_it(exported: Exported) -> None:
    data = bytearray(exported.state_db.read_bytes())
    _magic(data)
    exported.state_db.write_bytes(data)
    wal = Path(f"{exported.state_db}-wal")
    wal.write_bytes(b"a log that nobody may lose")
    report = exported.exporter.rebuild_state()
    assert report.kept_as is not None
    assert Path(f"{report.kept_as}-wal").read_bytes() == b"a log that nobody may lose"
    assert not wal.exists()
    assert exported.exporter.verify_exports().sound


def test_a_dry_run_leaves_a_damaged_database_where_it_is(exported: Exported) -> None:
    data = bytearray(exported.state_db.read_bytes())
    _page(1)(data)
    exported.state_db.write_bytes(data)
    assert exported.command("run", "--dry-run", "--library", str(exported.library)) == 1
    assert exported.state_db.read_bytes() == data


@pytest.mark.parametrize("by_a_run", [False, True])
def test_the_source_is_read_from_the_damaged_database_where_it_can_be(
    tmp_path: Path, library: Path, by_a_run: bool
) -> None:
    exported = Exported(tmp_path / "out", library)
    exported.export()
    exported.sql("UPDATE runs SET options = json_set(options, '$.jpeg_quality', 77)")
    page = exported.sql("SELECT rootpage FROM sqlite_master WHERE name = 'photos'")[0][0]
    data = bytearray(exported.state_db.read_bytes())
    _page(page - 1)(data)
    exported.state_db.write_bytes(data)
    if by_a_run:
        assert exported.command("run", "--yes", "--library", str(library)) == 1
        assert len(aside(exported, "corrupt")) == 1
    assert exported.command("rebuild-state") == 0  # No --library is needed.
    location, options = exported.sql("SELECT source_location, options FROM runs")[0]
    assert location == str(library)
    assert json.loads(options)["jpeg_quality"] == 77


def test_without_any_word_of_the_source_it_is_asked_for(exported: Exported, capsys: pytest.CaptureFixture[str]) -> None:
    lose_state(exported)
    assert exported.command("rebuild-state") == 2
    assert "--library" in capsys.readouterr().err
    assert not exported.state_db.exists()


def test_a_database_of_another_program_is_never_touched(exported: Exported) -> None:
    exported.state_db.unlink()
    exported.sql("CREATE TABLE treasure (gold INTEGER)")
    before = exported.state_db.read_bytes()
    assert exported.command("run", "--yes", "--library", str(exported.library)) == 1
    with pytest.raises(StateForeign, match="another program"):
        exported.exporter.rebuild_state()
    assert exported.state_db.read_bytes() == before
    report = exported.exporter.rebuild_state(force=True)
    assert report.kept_as is not None
    assert report.kept_as.read_bytes() == before


def test_a_database_of_a_newer_version_is_left_alone(exported: Exported) -> None:
    exported.sql("PRAGMA user_version = 9999")
    before = exported.state_db.read_bytes()
    with pytest.raises(StateTooNew):
        exported.exporter.rebuild_state()
    assert exported.state_db.read_bytes() == before


@pytest.mark.parametrize("catalog", [None, "{", "[]", ""])
def test_without_a_catalog_nothing_is_touched(exported: Exported, catalog: str | None) -> None:
    exported.catalog.unlink()
    if catalog is not None:
        exported.catalog.write_text(catalog)
    data = bytearray(exported.state_db.read_bytes())
    _page(1)(data)
    exported.state_db.write_bytes(data)
    with pytest.raises(StorageError, match="cannot be used"):
        exported.exporter.rebuild_state()
    assert exported.state_db.read_bytes() == data
    assert sorted(path.name for path in exported.state_db.parent.iterdir() if "rebuilding" in path.name) == []


def test_a_catalog_without_entries_of_ours_is_no_ground_to_rebuild_from(exported: Exported) -> None:
    exported.write_entries({"/x/y/z.jpg": {"type": "scaled"}})
    lose_state(exported)
    with pytest.raises(UsageError, match="nothing to rebuild"):
        exported.exporter.rebuild_state()


@pytest.mark.parametrize("fault", ["run.created", "album.started", "group.committed", "run.finished"])
def test_a_rebuild_that_is_killed_leaves_the_old_database_and_can_be_repeated(exported: Exported, fault: str) -> None:
    known = exported.sql(WHAT_IS_KNOWN)
    data = bytearray(exported.state_db.read_bytes())
    _cut(data)
    exported.state_db.write_bytes(data)
    library = ("--library", str(exported.library))
    assert exported.process("rebuild-state", *library, SKICYCLERUN_FAULT=fault).returncode == -9
    assert exported.state_db.read_bytes() == data
    assert exported.command("rebuild-state", *library) == 0
    assert exported.sql(WHAT_IS_KNOWN) == known
    assert [path.name for path in exported.state_db.parent.iterdir() if "rebuilding" in path.name] == []


def test_a_rebuild_waits_for_no_lock(exported: Exported) -> None:
    with RunLock(exported.lib_root, exported.state_db.parent / "run.lock"), pytest.raises(LockHeld):
        exported.exporter.rebuild_state(force=True)


# ── the catalog from the database ─────────────────────────────────────────────────────────────────────────────────


def test_a_lost_catalog_is_made_anew(exported: Exported, capsys: pytest.CaptureFixture[str]) -> None:
    before = exported.catalog.read_bytes()
    exported.catalog.unlink()
    assert exported.command("rebuild-catalog", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["written"], document["entries"], document["set_aside"]) == (True, 13, None)
    assert exported.catalog.read_bytes() == before
    assert exported.command("rebuild-catalog") == 0
    assert "not touched" in capsys.readouterr().out


def test_a_damaged_catalog_is_set_aside_by_rebuild_and_by_the_next_run(
    exported: Exported, capsys: pytest.CaptureFixture[str]
) -> None:
    before = exported.catalog.read_bytes()
    exported.catalog.write_text('{"cut')
    assert exported.command("rebuild-catalog") == 0
    assert "corrupt" in capsys.readouterr().err
    assert exported.catalog.read_bytes() == before
    (kept,) = exported.catalog.parent.glob("master.json.corrupt-*")
    assert kept.read_text() == '{"cut'


def test_a_rebuilt_catalog_keeps_what_other_programs_wrote(exported: Exported) -> None:
    entries = exported.entries()
    first = next(iter(entries))
    entries["/scaled/x.jpg"] = {"type": "scaled"}
    entries[first] = {"caption": "a lake"}
    exported.write_entries(entries)
    assert exported.exporter.catalog_exports().written
    after = exported.entries()
    assert after["/scaled/x.jpg"] == {"type": "scaled"}
    assert after[first]["caption"] == "a lake"
    found = exported.exporter.verify_exports().problems
    assert [(each.finding.value, each.name) for each in found] == [("points_nowhere", "/scaled/x.jpg")]


def test_without_state_no_catalog_is_made(tmp_path: Path, library: Path) -> None:
    exported = Exported(tmp_path / "out", library)
    assert exported.command("rebuild-catalog") == 10
    assert not exported.lib_root.exists()


def test_a_damaged_database_gives_no_catalog(exported: Exported) -> None:
    before = exported.catalog.read_bytes()
    data = bytearray(exported.state_db.read_bytes())
    _page(1)(data)
    exported.state_db.write_bytes(data)
    with pytest.raises(StateDamaged):
        exported.exporter.catalog_exports()
    assert exported.catalog.read_bytes() == before
