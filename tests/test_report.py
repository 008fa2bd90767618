"""`skicyclerun report`: what the page says of runs in every state, what it shows, and what it leaves alone."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest
from PIL import Image

from skicyclerun.wording import printable
from tests.command_line import (
    YES,
    ended,
    make_library,
    make_slow_library,
    picture,
    skicyclerun,
    skicyclerun_process,
    start,
    wait_for,
)
from tests.exported_sample import SAMPLE_FILES
from tests.report_page import Page, pages_of
from tests.staged_sample import Staged

BROKEN = "broken.jpg"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lib_root of a demo, which has every kind of stage; nobody changes it."""
    folder = tmp_path_factory.mktemp("demo")
    assert skicyclerun("demo", "--to", folder).code == 0
    root = folder / "results"
    report(root)  # its thumbnails are there
    shutil.rmtree(root / "report_files")
    (root / "report.html").unlink()
    return root


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lib_root of a run of two albums, without any page; nobody changes it."""
    folder = tmp_path_factory.mktemp("small")
    library = make_library(folder / "library", {"Alps": ["IMG_1.jpg", "IMG_2.jpg"], "Coast": ["IMG_3.jpg"]})
    assert skicyclerun("run", "--library", library, "--lib-root", folder / "root").code == 0
    return folder / "root"


@pytest.fixture
def root(demo: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(demo, tmp_path / "root", symlinks=True))


def report(root: Path, *options: str | Path) -> Page:
    told = skicyclerun("report", "--lib-root", root, *options)
    assert (told.code, told.stderr) == (0, "")
    return Page(Path(told.stdout.partition(": ")[2].strip()))


def thumbnails(root: Path) -> dict[str, int]:
    """Name → time of change."""
    return {path.name: path.stat().st_mtime_ns for path in (root / "state" / "thumbnails").rglob("*") if path.is_file()}


# ── what it says ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_that_went_well_says_so_and_shows_every_album_and_photo(root: Path) -> None:
    page = report(root)
    assert page.path == root / "report.html"
    assert page.one("h1").text == "All 13 photos are here."
    assert "What needs you" not in page.text
    assert [each.text for each in page.all("h2")] == ["Albums", "Places", "Stages", "Timeline"]
    for title in ("Alps", "Coast/Harbour", "Frühling am Fluss"):
        assert title in page.text
    albums = pages_of(page.path)
    assert len(albums) == 4
    files = [file for each in albums.values() for file in each.files]
    for folder, names in SAMPLE_FILES.items():
        for name in names:
            assert root / "pipeline" / "albums" / folder / name in files
    for each in (page, *albums.values()):
        assert [file for file in each.files if not file.exists()] == []


def test_a_photo_has_its_date_place_title_keywords_and_size(root: Path) -> None:
    report(root)
    alps = pages_of(root / "report.html")["album-0001.html"]
    tile = alps.one("li", id="photo-1").text
    assert "First light" in tile
    assert "11 February 2024, 07:52" in tile
    assert "Lauterbrunnen, Berne, Switzerland" in tile
    assert "skiing" in tile
    assert "winter" in tile
    assert "38.1 kB · 1200 \N{MULTIPLICATION SIGN} 800" in tile


def test_each_stage_has_a_picture_before_and_after(root: Path) -> None:
    page = report(root)
    places = {"preprocessing": ("albums", "scaled"), "watermarking": ("scaled", "watermarked_final")}
    for before, after in places.values():
        files = [file.parent.parent.name for file in page.files if "pipeline" in file.parts]
        assert before in files
        assert after in files
    names = [each.text.split()[0] for each in page.all("figcaption")]
    assert names == ["The", "Before", "After", "Before", "After"]
    assert "Apple iPhone" in page.text or "FUJIFILM" in page.text


def test_what_failed_stands_first_with_its_reason_and_the_command_that_mends_it(tmp_path: Path) -> None:
    library = make_library(tmp_path / "library", {"Alps": ["IMG_1.jpg", "IMG_2.jpg"], "Coast": ["IMG_3.jpg"]})
    (library / "Alps" / BROKEN).write_bytes(b"no picture at all")
    root = tmp_path / "a root"
    assert skicyclerun("run", "--library", library, "--lib-root", root).code == 3
    page = report(root)
    assert page.one("h1").text == "1 of 4 photos was not exported."
    attention = page.one("section", id="attention").text
    reason = next(row["reason"] for row in photos_of(root) if row["status"] == "failed")
    assert BROKEN in attention
    assert reason.removeprefix(BROKEN).lstrip(": ")[1:] in attention
    assert f"skicyclerun retry-failed --lib-root '{root}'" in attention
    assert page.source.index('id="attention"') < page.source.index('id="albums"')
    album = pages_of(page.path)["album-0001.html"]
    assert BROKEN in album.one("section", class_="attention bad").text
    assert "retry-failed" in album.text

    (library / "Alps" / BROKEN).write_bytes(picture(BROKEN))
    skicyclerun("retry-failed", "--lib-root", root, *YES)
    assert report(root).one("h1").text == "All 4 photos are here."


def photos_of(root: Path) -> list[dict[str, str]]:
    told = skicyclerun("status", "--photos", "--json", "--lib-root", root).json
    return [photo for album in told["albums"] for photo in album["photos"]]


def test_a_stage_that_failed_is_told_with_its_reason(tmp_path: Path) -> None:
    sample = Staged(tmp_path)
    sample.picture("Alps/IMG_1.jpg", 10)
    sample.picture("Alps/IMG_2.jpg", 20)
    sample.command("print", 'case "$1" in *IMG_2*) echo no such ink >&2; exit 1;; *) cp "$1" "$2";; esac')
    told = sample.export("print")
    assert told.code == 3, told.stderr
    page = report(sample.lib_root)
    attention = page.one("section", id="attention").text
    assert "Print: IMG_2.jpg" in attention
    assert "no such ink" in attention
    assert "retry-failed" in attention
    assert "Incomplete in Print" in page.text


def test_a_file_that_is_gone_is_told_with_the_command_that_brings_it_back(root: Path) -> None:
    (root / "pipeline" / "albums" / "Alps" / "IMG_0002.jpg").unlink()
    page = report(root)
    assert page.one("h1").text == "1 file should be here and cannot be found."
    attention = page.one("section", id="attention").text
    assert "IMG_0002.jpg" in attention
    assert "skicyclerun verify --repair" in attention
    assert all(file.exists() for file in page.files)


def test_a_run_that_was_killed_and_one_at_work_are_told_as_such(tmp_path: Path) -> None:
    albums = {"Alps": ["IMG_1.jpg", "IMG_2.jpg"], "Coast": ["IMG_3.jpg"], "Lake": ["IMG_4.jpg"]}
    library = make_library(tmp_path / "library", albums)
    root = tmp_path / "root"
    killed = skicyclerun_process(
        "run", "--library", library, "--lib-root", root, extra={"SKICYCLERUN_FAULT": "album.finished:1"}
    )
    assert killed.code == -signal.SIGKILL
    page = report(root)
    assert re.fullmatch(r"Stopped at 2 of 4 photos\.", page.one("h1").text)
    assert "skicyclerun run --resume" in page.one("section", id="attention").text
    assert "Not begun" in page.text
    assert skicyclerun("run", "--resume", "--lib-root", root).code == 0
    assert report(root).one("h1").text == "All 4 photos are here."


def test_a_run_at_work_is_shown_as_it_stands(tmp_path: Path) -> None:
    root = tmp_path / "root"
    library = make_slow_library(tmp_path / "library", albums=1, photos=60)
    process = start("run", "--library", library, "--lib-root", root)
    try:
        read = wait_for(process, "PROGRESS: album_1")
        page = report(root)
        assert re.fullmatch(r"At work: \d+ of 60 photos so far\.", page.one("h1").text)
        assert "In progress: " in page.text
        assert page.all("section", id="attention") == []
    finally:
        process.send_signal(signal.SIGINT)
        ended(process, read)


def test_an_earlier_run_can_be_shown_and_what_was_archived_since_is_said(tmp_path: Path) -> None:
    library = make_library(tmp_path / "library", {"Alps": ["IMG_1.jpg", "IMG_2.jpg"]})
    root = tmp_path / "root"
    skicyclerun("run", "--library", library, "--lib-root", root)
    (library / "Alps" / "IMG_2.jpg").unlink()
    skicyclerun("run", "--library", library, "--lib-root", root, *YES)
    assert report(root).one("h1").text == "The one photo is here."
    page = report(root, "--run", "1")
    assert "Run 1" in page.text
    assert "1 file of this run was archived or replaced since" in page.text
    assert page.one("h1").text == "2 photos exported."
    unknown = skicyclerun("report", "--lib-root", root, "--run", "7")
    assert unknown.code == 2
    assert "There is no run 7. The last ones are: 1, 2." in unknown.stderr


def test_before_anything_was_exported_it_says_so_and_makes_nothing(tmp_path: Path) -> None:
    told = skicyclerun("report", "--lib-root", tmp_path / "root")
    assert told.code == 10
    assert "Nothing has been exported yet" in told.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_stages_alone_shows_the_albums_it_went_through(root: Path) -> None:
    assert skicyclerun("run", "--stages", "watermarking", "--lib-root", root).code == 0
    page = report(root)
    assert page.one("h1").text == "All is up to date."
    assert len(pages_of(page.path)) == 4
    assert all(file.exists() for file in page.files)


# ── where photos were taken ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["--no-map", "report.map"])
def test_without_the_map_no_page_says_where_a_photo_was_taken(root: Path, how: str) -> None:
    options: tuple[str, ...] = ("--no-map",)
    if how == "report.map":
        options = ()
        (root / "config").mkdir()
        (root / "config" / "pipeline_config.json").write_text('{"report": {"map": false}}')
    page = report(root, *options)
    for each in (page, *pages_of(page.path).values()):
        assert "Lauterbrunnen" not in each.source
        assert "Switzerland" not in each.source
        assert not re.search(r"46[.,]5|7[.,]89|° [NS]", each.text)
    assert page.all("svg", class_="map") == []


def test_a_position_without_a_name_is_told_in_degrees(tmp_path: Path) -> None:
    sample = Staged(tmp_path)
    sample.picture("Alps/IMG_1.jpg", position=True)
    assert sample.export().code == 0
    page = report(sample.lib_root)
    assert "46.0200° N, 7.7492° E" in pages_of(page.path)["album-0001.html"].text
    assert page.one("svg", class_="map").attributes["aria-label"] == "A map of 1 position"


# ── thumbnails ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_thumbnails_are_made_once_for_each_content_and_again_where_they_are_gone(root: Path) -> None:
    shutil.rmtree(root / "state" / "thumbnails")
    report(root)
    made = thumbnails(root)
    small = [name for name in made if "-" not in name]
    assert len(small) == 13
    with Image.open(root / "state" / "thumbnails" / small[0][:2] / small[0]) as thumbnail:
        assert (thumbnail.format, max(thumbnail.size)) == ("WEBP", 320)
    pages = {path: path.stat().st_mtime_ns for path in (root / "report_files").iterdir()}
    report(root)
    assert thumbnails(root) == made
    assert {path: path.stat().st_mtime_ns for path in (root / "report_files").iterdir()} == pages
    lost, emptied = small[0], small[1]
    (root / "state" / "thumbnails" / lost[:2] / lost).unlink()
    (root / "state" / "thumbnails" / emptied[:2] / emptied).write_bytes(b"")
    report(root)
    again = thumbnails(root)
    assert again.keys() == made.keys()
    assert {name for name in made if again[name] != made[name]} == {lost, emptied}
    shutil.rmtree(root / "state" / "thumbnails")
    report(root)
    assert thumbnails(root).keys() == made.keys()


def test_thumbnails_of_what_no_row_speaks_for_are_removed_and_foreign_files_stay(root: Path) -> None:
    report(root)
    folder = root / "state" / "thumbnails"
    stale, left_over = folder / "ab" / f"ab{'0' * 62}.webp", folder / "ab" / f".ab{'0' * 62}.webp.1234abcd.tmp"
    lonely, foreign = folder / "ac" / f"ac{'0' * 62}-960.webp", folder / "ab" / "mine.webp"
    before = thumbnails(root)
    for path in (stale, left_over, lonely, foreign):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    report(root)
    assert thumbnails(root).keys() == {*before, "mine.webp"}
    assert not lonely.parent.exists()


def test_a_file_that_was_changed_since_the_export_is_shown_as_it_is(root: Path) -> None:
    page = report(root)
    before = set(thumbnails(root))
    (root / "pipeline" / "albums" / "Alps" / "IMG_0002.jpg").write_bytes(picture("other.jpg"))
    page = report(root)
    assert "1 file was changed since the export" in page.text
    assert "Changed since it was exported" in pages_of(page.path)["album-0001.html"].text
    assert len(set(thumbnails(root)) - before) == 1


def test_what_is_no_picture_has_no_thumbnail_and_a_link(tmp_path: Path) -> None:
    root = tmp_path / "root"
    library = make_library(tmp_path / "library", {"Alps": ["IMG_1.jpg"]})
    skicyclerun("run", "--library", library, "--lib-root", root)
    (file,) = (root / "pipeline" / "albums" / "Alps").iterdir()
    file.write_bytes(b"no picture")
    page = report(root)
    album = pages_of(page.path)["album-0001.html"]
    assert album.all("img") == []
    assert file in album.files
    assert "Open IMG_1.jpg" in album.text


# ── where it is written ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_page_goes_where_it_is_asked_for_and_its_links_lead_back(root: Path, tmp_path: Path) -> None:
    page = report(root, "--html", tmp_path / "a b%&#" / "überall.html")
    assert page.path == tmp_path / "a b%&#" / "überall.html"
    assert not (root / "report.html").exists()
    albums = pages_of(page.path)
    assert (tmp_path / "a b%&#" / "überall_files").is_dir()
    for each in (page, *albums.values()):
        assert all(file.exists() for file in each.files)
    refused = skicyclerun("report", "--lib-root", root, "--html", tmp_path / "page.txt")
    assert refused.code == 2
    assert not (tmp_path / "page.txt").exists()


def test_the_configured_place_is_used_and_may_not_lie_where_a_cleanup_empties(root: Path) -> None:
    config = root / "config" / "pipeline_config.json"
    config.parent.mkdir()
    config.write_text('{"report": {"file": "{lib_root}/pages/run.html"}}')
    assert report(root).path == root / "pages" / "run.html"
    config.write_text('{"report": {"file": "{apple_photos_export}/run.html"}}')
    refused = skicyclerun("config", "check", "--lib-root", root)
    assert refused.code == 2
    assert "report.file" in refused.stderr
    assert "which a cleanup empties" in refused.stderr


def test_only_pages_of_ours_are_replaced_or_removed(root: Path) -> None:
    mine = root / "report.html"
    mine.write_text("<h1>my own page</h1>")
    refused = skicyclerun("report", "--lib-root", root)
    assert refused.code == 2
    assert "left as it is" in refused.stderr or "left as it was" in refused.stderr
    assert mine.read_text() == "<h1>my own page</h1>"
    mine.unlink()

    page = report(root)
    folder = root / "report_files"
    shutil.copy(folder / "album-0001.html", folder / "album-0099.html")
    (folder / "notes.html").write_text("my own")
    (folder / ".album-0001.html.12345678.tmp").write_text("cut off")
    report(root)
    names = sorted(path.name for path in folder.iterdir())
    assert names == [*(f"album-{number:04}.html" for number in range(1, 5)), "notes.html"]

    (folder / "album-0002.html").write_text("my own")
    refused = skicyclerun("report", "--lib-root", root)
    assert refused.code == 2
    assert "album-0002.html" in refused.stderr
    assert (folder / "album-0002.html").read_text() == "my own"
    assert page.path.exists()


@pytest.mark.parametrize("where", ["report.html", "report_files", "state/thumbnails", "state/thumbnails/{}"])
def test_no_link_is_followed_out_of_the_configured_folders(root: Path, tmp_path: Path, where: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("kept")
    report(root)
    first = next((root / "state" / "thumbnails").iterdir()).name
    link = root / where.format(first)
    if link.is_dir():
        shutil.rmtree(link)
    else:
        link.unlink()
    link.symlink_to(elsewhere / "kept" if where == "report.html" else elsewhere)
    refused = skicyclerun("report", "--lib-root", root)
    assert refused.code == 1
    assert "was not touched" in refused.stderr
    assert [path.name for path in elsewhere.iterdir()] == ["kept"]
    assert (elsewhere / "kept").read_text() == "kept"


def test_an_album_folder_that_became_a_link_is_not_looked_into(root: Path, tmp_path: Path) -> None:
    album = root / "pipeline" / "albums" / "Alps"
    album.rename(tmp_path / "elsewhere")
    album.symlink_to(tmp_path / "elsewhere")
    page = report(root)
    assert page.one("h1").text == "4 files should be here and cannot be found."
    assert [file for file in pages_of(page.path)["album-0001.html"].files if file.suffix == ".jpg"] == []


@pytest.mark.parametrize(
    "point", ["report.thumbnail_made:3", "report.album_written:2", "report.albums_written", "report.written"]
)
def test_a_report_that_was_killed_leaves_whole_pages_and_the_next_ends_like_one_never_killed(
    small: Path, tmp_path: Path, point: str
) -> None:
    root = Path(shutil.copytree(small, tmp_path / "root"))
    other = Path(shutil.copytree(small, tmp_path / "other" / "root"))
    killed = skicyclerun_process("report", "--lib-root", root, extra={"SKICYCLERUN_FAULT": point})
    assert killed.code == -signal.SIGKILL
    for path in [*root.glob("report.html"), *root.glob("report_files/album-*.html")]:
        Page(path)
    report(root)
    report(other)
    assert files_of(root) == files_of(other)


def files_of(root: Path) -> dict[str, bytes]:
    """All that a report makes but for the time it was made."""
    found = [*(root / "report_files").rglob("*"), *(root / "state" / "thumbnails").rglob("*")]
    files = {str(path.relative_to(root)): path.read_bytes() for path in found if path.is_file()}
    page = (root / "report.html").read_text()
    return files | {"report.html": re.sub(r"Made .*? by", "", page).replace(str(root), "").encode()}


def test_a_full_disk_is_a_sentence_and_the_page_before_stays(small: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(small, tmp_path / "root"))
    before = report(root).source
    shutil.rmtree(root / "report_files")
    full = skicyclerun_process(
        "report", "--lib-root", root, extra={"SKICYCLERUN_FAULT_ENOSPC": "report.albums_written"}
    )
    assert full.code == 1
    assert "No space left" in full.stderr
    assert (root / "report.html").read_text() == before


# ── at the end of a run ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_makes_the_page_at_its_end_where_the_configuration_says_so(tmp_path: Path) -> None:
    sample = Staged(tmp_path)
    sample.picture("Alps/IMG_1.jpg")
    told = sample.export()
    assert told.code == 0
    assert not (sample.lib_root / "report.html").exists()
    sample.configure(report={"html": True})
    told = sample.update()
    assert f"Page: {sample.lib_root / 'report.html'}" in told.stderr
    assert "Run 2" in Page(sample.lib_root / "report.html").text.replace("Update", "Run")
    told = sample.run("--update", "--json")
    assert told.lines[-1]["page"] == str(sample.lib_root / "report.html")
    sample.run("--update", "--dry-run")
    assert "Update 3" in Page(sample.lib_root / "report.html").text


def test_a_page_that_cannot_be_made_changes_nothing_about_the_run(tmp_path: Path) -> None:
    sample = Staged(tmp_path)
    sample.picture("Alps/IMG_1.jpg")
    sample.configure(report={"html": True})
    (sample.lib_root / "report.html").write_text("my own")
    told = sample.export()
    assert told.code == 0
    assert "The page could not be made: " in told.stderr
    assert "Name another FILE" in told.stderr
    assert (sample.lib_root / "report.html").read_text() == "my own"


def test_open_hands_the_page_to_the_browser_and_says_so_where_there_is_none(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def launch(url: str) -> int:
        opened.append(url)
        return 0

    monkeypatch.setattr("click.launch", launch)
    assert skicyclerun("report", "--lib-root", root, "--html", "--open").code == 0
    assert opened == [(root / "report.html").as_uri()]
    monkeypatch.setattr("click.launch", lambda url: 1)
    told = skicyclerun("report", "--lib-root", root, "--open")
    assert told.code == 0
    assert opened[0] in told.stderr


# ── what strangers may have written ───────────────────────────────────────────────────────────────────────────────

HOSTILE = (
    '<script>document.title="owned"</script>',
    '"><img src=x onerror=alert(1)>',
    "'; alert(1); '",
    "{{ 7919 * 7907 }}{% raw %}",
    "right\u202eto\u2066left",
    "&lt;b&gt; &amp; </style></title>",
)


def test_hostile_titles_and_names_are_text(tmp_path: Path) -> None:
    library, root = tmp_path / "library", tmp_path / "root"
    for number, text in enumerate(HOSTILE):
        folder = library / text.replace("/", "\N{FRACTION SLASH}")
        folder.mkdir(parents=True)
        name = f"{number} {text}.jpg".replace("/", "\N{FRACTION SLASH}")
        (folder / name).write_bytes(picture(f"{number}.jpg"))
        (folder / f"broken {name}").write_bytes(b"")
    assert skicyclerun("run", "--library", library, "--lib-root", root).code == 3
    with sqlite3.connect(root / "state" / "skicyclerun.sqlite3") as state:
        for row_id, text in enumerate(HOSTILE, start=1):
            facts = json.dumps(
                {"title": text, "description": text, "keywords": [text], "persons": [text], "note": text}
            )
            state.execute("UPDATE photos SET facts = ? WHERE album = ? AND status = 'exported'", (facts, row_id))
            state.execute("UPDATE photos SET reason = ? WHERE album = ? AND status = 'failed'", (text, row_id))
            state.execute("UPDATE albums SET title = ? WHERE id = ?", (text, row_id))
    page = report(root)
    for each in (page, *pages_of(page.path).values()):
        assert [one.attributes for one in each.all("script")] == [{}]
        assert all("onerror" not in element.attributes for element in each.elements)
        assert "62615533" not in each.one("main").text
        for mark in ("\u202e", "\u2066"):
            assert mark not in each.source
        assert len(each.all("style")) == 1
        assert all(file.exists() for file in each.files)
    for text in HOSTILE:
        assert " ".join(printable(text).split()) in page.text


def test_a_large_album_has_several_pages_that_lead_to_each_other(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(small, tmp_path / "root"))
    report(root)
    assert len(pages_of(root / "report.html")) == 2
    monkeypatch.setattr("skicyclerun.report.pages.PHOTOS_PER_PAGE", 1)
    report(root)
    pages = pages_of(root / "report.html")
    assert list(pages) == ["album-0001-2.html", "album-0001.html", "album-0002.html"]
    first, second = pages["album-0001.html"], pages["album-0001-2.html"]
    assert [each.attributes["id"] for each in first.all("li", class_="tile r13")] == ["photo-1"]
    assert [each.attributes["id"] for each in second.all("li", class_="tile r13")] == ["photo-2"]
    assert root / "report_files" / "album-0001-2.html" in first.files
    assert root / "report_files" / "album-0001.html" in second.files
