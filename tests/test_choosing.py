"""What is exported of a source: groups of all photos, albums left out, filters; in runs, resumes, updates, verify."""

from __future__ import annotations

import json
import shutil
import signal
import zipfile
from pathlib import Path
from typing import Any

import pytest

from skicyclerun import PhotoExporter
from skicyclerun.errors import AllExcluded, NoAlbumMatches
from skicyclerun.models import Album, AlbumKind
from skicyclerun.sources.album_selection import excluded_albums, select_albums
from skicyclerun.sources.folder_tree import FolderTree
from skicyclerun.sources.photo_choice import PhotoChoice, albums_to_export
from tests.command_line import Ended, Terminal, exported, inodes, skicyclerun, skicyclerun_process, status_of
from tests.shared_libraries import TEST_LIBRARY, copy_library, edit_database
from tests.staged_sample import Staged
from tests.standin_osascript.scenario import Scenario

JULY, AUGUST, LATER = "2024:07:21 10:00:00", "2024:08:02 09:30:00", "2025:01:05 12:00:00"


@pytest.fixture
def sample(tmp_path: Path) -> Staged:
    """Three albums whose photos are of three months, and one of no known date."""
    sample = Staged(tmp_path)
    sample.picture("Alps/a.jpg", 10, date=JULY)
    sample.picture("Alps/b.jpg", 40, date=AUGUST, size=(200, 100))
    sample.picture("Coast/c.jpg", 80, date=JULY)
    sample.picture("Coast/undated.jpg", 120)
    sample.picture("Private/p.jpg", 160, date=LATER)
    return sample


def run(sample: Staged, *options: str) -> Ended:
    return sample.run("--stages", "export", "--no-cleanup", *options)


def update(sample: Staged, *options: str) -> Ended:
    return sample.run("--stages", "export", "--update", *options)


def entries(sample: Staged) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((sample.lib_root / "metadata" / "master.json").read_text())
    prefix = str(sample.outputs("albums")) + "/"
    return {path.removeprefix(prefix): entry for path, entry in found.items()}


def archived(sample: Staged) -> list[str]:
    """Photos in all archives, by folder and name."""
    found = []
    for path in sorted((sample.lib_root / "archive").glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            found += [name.partition("/albums/")[2] for name in archive.namelist() if name.endswith(".jpg")]
    return sorted(found)


# ── groups of all photos ──────────────────────────────────────────────────────────────────────────────────────────


def test_everything_is_exported_in_groups_beside_the_albums(sample: Staged) -> None:
    assert run(sample, "--everything").code == 0
    assert sample.names("albums") == [
        "2024-07/a.jpg", "2024-07/c.jpg", "2024-08/b.jpg", "2025-01/p.jpg", "Alps/a.jpg", "Alps/b.jpg",
        "Coast/c.jpg", "Coast/undated.jpg", "Private/p.jpg", "Without a date/undated.jpg",
    ]  # fmt: skip
    albums = {album["id"]: album for album in status_of(sample.lib_root)["albums"]}
    assert [key for key in albums if key.startswith("group:")] == [
        "group:month:2024-07", "group:month:2024-08", "group:month:2025-01", "group:month:",
    ]  # fmt: skip
    assert (albums["group:month:2024-07"]["title"], albums["group:month:2024-07"]["exported"]) == ("2024-07", 2)
    assert entries(sample)["2024-07/a.jpg"]["source"]["album_id"] == "group:month:2024-07"
    assert sample.run("verify", "--full").code == 0
    before = inodes(sample.lib_root)
    assert update(sample, "--everything").code == 0
    assert inodes(sample.lib_root) == before


@pytest.mark.parametrize(
    ("by", "folders"),
    [
        ("year", ["2024", "2025", "Without a date"]),
        ("day", ["2024-07-21", "2024-08-02", "2025-01-05", "Without a date"]),
        ("place", ["Without a place"]),
    ],
)
def test_groups_are_by_what_is_asked_for_and_groups_alone_can_be_taken(
    sample: Staged, by: str, folders: list[str]
) -> None:
    assert run(sample, "--everything", "--group-by", by, "--album", "group:*").code == 0
    assert sorted({name.partition("/")[0] for name in sample.names("albums")}) == folders


def test_a_run_with_groups_that_was_killed_and_resumed_ends_like_one_never_killed(
    sample: Staged, tmp_path: Path
) -> None:
    options = ("--everything", "--since", "2024-07-21", "--exclude", "Private")
    assert run(sample, *options).code == 0
    whole, catalog = exported(sample.lib_root), entries(sample)
    shutil.rmtree(sample.lib_root)
    sample.configure(export={"source": "folder", "library": str(sample.library), "group_photos": 1})
    for fault in ("albums.planned", "group.renamed:2", "album.finished:2"):
        again = (
            sample.arguments("--resume")
            if (sample.lib_root / "state").exists()
            else sample.arguments("--stages", "export", "--no-cleanup", *options)
        )
        assert skicyclerun_process(*again, extra={"SKICYCLERUN_FAULT": fault}).code == -signal.SIGKILL
    # What the configuration says by now is no matter of this run.
    sample.configure(export={"source": "folder", "library": str(sample.library), "filters": {"since": "2025"}})
    resumed = sample.run("--resume")
    assert resumed.code == 0
    assert "keeps the export settings it was begun with" in resumed.stderr
    assert exported(sample.lib_root) == whole

    def lasting(found: dict[str, Any]) -> dict[str, Any]:
        kept = ("album_name", "file_name", "sha256", "source", "date_taken")
        return {name: {key: entry.get(key) for key in kept} for name, entry in found.items()}

    assert lasting(entries(sample)) == lasting(catalog)


def test_an_age_is_counted_from_the_day_the_run_was_begun(sample: Staged) -> None:
    assert run(sample, "--since", "20000d").code == 0
    ((options,),) = sample.sql("SELECT options FROM runs")
    kept = PhotoChoice.from_row(json.loads(options))
    assert kept.begun is not None
    assert kept.filters.since is not None
    assert (kept.begun - kept.filters.since).days == 20000


def test_a_photo_whose_date_changes_moves_to_another_group_and_keeps_what_others_said(sample: Staged) -> None:
    assert run(sample, "--everything", "--album", "group:*").code == 0
    catalog = sample.lib_root / "metadata" / "master.json"
    written = json.loads(catalog.read_text())
    written[str(sample.outputs("albums") / "2024-07" / "a.jpg")]["geo"] = {"formatted": "Zermatt"}
    catalog.write_text(json.dumps(written))
    sample.picture("Alps/a.jpg", 10, date=AUGUST)
    assert update(sample, "--everything", "--album", "group:*").code == 0
    assert [name for name in sample.names("albums") if name.endswith("a.jpg")] == ["2024-08/a.jpg"]
    assert entries(sample)["2024-08/a.jpg"]["geo"] == {"formatted": "Zermatt"}
    assert archived(sample) == ["2024-07/a.jpg"]
    assert sample.run("verify").code == 0


def test_a_group_that_nothing_is_in_any_more_goes_and_without_everything_all_of_them_stay(sample: Staged) -> None:
    assert run(sample, "--everything").code == 0
    (sample.library / "Private" / "p.jpg").unlink()
    assert update(sample).code == 0
    assert "2025-01/p.jpg" in sample.names("albums")
    assert "Private/p.jpg" not in sample.names("albums")
    assert update(sample, "--everything").code == 0
    assert "2025-01/p.jpg" not in sample.names("albums")


def test_groups_of_another_kind_give_way_and_say_so(sample: Staged) -> None:
    assert run(sample, "--everything").code == 0
    done = update(sample, "--everything", "--group-by", "year")
    assert (done.code, "The groups by month that are exported now give way to those by year." in done.stderr) == (
        0,
        True,
    )
    folders = {name.partition("/")[0] for name in sample.names("albums")}
    assert folders == {"2024", "2025", "Alps", "Coast", "Private", "Without a date"}
    assert sample.run("verify").code == 0


def test_an_update_of_an_album_alone_leaves_groups_of_another_kind_alone(sample: Staged) -> None:
    assert run(sample, "--everything").code == 0
    before = inodes(sample.lib_root)
    assert update(sample, "--everything", "--group-by", "year", "--album", "Alps").code == 0
    assert inodes(sample.lib_root) == before


def test_a_broken_file_of_a_group_is_found_and_exported_again(sample: Staged) -> None:
    assert run(sample, "--everything").code == 0
    file = sample.outputs("albums") / "2024-07" / "c.jpg"
    before = file.read_bytes()
    file.write_bytes(b"broken")
    assert sample.run("verify").code == 3
    assert sample.run("verify", "--repair").code == 0
    assert file.read_bytes() == before
    file.unlink()
    assert sample.run("verify", "--repair").code == 0
    assert file.read_bytes() == before


def test_what_failed_in_a_group_is_fetched_again(sample: Staged) -> None:
    path = sample.library / "Alps" / "a.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[:400])
    assert run(sample, "--everything", "--album", "group:*").code == 3
    path.write_bytes(whole)
    assert sample.run("retry-failed").code == 0
    assert "2024-07/a.jpg" in sample.names("albums") or "Without a date/a.jpg" in sample.names("albums")


def test_a_state_that_is_rebuilt_knows_the_groups(sample: Staged) -> None:
    assert run(sample, "--everything").code == 0
    (sample.lib_root / "state" / "skicyclerun.sqlite3").unlink()
    before = inodes(sample.lib_root)
    rebuilt = skicyclerun("rebuild-state", "--lib-root", sample.lib_root)
    assert rebuilt.code == 0
    assert update(sample, "--everything").code == 0
    assert inodes(sample.lib_root) == before
    ids = {album["id"] for album in status_of(sample.lib_root)["albums"]}
    assert "group:month:2024-07" in ids


def test_photos_that_are_in_an_album_are_left_out_of_the_groups_on_wish(tmp_path: Path) -> None:
    arguments = ("--library", TEST_LIBRARY, "--everything", "--not-in-albums", "--group-by", "year", "--json")
    told = skicyclerun("albums", *arguments).json
    groups = {album["title"]: album["photos"] for album in told["albums"] if album["kind"] == "group"}
    assert groups == {"2018": 1, "2019": 1, "2020": 1, "Without a date": 1}
    everything = skicyclerun("albums", *(each for each in arguments if each != "--not-in-albums")).json
    counts = [album["photos"] for album in everything["albums"] if album["kind"] == "group"]
    assert sum(counts) == 13


def test_hidden_photos_come_only_where_they_are_asked_for(tmp_path: Path) -> None:
    arguments = ("--library", TEST_LIBRARY, "--everything", "--group-by", "year", "--json")
    plain, hidden = skicyclerun("albums", *arguments).json, skicyclerun("albums", *arguments, "--hidden").json
    counts = [sum(album["photos"] for album in each["albums"] if album["kind"] == "group") for each in (plain, hidden)]
    assert counts == [13, 14]


def test_a_folder_that_is_called_as_a_group_is_an_album(tmp_path: Path) -> None:
    sample = Staged(tmp_path)
    sample.picture("group:month:2024-07/a.jpg", 10, date=JULY)
    assert run(sample, "--everything").code == 0
    ids = [album["id"] for album in status_of(sample.lib_root)["albums"]]
    assert ids == ["group%3Amonth:2024-07", "group:month:2024-07"]
    assert sorted(sample.names("albums")) == ["2024-07/a.jpg", "group_month_2024-07/a.jpg"]


# ── a source without albums ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def no_albums(monkeypatch: pytest.MonkeyPatch, sample: Staged) -> Staged:
    """A library whose photos are in no album, as those of most people are."""

    async def none(self: FolderTree) -> list[Album]:
        return []

    listed = FolderTree.albums

    async def everything(self: FolderTree, wanted: Any = None) -> Any:
        with monkeypatch.context() as whole:
            whole.setattr(FolderTree, "albums", listed)
            return await facts(self, wanted)

    facts = FolderTree.facts
    monkeypatch.setattr(FolderTree, "albums", none)
    monkeypatch.setattr(FolderTree, "facts", everything)
    return sample


def test_a_source_without_albums_says_what_to_type(no_albums: Staged) -> None:
    done = run(no_albums)
    assert done.code == 0
    assert f"There are no albums in {no_albums.library}." in done.stderr
    assert "skicyclerun run" in done.stderr
    assert "--everything` exports its 5 photos, by month. Nothing was touched." in done.stderr
    assert not (no_albums.lib_root / "state").exists()
    assert run(no_albums, "--everything").code == 0
    assert len(no_albums.names("albums")) == 5
    listed = skicyclerun("albums", "--library", no_albums.library)
    assert (listed.code, listed.stdout) == (0, "")
    assert "0 albums in" in listed.stderr
    assert "`--everything` takes the photos that are in no album" in listed.stderr
    assert "in no album" not in skicyclerun("albums", "--everything", "--library", no_albums.library).stderr


def test_at_a_terminal_all_photos_are_offered_where_there_are_no_albums(tmp_path: Path) -> None:
    library = copy_library(TEST_LIBRARY, tmp_path)
    edit_database(library, "UPDATE ZGENERICALBUM SET ZTRASHEDSTATE = 1 WHERE ZKIND = 2")
    arguments = ("run", "--library", library, "--lib-root", tmp_path / "root", "--stages", "export")
    quiet = {"PYTHONWARNINGS": ""}  # osxphotos leaves a temporary folder to the end of the process
    with Terminal(*arguments, extra=quiet) as terminal:
        terminal.read_until("All its 13 photos instead, in")
        terminal.type("y\n")
        terminal.read_until("Start? [Y/n]")
        assert "2018-09" in terminal.shown
        terminal.type("n\n")
        terminal.read_to_the_end()
    with Terminal(*arguments, extra=quiet) as terminal:
        terminal.read_until("All its 13 photos instead, in")
        terminal.type("n\n")
        done = terminal.read_to_the_end()
    assert (done.code, "--everything` exports its 13 photos, by month" in done.stdout) == (0, True)
    assert not (tmp_path / "root").exists()


# ── albums to be left out ─────────────────────────────────────────────────────────────────────────────────────────


def test_an_album_that_is_excluded_is_not_exported_and_its_photos_are_in_no_group(sample: Staged) -> None:
    done = run(sample, "--everything", "--exclude", "priv*")
    assert (done.code, "Left out by --exclude: Private." in done.stderr) == (0, True)
    assert not any("p.jpg" in name for name in sample.names("albums"))


def test_an_excluded_album_that_was_exported_before_stays_as_it_is(sample: Staged) -> None:
    assert run(sample).code == 0
    before = inodes(sample.lib_root)
    (sample.library / "Private" / "p.jpg").unlink()
    sample.picture("Private/q.jpg", 170)
    sample.configure(export={"source": "folder", "library": str(sample.library), "exclude": ["Private"]})
    done = update(sample)
    assert (done.code, "What was exported before of Private stays as it is." in done.stderr) == (0, True)
    assert inodes(sample.lib_root) == before
    assert "Private/p.jpg" in entries(sample)
    assert sample.run("verify").code == 0


def test_stages_alone_leave_excluded_albums_alone(sample: Staged) -> None:
    assert run(sample).code == 0
    assert sample.run("--stages", "preprocessing", "--exclude", "Private").code == 0
    assert sorted({name.partition("/")[0] for name in sample.names("scaled")}) == ["Alps", "Coast"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--exclude", "Privat"], "No album matches 'Privat', so it cannot be left out"),
        (["--exclude", "*"], "Every album is left out by --exclude or export.exclude ('*')"),
        (["--album", "Alps", "--exclude", "Alps"], "Every album that matches 'Alps' is left out"),
        (["--favorites"], "--favorites cannot be had here: a folder of albums has no favourites"),
        (["--not-screenshots"], "do not say which are screenshots"),
        (["--everything", "--hidden"], "a folder of albums has no hidden photos"),
        (["--keyword", "skying"], "No photo here has the keyword 'skying'"),
        (["--since", "soon"], "must be a day"),
        (["--since", "2025", "--until", "2024"], "No day is left"),
        (["--group-by", "year"], "--group-by goes with --everything"),
        (["--not-in-albums"], "--not-in-albums goes with --everything"),
        (["--hidden"], "--hidden goes with --everything"),
        (["--until", "2024", "--until", "2025"], "--until takes one stage and one day"),
        (["--resume", "--keyword", "x"], "goes with no other choice"),
    ],
)
def test_what_cannot_be_or_contradicts_itself_is_said_and_nothing_is_touched(
    sample: Staged, options: list[str], said: str
) -> None:
    stages = [] if "--resume" in options else ["--stages", "export", "--no-cleanup"]
    done = sample.run(*stages, *options)
    assert (done.code, said in done.stderr) == (2, True), done.stderr
    assert not (sample.lib_root / "state").exists()


def test_filters_go_with_an_export_only(sample: Staged) -> None:
    done = sample.run("--stages", "preprocessing", "--keyword", "x")
    assert (done.code, "--keyword chooses what is exported" in done.stderr) == (2, True)


def test_a_pattern_that_excludes_nothing_is_said_and_stops_nothing(sample: Staged) -> None:
    done = run(sample, "--exclude", "draft*")
    assert (done.code, "--exclude 'draft*' matches no album." in done.stderr) == (0, True)


# ── filters ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_filters_leave_out_photos_and_the_albums_that_they_empty(sample: Staged) -> None:
    done = run(sample, "--since", "2024-08", "--until", "2024-12")
    assert done.code == 0
    assert "Filters: --since 2024-08-01 --until 2024-12-31. 1 of 5 photos passes the filters" in done.stderr
    assert "1 photo has no date that is known; --since leaves out such." in done.stderr
    assert sample.names("albums") == ["Alps/b.jpg"]
    assert [album["title"] for album in status_of(sample.lib_root)["albums"]] == ["Alps"]


def test_filters_of_the_configuration_count_and_the_command_line_goes_before_them(sample: Staged) -> None:
    export = {"source": "folder", "library": str(sample.library), "filters": {"min_size": 150, "media": "photo"}}
    sample.configure(export=export)
    assert run(sample).code == 0
    assert sample.names("albums") == ["Alps/b.jpg"]
    assert run(sample, "--min-size", "90").code == 0
    assert len(sample.names("albums")) == 5


def test_until_is_a_stage_or_a_day_or_both(sample: Staged) -> None:
    options = ("--stages", "export,metadata_extraction,preprocessing", "--no-cleanup")
    assert sample.run(*options, "--until", "metadata_extraction", "--until", "2024-07").code == 0
    assert sample.names("albums") == ["Alps/a.jpg", "Coast/c.jpg"]
    assert status_of(sample.lib_root)["run"]["stages"] == ["export", "metadata_extraction"]


def test_in_an_update_what_no_longer_passes_departs_and_the_plan_says_so(sample: Staged) -> None:
    assert run(sample).code == 0
    done = update(sample, "--since", "2024-08")
    assert done.code == 0
    assert "3 photos that are exported now do not pass the filters any more: into an archive" in done.stderr
    assert sample.names("albums") == ["Alps/b.jpg", "Private/p.jpg"]
    assert archived(sample) == ["Alps/a.jpg", "Coast/c.jpg", "Coast/undated.jpg"]
    assert sample.run("verify").code == 0
    assert update(sample).code == 0
    assert len(sample.names("albums")) == 5


@pytest.mark.parametrize("mode", ["--no-cleanup", "--update"])
def test_filters_that_let_nothing_through_say_which_and_touch_nothing(sample: Staged, mode: str) -> None:
    assert run(sample).code == 0
    before = inodes(sample.lib_root)
    done = sample.run("--stages", "export", mode, "--since", "2026", "--min-size", "96")
    assert done.code == 0
    assert "There is nothing to export: 0 of 5 photos pass the filters (--since leaves out 5)." in done.stderr
    assert inodes(sample.lib_root) == before
    assert len(sample.sql("SELECT id FROM runs")) == 1


def test_a_dry_run_says_what_the_filters_do(sample: Staged) -> None:
    done = run(sample, "--everything", "--until", "2024-07", "--dry-run")
    assert done.code == 0
    assert "2 of 5 photos pass the filters" in done.stderr
    assert "2024-07" in done.stderr
    assert not (sample.lib_root / "state").exists()


def test_albums_counts_what_filters_let_through_and_shows_groups(sample: Staged) -> None:
    arguments = ("albums", "--library", sample.library, "--everything", "--until", "2024")
    done = skicyclerun(*arguments)
    assert "      2  2024-07  [group:month:2024-07]" in done.stdout
    assert "3 albums and 2 groups in" in done.stderr
    assert "3 of 5 photos pass the filters" in done.stderr
    told = skicyclerun(*arguments, "--json").json
    assert {album["title"]: album["photos"] for album in told["albums"]} == {
        "Alps": 2, "Coast": 1, "Private": 0, "2024-07": 2, "2024-08": 1,
    }  # fmt: skip
    assert told["filters"][0].startswith("3 of 5 photos pass")
    plain = skicyclerun("albums", "--library", sample.library, "--json").json
    assert [(album["photos"], album["kind"]) for album in plain["albums"]] == [(2, "album"), (2, "album"), (1, "album")]


def test_the_python_api_takes_the_same_choice(sample: Staged) -> None:
    settings = {"export.everything": True, "export.group_by": "year", "export.filters.since": "2024-08"}
    exporter = PhotoExporter(lib_root=sample.lib_root, library=sample.library, settings=settings)
    groups = [album for album in exporter.albums() if album.id.startswith("group:")]
    assert [(album.title, album.photo_count) for album in groups] == [("2024", 1), ("2025", 1)]
    report = exporter.export_albums(groups[:1], yes=True)
    assert [album.row.album.id for album in report.albums] == ["group:year:2024"]


def test_photos_app_refuses_plainly_what_it_cannot_choose_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = Scenario(tmp_path / "standin")
    scenario.add_album("Lake", [scenario.add_item("A.JPG")])
    scenario.add_album("Private", [scenario.add_item("B.JPG")])
    for name, value in scenario.environment().items():
        monkeypatch.setenv(name, value)
    arguments = ("run", "--source", "apple_photos", "--lib-root", tmp_path / "root", "--yes", "--stages", "export")
    for options in (["--everything"], ["--favorites", "--keyword", "a b"]):
        done = skicyclerun(*arguments, *options)
        assert done.code == 2
        assert f"Photos.app cannot be asked for {options[0]}" in done.stderr
        assert "--keyword 'a b'" in done.stderr or options == ["--everything"]
        assert "--source photos_library --library" in done.stderr
    assert not (tmp_path / "root").exists()
    assert skicyclerun(*arguments, "--exclude", "Private").code == 0
    assert list(exported(tmp_path / "root")) == ["Lake/A.jpg"]


# ── which albums: pure ────────────────────────────────────────────────────────────────────────────────────────────

OWN, SHARED, GROUP = (
    Album("1", "Ski"),
    Album("2", "Ski", kind=AlbumKind.SHARED),
    Album("group:month:2024-07", "2024-07"),
)
BOOK = Album("3", "Book", kind=AlbumKind.PROJECT)
LISTED = [OWN, SHARED, BOOK, GROUP]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ([], [OWN, GROUP]),
        (["Ski"], [OWN]),
        (["2"], [SHARED]),
        (["book"], [BOOK]),
        (["*"], [OWN, GROUP]),
        (["group:*"], [GROUP]),
        (["2024-07"], [GROUP]),
        (["b*", "ski"], [OWN, BOOK]),
    ],
)
def test_shared_albums_and_projects_are_taken_where_they_alone_are_meant(wanted: list[str], found: list[Album]) -> None:
    assert select_albums(LISTED, wanted) == found


def test_what_is_excluded_is_matched_as_what_is_wanted() -> None:
    assert excluded_albums(LISTED, ["ski", "nothing*"]) == {"1"}
    assert albums_to_export(LISTED, (), PhotoChoice(exclude=("group:*",))) == [OWN]
    with pytest.raises(NoAlbumMatches, match="cannot be left out"):
        excluded_albums(LISTED, ["nothing"])
    assert excluded_albums(LISTED, ["nothing"], strict=False) == set()
    with pytest.raises(AllExcluded):
        albums_to_export(LISTED, ["Ski"], PhotoChoice(exclude=("Ski",)))


def test_a_choice_comes_back_from_its_row_as_it_was() -> None:
    assert PhotoChoice().to_row() == {}
    assert PhotoChoice.from_row({"format": "jpeg"}) == PhotoChoice()


def test_what_is_typed_to_be_excluded_adds_to_what_the_configuration_excludes(sample: Staged) -> None:
    sample.configure(export={"source": "folder", "library": str(sample.library), "exclude": ["Private"]})
    assert run(sample, "--exclude", "Coast").code == 0
    assert {name.partition("/")[0] for name in sample.names("albums")} == {"Alps"}
    told = skicyclerun("albums", "--exclude", "Coast", "--lib-root", sample.lib_root, "--json").json
    assert [album["title"] for album in told["albums"]] == ["Alps"]


def test_photos_of_an_album_that_is_excluded_later_leave_the_groups(sample: Staged) -> None:
    assert run(sample, "--everything").code == 0
    assert update(sample, "--everything", "--exclude", "Private").code == 0
    assert [name for name in sample.names("albums") if name.endswith("p.jpg")] == ["Private/p.jpg"]
    assert archived(sample) == ["2025-01/p.jpg"]


def test_shared_albums_and_projects_of_a_library_are_named_as_such_and_exported_by_name(tmp_path: Path) -> None:
    library = copy_library(TEST_LIBRARY, tmp_path)
    edit_database(
        library,
        "UPDATE ZGENERICALBUM SET ZKIND = 1505 WHERE ZTITLE = 'Pumpkin Farm' AND ZKIND = 2",
        "UPDATE ZGENERICALBUM SET ZKIND = 1508 WHERE ZTITLE = 'I have a deleted twin'",
    )
    listed = skicyclerun("albums", "--library", library)
    assert "3  Pumpkin Farm (shared album)  [" in listed.stdout
    assert "1  I have a deleted twin (project)  [" in listed.stdout
    kinds = {
        album["title"]: album["kind"] for album in skicyclerun("albums", "--library", library, "--json").json["albums"]
    }
    assert (kinds["Pumpkin Farm"], kinds["I have a deleted twin"], kinds["Raw"]) == ("shared", "project", "album")
    arguments = ("run", "--library", library, "--lib-root", tmp_path / "root", "--stages", "export", "--no-cleanup")
    planned = skicyclerun(*arguments, "--dry-run")
    assert "Export 7 albums" in planned.stderr
    assert "Pumpkin Farm" not in planned.stderr
    assert skicyclerun(*arguments, "--album", "pumpkin*").code == 0
    assert sorted(exported(tmp_path / "root")) == [
        "Pumpkin Farm/Pumkins1.jpg", "Pumpkin Farm/Pumkins2.jpg", "Pumpkin Farm/Pumpkins3.jpg",
    ]  # fmt: skip
