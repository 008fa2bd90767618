"""The stages after the export by the real command line: what is done again, what is not, and what goes wrong."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from skicyclerun.places.pace import forget_servers
from tests.command_line import PATIENCE, YES, ended, skicyclerun_process, start
from tests.geocoding_server import Asked, Reply, geocoding_server, reply
from tests.staged_sample import Staged

pytestmark = pytest.mark.long

BOTH = ("preprocessing", "watermarking")
#: A command that copies, and notes each picture it was run for.
COUNTING = 'cp "$1" "$2" && basename "$1" >> "${0%.sh}.ran"'


@pytest.fixture
def sample(tmp_path: Path) -> Staged:
    """Two albums, three pictures."""
    made = Staged(tmp_path)
    made.picture("Alps/a.jpg", 10, date="2024:06:01 10:00:00", position=True)
    made.picture("Alps/b.jpg", 20, date="2023:06:01 10:00:00")
    made.picture("Coast/c.jpg", 30, date="2022:06:01 10:00:00")
    return made


def ran(sample: Staged, name: str = "mine") -> list[str]:
    """The pictures that the command was run for, each time."""
    noted = sample.folder / f"{name}.ran"
    return sorted(noted.read_text().split()) if noted.exists() else []


def online(url: str, **keys: object) -> dict[str, object]:
    """A section in which nobody but this server is asked, once a picture."""
    return {
        "active_provider": "nominatim",
        "provider_order": ["nominatim"],
        "request_delay_seconds": 0,
        "providers": {"nominatim": {"api_url": url}},
        "retries": {"attempts": 1, "backoff_seconds": 0},
        "workers": 1,
        **keys,
    }


# ── nothing is made twice ─────────────────────────────────────────────────────────────────────────────────────────


def test_stages_run_twice_do_nothing_the_second_time(sample: Staged) -> None:
    assert sample.export("metadata_extraction", *BOTH).code == 0
    assert sample.names("watermarked_final") == ["Alps/a.webp", "Alps/b.webp", "Coast/c.webp"]
    catalog = sample.lib_root / "metadata" / "master.json"
    before, written = sample.touched(), catalog.stat()
    made = {stage: sample.made_at(stage) for stage in ("metadata_extraction", *BOTH)}
    again = sample.run("--stages", "metadata_extraction,preprocessing,watermarking")
    assert again.code == 0
    assert sample.touched() == before
    assert {stage: sample.made_at(stage) for stage in made} == made
    assert (catalog.stat().st_ino, catalog.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    assert list((sample.lib_root / "archive").iterdir()) == []


def test_a_movie_is_left_out_once_and_nothing_is_entered_for_it_again(sample: Staged) -> None:
    movie = b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + b"\0\0\0\x0cmoov\0\0\0\0" + b"\0\0\0\x10mdat12345678"
    (sample.library / "Alps" / "m.mov").write_bytes(movie)
    assert sample.export("preprocessing").code == 0
    assert sample.pictures("preprocessing")["Alps/m.mov"] == "left_out"
    rows = "SELECT id, input, status FROM stage_pictures ORDER BY id"
    before = sample.sql(rows)
    sample.sql("CREATE TABLE spy (gone TEXT)")
    sample.sql(
        "CREATE TRIGGER spies AFTER DELETE ON catalog_written BEGIN INSERT INTO spy VALUES ('to be read again'); END"
    )
    assert sample.run("--stages", "preprocessing").code == 0
    assert sample.sql(rows) == before
    assert sample.sql("SELECT * FROM spy") == []


def test_an_update_with_nothing_new_does_nothing(sample: Staged) -> None:
    sample.export(*BOTH)
    before = sample.touched()
    assert sample.update(*BOTH).code == 0
    assert sample.touched() == before


def test_a_changed_setting_redoes_its_stage_and_what_depends_on_it_and_nothing_else(sample: Staged) -> None:
    sample.command("mine", COUNTING)
    sample.export("metadata_extraction", "mine", *BOTH)
    exported, mine = sample.touched("albums"), sample.touched("mine")
    found, scaled, marked = (sample.made_at(stage) for stage in ("metadata_extraction", *BOTH))
    sample.configure(preprocessing={"max_dimension": 64})
    assert sample.run("--stages", "metadata_extraction,mine,preprocessing,watermarking").code == 0
    assert sample.touched("albums") == exported
    assert sample.touched("mine") == mine
    assert sample.made_at("metadata_extraction") == found
    for stage, before in zip(BOTH, (scaled, marked), strict=True):
        now = sample.made_at(stage)
        assert now.keys() == before.keys()
        assert all(now[name] != before[name] for name in before), stage
    with Image.open(sample.outputs("watermarked_final") / "Alps" / "a.webp") as marked_picture:
        assert max(marked_picture.size) == 64


def test_a_setting_that_only_the_watermark_has_leaves_the_scaled_pictures(sample: Staged) -> None:
    sample.export(*BOTH)
    scaled, marked = sample.touched("scaled"), sample.touched("watermarked_final")
    sample.configure(watermark={"symbol": "SKI"})
    sample.run("--stages", ",".join(BOTH))
    assert sample.touched("scaled") == scaled
    now = sample.touched("watermarked_final")
    assert now.keys() == marked.keys()
    assert all(now[name] != marked[name] for name in now)


def test_an_edited_photo_redoes_its_own_descendants_only(sample: Staged) -> None:
    sample.export(*BOTH)
    before = sample.touched()
    sample.picture("Alps/a.jpg", 99, size=(80, 80))
    assert sample.update(*BOTH).code == 0
    changed = sorted(name for name, what in sample.touched().items() if before.get(name) != what)
    assert changed == ["albums/Alps/a.jpg", "scaled/Alps/a.webp", "watermarked_final/Alps/a.webp"]


def test_a_removed_photo_has_its_descendants_archived_and_removed(sample: Staged) -> None:
    sample.export(*BOTH)
    before = sample.touched()
    (sample.library / "Alps" / "a.jpg").unlink()
    assert sample.update(*BOTH).code == 0
    gone = ["albums/Alps/a.jpg", "scaled/Alps/a.webp", "watermarked_final/Alps/a.webp"]
    assert sample.touched() == {name: what for name, what in before.items() if name not in gone}
    assert archived(sample) == gone
    assert not any("a." in name for name in sample.entries)


def archived(sample: Staged) -> list[str]:
    """The pictures in the archives, by folder, album and name."""
    import zipfile

    found: list[str] = []
    for path in (sample.lib_root / "archive").glob("*.zip"):
        with zipfile.ZipFile(path) as opened:
            assert opened.testzip() is None
            members = (name.split("/", 1)[1] for name in opened.namelist() if "/" in name)
            found += [name for name in members if name.endswith((".jpg", ".webp"))]
    return sorted(found)


def test_what_was_made_of_a_photo_stays_while_its_export_fails(sample: Staged) -> None:
    sample.export("preprocessing")
    before = sample.names("scaled")
    (sample.library / "Alps" / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    assert sample.run(*YES, "--stages", "cleanup,export").code == 3
    assert sample.run("--stages", "preprocessing").code == 3
    assert sample.names("scaled") == before


def test_a_removed_album_takes_what_was_made_of_it_along(sample: Staged) -> None:
    sample.export(*BOTH)
    shutil.rmtree(sample.library / "Coast")
    sample.update(*BOTH)
    assert sample.names("scaled") == ["Alps/a.webp", "Alps/b.webp"]
    assert sample.names("watermarked_final") == ["Alps/a.webp", "Alps/b.webp"]
    assert not (sample.outputs("scaled") / "Coast").exists()
    assert [name for name in archived(sample) if "Coast" not in name] == []


def test_a_renamed_album_and_a_renamed_photo_keep_their_outputs(sample: Staged) -> None:
    sample.command("mine", COUNTING)
    sample.export("mine")
    assert ran(sample) == ["a.jpg", "b.jpg", "c.jpg"]
    (sample.library / "Alps").rename(sample.library / "Alpen")
    (sample.library / "Coast" / "c.jpg").rename(sample.library / "Coast" / "harbour.jpg")
    assert sample.update("mine").code == 0
    assert sample.names("mine") == ["Alpen/a.jpg", "Alpen/b.jpg", "Coast/harbour.jpg"]
    assert ran(sample) == ["a.jpg", "b.jpg", "c.jpg"]


def test_a_photo_moved_to_another_album_keeps_its_outputs(sample: Staged) -> None:
    sample.command("mine", COUNTING)
    sample.export("mine")
    (sample.library / "Alps" / "a.jpg").rename(sample.library / "Coast" / "a.jpg")
    sample.update("mine")
    assert sample.names("mine") == ["Alps/b.jpg", "Coast/a.jpg", "Coast/c.jpg"]
    assert ran(sample) == ["a.jpg", "b.jpg", "c.jpg"]


# ── outputs that are gone, damaged, changed, or somebody else's ───────────────────────────────────────────────────


def test_a_link_in_the_place_of_an_output_is_not_taken_over_for_a_renamed_photo(sample: Staged, tmp_path: Path) -> None:
    """Nor is the file touched that it points to."""
    sample.export("preprocessing")
    output, elsewhere = sample.outputs("scaled") / "Alps" / "a.webp", tmp_path / "elsewhere.webp"
    shutil.move(output, elsewhere)
    os.utime(elsewhere, (1, 1))
    output.symlink_to(elsewhere)
    (sample.library / "Alps" / "a.jpg").rename(sample.library / "Alps" / "z.jpg")
    assert sample.update("preprocessing").code == 0
    made = sample.outputs("scaled") / "Alps" / "z.webp"
    assert made.is_file()
    assert not made.is_symlink()
    assert elsewhere.stat().st_mtime == 1


def test_a_deleted_output_is_made_again_and_nothing_else(sample: Staged) -> None:
    sample.export(*BOTH)
    before, made = sample.touched(), sample.made_at("preprocessing")
    (sample.outputs("scaled") / "Alps" / "a.webp").unlink()
    assert sample.run("--stages", ",".join(BOTH)).code == 0
    now, again = sample.touched(), sample.made_at("preprocessing")
    assert now.keys() == before.keys()
    assert {name for name in now if now[name] != before[name]} <= {"scaled/Alps/a.webp"}
    assert [name for name in again if again[name] != made[name]] == ["Alps/a.jpg"]


def test_an_output_that_was_damaged_or_changed_by_hand_is_left_alone_and_said(sample: Staged) -> None:
    sample.export("preprocessing")
    target = sample.outputs("scaled") / "Alps" / "a.webp"
    target.write_bytes(b"retouched by hand")
    sample.run("--stages", "preprocessing")
    assert target.read_bytes() == b"retouched by hand"
    assert "was changed since it was made" in sample.reason("preprocessing", "Alps/a.jpg")
    assert sample.albums("preprocessing")["Alps"] == ("failed", "1 of 2 pictures could not be made")
    target.unlink()
    assert sample.run("retry-failed").code == 0
    assert sample.pictures("preprocessing")["Alps/a.jpg"] == "done"
    assert target.read_bytes() != b"retouched by hand"


def test_an_output_changed_by_hand_to_the_same_size_is_not_overwritten_either(sample: Staged) -> None:
    sample.export("preprocessing")
    target = sample.outputs("scaled") / "Alps" / "a.webp"
    retouched = target.read_bytes()[:-1] + b"!"
    target.write_bytes(retouched)
    os.utime(target, (time.time(), time.time()))
    sample.configure(preprocessing={"quality": 50})
    sample.run("--stages", "preprocessing")
    assert target.read_bytes() == retouched
    assert "was changed since it was made" in sample.reason("preprocessing", "Alps/a.jpg")


def test_a_file_of_somebody_else_keeps_its_name_and_its_bytes(sample: Staged) -> None:
    theirs = sample.outputs("scaled") / "Alps" / "a.webp"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    assert sample.export("preprocessing").code == 0
    assert theirs.read_bytes() == b"theirs"
    assert sample.names("scaled") == ["Alps/a (2).webp", "Alps/a.webp", "Alps/b.webp", "Coast/c.webp"]


def test_a_file_put_where_a_cleanup_has_made_room_is_left_alone_and_said(sample: Staged) -> None:
    sample.export("preprocessing")
    assert sample.run(*YES, "--stages", "cleanup,preprocessing", "--album", "Coast").code == 0
    theirs = sample.outputs("scaled") / "Alps" / "a.webp"
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_bytes(b"somebody else's")
    ended = sample.run("--stages", "preprocessing")
    assert ended.code == 3
    assert theirs.read_bytes() == b"somebody else's"
    assert "it was left alone" in sample.reason("preprocessing", "Alps/a.jpg")
    theirs.unlink()
    assert sample.run("retry-failed").code == 0
    assert sample.names("scaled") == ["Alps/a.webp", "Alps/b.webp", "Coast/c.webp"]


def test_an_earlier_output_that_was_changed_by_hand_after_a_failure_is_left_alone(sample: Staged) -> None:
    sample.command("mine", 'cp "$1" "$2"')
    sample.export("mine")
    sample.command("mine", "exit 1", version=2)
    sample.run("--stages", "mine")
    theirs = sample.outputs("mine") / "Alps" / "a.jpg"
    theirs.write_bytes(b"mended by hand")
    sample.command("mine", 'cp "$1" "$2"', version=3)
    assert sample.run("--stages", "mine").code == 3
    assert theirs.read_bytes() == b"mended by hand"
    assert sample.pictures("mine") == {"Alps/a.jpg": "failed", "Alps/b.jpg": "done", "Coast/c.jpg": "done"}
    theirs.unlink()
    assert sample.run("retry-failed").code == 0


def test_a_link_in_the_place_of_an_album_folder_is_refused_for_that_album_alone(sample: Staged, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    sample.outputs("scaled").mkdir(parents=True)
    (sample.outputs("scaled") / "Alps").symlink_to(elsewhere)
    sample.export("preprocessing")
    status, reason = sample.albums("preprocessing")["Alps"]
    assert (status, "was not touched" in reason) == ("failed", True)
    assert sample.albums("preprocessing")["Coast"] == ("done", "")
    assert list(elsewhere.iterdir()) == []


def test_an_album_folder_that_cannot_be_read_fails_that_album_alone(
    sample: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample.export("preprocessing")
    refused, scandir = str(sample.outputs("scaled") / "Alps"), os.scandir

    def without_permission(path: Any = ".") -> Any:
        if str(path) == refused:
            raise PermissionError(errno.EACCES, "Permission denied", refused)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", without_permission)
    sample.configure(preprocessing={"max_dimension": 64})
    assert sample.run("--stages", "preprocessing").code == 3
    albums = sample.albums("preprocessing")
    assert albums["Alps"] == ("failed", f"{refused} cannot be read: Permission denied")
    assert albums["Coast"] == ("done", "")
    monkeypatch.undo()
    assert sample.run("retry-failed").code == 0


def test_a_file_in_the_place_of_an_album_folder_fails_that_album_alone(sample: Staged) -> None:
    sample.outputs("scaled").mkdir(parents=True)
    (sample.outputs("scaled") / "Alps").write_text("in the way")
    sample.export("preprocessing")
    status, reason = sample.albums("preprocessing")["Alps"]
    assert (status, str(sample.outputs("scaled") / "Alps") in reason) == ("failed", True)
    assert sample.albums("preprocessing")["Coast"] == ("done", "")


def test_another_format_puts_the_old_outputs_away(sample: Staged) -> None:
    sample.export("preprocessing", "watermarking")
    sample.configure(preprocessing={"format": "jpeg"})
    assert sample.run("--stages", "preprocessing").code == 0
    assert sample.names("scaled") == ["Alps/a.jpg", "Alps/b.jpg", "Coast/c.jpg"]
    assert archived(sample) == ["scaled/Alps/a.webp", "scaled/Alps/b.webp", "scaled/Coast/c.webp"]
    scaled = [name for name in sample.entries if name.startswith("scaled/")]
    assert sorted(scaled) == ["scaled/Alps/a.jpg", "scaled/Alps/b.jpg", "scaled/Coast/c.jpg"]
    assert sample.run("--stages", "watermarking").code == 0
    assert sample.names("watermarked_final") == ["Alps/a.jpg", "Alps/b.jpg", "Coast/c.jpg"]


# ── which stages run, and what would be done ──────────────────────────────────────────────────────────────────────


def test_from_and_until_choose_among_the_stages_of_the_configuration(sample: Staged) -> None:
    sample.configure(pipeline={"stages": ["export", "metadata_extraction", "preprocessing", "watermarking"]})
    assert sample.run("--until", "preprocessing").code == 0
    assert not sample.outputs("watermarked_final").exists()
    before = sample.touched()
    assert sample.run("--from", "watermarking").code == 0
    assert {name: what for name, what in sample.touched().items() if name in before} == before
    assert len(sample.names("watermarked_final")) == 3
    assert sample.run("--from", "watermarking", "--until", "export").code == 2


def test_a_stage_that_is_switched_off_is_left_out_unless_it_is_named(sample: Staged) -> None:
    sample.configure(pipeline={"stages": ["export", *BOTH]}, watermark={"enabled": False})
    sample.run()
    assert not sample.outputs("watermarked_final").exists()
    sample.run("--stages", "watermarking")
    assert len(sample.names("watermarked_final")) == 3


def test_a_dry_run_says_how_many_and_why_and_touches_nothing(sample: Staged) -> None:
    sample.export("preprocessing")
    sample.picture("Alps/a.jpg", 99, size=(80, 80))
    sample.picture("Coast/new.jpg", 55)
    sample.update("metadata_extraction")
    (sample.outputs("scaled") / "Alps" / "b.webp").unlink()
    before = sample.touched()
    said = sample.run("--stages", ",".join(BOTH), "--dry-run").stderr
    assert "preprocessing: 3 to do (1 input changed, 1 output gone, 1 new), 1 up to date" in said
    assert "watermarking: 4 to do (4 new)" in said
    sample.configure(preprocessing={"quality": 50})
    said = sample.run("--stages", "preprocessing", "--dry-run").stderr
    assert "preprocessing: 4 to do (1 input changed, 2 setting changed, 1 new)" in said
    above = "Of what is exported now; what the export brings, new or changed, comes on top:\n"
    assert above not in said
    assert above in sample.run("--update", "--stages", "export,preprocessing", "--dry-run").stderr
    assert sample.touched() == before
    assert sample.newest_run() == "finished"


def test_a_stage_whose_input_stage_has_never_run_says_so(sample: Staged) -> None:
    sample.export()
    before = sample.touched()
    refused = sample.run("--stages", "watermarking")
    assert refused.code in (1, 2)
    assert "watermarking takes what preprocessing makes, and preprocessing has never run here" in refused.stderr
    assert "`skicyclerun run --stages preprocessing,watermarking` runs both" in refused.stderr
    assert sample.touched() == before
    assert sample.newest_run() == "finished"


def test_where_a_retry_cannot_help_the_report_says_what_does(sample: Staged) -> None:
    broken = sample.library / "Alps" / "d.jpg"
    broken.write_bytes(b"")
    assert f"`skicyclerun retry-failed --lib-root {sample.lib_root}` asks again" in sample.export(*BOTH).stdout
    # The stages of this run only wait for what another run did not export.
    only_stages = sample.run("--stages", ",".join(BOTH))
    assert only_stages.code == 3
    typed = f"run --update --stages export,preprocessing,watermarking --lib-root {sample.lib_root}"
    assert f"Next: `skicyclerun {typed}` makes" in only_stages.stdout
    sample.picture("Alps/d.jpg", 40)
    assert sample.run("retry-failed").code == 3
    done = sample.run("--update", "--stages", "export,preprocessing,watermarking")
    assert (done.code, "Next:" in done.stdout) == (0, False)


def test_where_only_an_earlier_stage_can_help_the_report_names_it(sample: Staged) -> None:
    sample.command("mine", 'case "$1" in *b.jpg) exit 1;; esac; cp "$1" "$2"')
    sample.command("then", 'cp "$1" "$2"', reads="mine")
    assert f"`skicyclerun retry-failed --lib-root {sample.lib_root}` asks again" in sample.export("mine", "then").stdout
    only_then = sample.run("--stages", "then")
    assert only_then.code == 3
    typed = f"run --stages mine,then --lib-root {sample.lib_root}"
    assert f"Next: `skicyclerun {typed}` makes what the stages wait for" in only_then.stdout


def test_a_stage_before_any_export_says_so(sample: Staged) -> None:
    refused = sample.run("--stages", "preprocessing")
    assert refused.code != 0
    assert refused.stderr.strip()
    assert not (sample.lib_root / "pipeline").exists()


def test_a_cleanup_empties_the_folders_of_the_stages_that_run_and_no_other(sample: Staged) -> None:
    sample.export(*BOTH)
    before = sample.touched("albums", "watermarked_final")
    scaled, made = sample.names("scaled"), sample.made_at("preprocessing")
    assert sample.run(*YES, "--stages", "cleanup,preprocessing").code == 0
    assert sample.touched("albums", "watermarked_final") == before
    assert sample.names("scaled") == scaled
    assert all(when != made[name] for name, when in sample.made_at("preprocessing").items())
    assert archived(sample) == ["scaled/Alps/a.webp", "scaled/Alps/b.webp", "scaled/Coast/c.webp"]


# ── pictures as they come ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_begun_without_archiving_is_not_emptied_when_it_is_resumed_with_it(sample: Staged) -> None:
    sample.export("preprocessing")
    sample.configure(cleanup={"archive_old_outputs": False}, preprocessing={"max_dimension": 64})
    killed = skicyclerun_process(
        *sample.arguments("run", "--yes", "--stages", "cleanup,preprocessing"),
        extra={"SKICYCLERUN_FAULT": "stage.album_finished"},
    )
    assert killed.code == -signal.SIGKILL
    sample.configure(cleanup={"archive_old_outputs": True})
    assert sample.run("--resume").code == 0
    assert sample.names("scaled") == ["Alps/a.webp", "Alps/b.webp", "Coast/c.webp"]
    assert archived(sample) == []


def test_the_place_of_a_photo_that_has_lost_its_position_is_neither_written_on_it_nor_in_the_catalog(
    sample: Staged,
) -> None:
    """Whoever takes the position out of a photo does not want to tell where it was taken."""
    with geocoding_server() as server:
        sample.configure(metadata_extraction=online(server.url))
        sample.export("geocode_sweep", *BOTH)
        assert "Zermatt" in str(sample.entries["watermarked_final/Alps/a.webp"])
        sample.picture("Alps/a.jpg", 10, date="2024:06:01 10:00:00", size=(80, 80))
        assert sample.update("geocode_sweep", *BOTH).code == 0
    told = {name: entry for name, entry in sample.entries.items() if "Zermatt" in str(entry)}
    assert told == {}
    assert sample.pictures("geocode_sweep")["Alps/a.jpg"] == "left_out"


@pytest.mark.parametrize("narrowed", [("--sweep-path-contains", "Coast"), ("--sweep-limit", "1")])
def test_a_sweep_that_is_narrowed_down_forgets_no_place_that_it_has_found(
    sample: Staged, narrowed: tuple[str, str]
) -> None:
    """Another option makes it another question, but the answer of before stands where it is not asked this time."""
    sample.picture("Alps/z.jpg", 40, date="2021:06:01 10:00:00", position=True, size=(80, 80))
    with geocoding_server(lambda *asked: reply()) as server:
        sample.configure(metadata_extraction=online(server.url))
        sample.export("geocode_sweep", *BOTH)
        marked = sample.touched("watermarked_final")
        assert sample.run("--stages", "geocode_sweep", "--sweep-skip-heading", *narrowed).code == 0
    assert sample.pictures("geocode_sweep")["Alps/z.jpg"] == "done"
    assert sample.run("--stages", "watermarking").code == 0
    assert sample.touched("watermarked_final") == marked


def test_a_picture_without_date_and_position_goes_through_all_stages(sample: Staged) -> None:
    Image.new("RGB", (90, 60), (1, 2, 3)).save(sample.library / "Alps" / "plain.png")
    assert sample.export("metadata_extraction", "geocode_sweep", *BOTH).code == 0
    entry = sample.entries["albums/Alps/plain.jpg"]
    assert not {"gps", "location", "date_taken"} & entry.keys()
    assert "Alps/plain.webp" in sample.names("watermarked_final")
    assert sample.pictures("geocode_sweep")["Alps/plain.jpg"] == "left_out"
    assert sample.entries["albums/Alps/a.jpg"]["location"]["city"] == "Zermatt"


def test_two_albums_of_one_title_have_folders_of_their_own_in_every_stage(sample: Staged) -> None:
    sample.picture("2023/Alps/a.jpg", 200)
    assert sample.export(*BOTH).code == 0
    assert sample.names("scaled") == sample.names("watermarked_final")
    folders = {name.split("/")[0] for name in sample.names("scaled")}
    assert folders == {"Alps", "Alps (2)", "Coast"}
    for name in sample.names("albums"):
        with (
            Image.open(sample.outputs("albums") / name) as exported,
            Image.open((sample.outputs("scaled") / name).with_suffix(".webp")) as scaled,
        ):
            pixels = exported.convert("RGB").getpixel((5, 5)), scaled.convert("RGB").getpixel((5, 5))
        assert isinstance(pixels[0], tuple)
        assert isinstance(pixels[1], tuple)
        assert abs(pixels[0][0] - pixels[1][0]) < 10, name


def test_hostile_titles_and_file_names_stay_in_their_folders(sample: Staged) -> None:
    names = ["$(touch pwned)", "a;b & c", "--output", "Ünïcode 写真", "x" * 200, "quo\"te's"]
    for number, name in enumerate(names):
        sample.picture(f"{name[:60]}/{name}.jpg", 100 + number)
    sample.command("mine", COUNTING)
    assert sample.export("mine", *BOTH).code == 0
    for folder in ("scaled", "watermarked_final", "mine"):
        assert len(sample.names(folder)) == len(sample.names("albums")) == 3 + len(names)
    assert not list(sample.folder.rglob("pwned"))


def test_a_picture_that_a_stage_cannot_read_fails_alone_with_the_reason(sample: Staged) -> None:
    sample.export("metadata_extraction")
    torn = sample.outputs("albums") / "Alps" / "a.jpg"
    torn.write_bytes(torn.read_bytes()[:300])
    sample.run("--stages", ",".join(BOTH))
    assert sample.pictures("preprocessing") == {"Alps/a.jpg": "failed", "Alps/b.jpg": "done", "Coast/c.jpg": "done"}
    assert sample.reason("preprocessing", "Alps/a.jpg")
    assert sample.albums("watermarking")["Alps"] == (
        "failed",
        "1 of 2 pictures has not come from the stage before",
    )


def test_a_font_that_is_missing_is_said_and_another_one_draws(sample: Staged) -> None:
    sample.configure(watermark={"font": {"path": "fonts/NoSuchFont.ttf"}})
    done = sample.export(*BOTH)
    assert "NoSuchFont.ttf" in done.stderr
    assert set(sample.pictures("watermarking").values()) == {"done"}
    assert sample.entries["watermarked_final/Alps/a.webp"]["watermark"]["font"]


# ── places ────────────────────────────────────────────────────────────────────────────────────────────────────────


def failing(sample: Staged, server: str, **keys: object) -> str:
    """Why the one picture with a position has no place with this server."""
    sample.configure(metadata_extraction=online(server, **keys))
    sample.export("metadata_extraction", *BOTH)
    assert sample.pictures("metadata_extraction")["Alps/b.jpg"] == "done"
    assert sample.pictures("metadata_extraction")["Alps/a.jpg"] == "failed"
    assert set(sample.pictures("watermarking").values()) == {"done"}
    return sample.reason("metadata_extraction", "Alps/a.jpg")


def test_a_provider_that_is_down_fails_the_picture_and_the_retry_names_the_place(sample: Staged) -> None:
    with geocoding_server() as server:
        pass  # its port is nobody's now
    assert "its place is not known" in failing(sample, server.url)
    with geocoding_server() as server:
        sample.configure(metadata_extraction=online(server.url))
        sample.run("--stages", "metadata_extraction")
    assert sample.entries["albums/Alps/a.jpg"]["location"]["city"] == "Zermatt"


def test_what_depends_on_a_place_that_came_with_a_retry_is_made_again_in_the_same_run(sample: Staged) -> None:
    down = [True]
    with geocoding_server(lambda asked: reply(b"", 503) if down else reply()) as server:
        failing(sample, server.url)
        down.clear()
        before = sample.entries["watermarked_final/Alps/a.webp"]["watermark"]["text"]
        assert "Zermatt" not in before
        other = sample.touched("watermarked_final")
        assert sample.run("retry-failed").code == 0
    assert "Zermatt" in sample.entries["watermarked_final/Alps/a.webp"]["watermark"]["text"]
    now = sample.touched("watermarked_final")
    assert [name for name in now if now[name] != other[name]] == ["watermarked_final/Alps/a.webp"]


def test_a_provider_that_is_slow_is_given_up_after_its_time(sample: Staged) -> None:
    def slowly(asked: Asked) -> Reply:
        time.sleep(1)
        return reply()

    with geocoding_server(slowly) as server:
        assert "its place is not known" in failing(sample, server.url, timeout_seconds=0.1)


@pytest.mark.parametrize("rubbish", [b"\xff\xfe\x00", b"[1, 2", b'{"address": 7}', b"<html>busy</html>", b""])
def test_a_provider_that_answers_rubbish_fails_the_picture_alone(sample: Staged, rubbish: bytes) -> None:
    with geocoding_server(reply(rubbish)) as server:
        assert "its place is not known" in failing(sample, server.url)


def test_a_damaged_cache_is_set_aside_and_said(sample: Staged) -> None:
    cache = sample.lib_root / "metadata" / "geocode_cache.json"
    cache.parent.mkdir(parents=True)
    cache.write_bytes(b'{"half": ')
    with geocoding_server() as server:
        sample.configure(metadata_extraction=online(server.url))
        done = sample.export("metadata_extraction")
        assert (done.code, len(server.asked)) == (0, 1)
        assert "geocode_cache.json" in done.stderr
        (aside,) = cache.parent.glob("geocode_cache.json.corrupt-*")
        assert aside.read_bytes() == b'{"half": '
        (sample.library / "Coast" / "near.jpg").write_bytes((sample.library / "Alps" / "a.jpg").read_bytes())
        sample.update("metadata_extraction")
        assert len(server.asked) == 1


def test_places_that_nobody_was_asked_for_are_asked_for_once_that_is_allowed(sample: Staged) -> None:
    with geocoding_server() as server:
        sample.configure(metadata_extraction=online(server.url, cache_only=True))
        done = sample.export("metadata_extraction", *BOTH)
        assert (done.code, server.asked) == (0, [])
        assert "1 picture has a position and no place" in done.stderr
        again = sample.run("--stages", "metadata_extraction", "--dry-run")
        assert "metadata_extraction: nothing to do" in again.stderr
        sample.configure(metadata_extraction=online(server.url))
        assert sample.run("--stages", ",".join(("metadata_extraction", *BOTH))).code == 0
        assert len(server.asked) == 1
    marks = [entry.get("watermark", {}).get("text", "") for entry in sample.entries.values()]
    assert any("Zermatt" in mark for mark in marks)
    assert "nothing to do" in sample.run("--stages", "metadata_extraction", "--dry-run").stderr


def test_leaving_a_picture_out_this_time_takes_no_earlier_result_away(sample: Staged) -> None:
    sample.export("metadata_extraction", *BOTH)
    before = {path: path.read_bytes() for path in sample.lib_root.rglob("watermarked_final/*/*")}
    assert before
    sample.configure(watermark={"dry_run": True, "position": "top_left"})
    assert sample.run("--stages", "watermarking").code == 0
    assert {path: path.read_bytes() for path in sample.lib_root.rglob("watermarked_final/*/*")} == before
    assert not list(sample.lib_root.glob("archive/*"))


def test_too_many_failures_in_a_row_pause_the_stage_and_a_resume_carries_on(sample: Staged) -> None:
    for number in range(4):
        sample.picture(f"Alps/far {number}.jpg", 100 + number, position=True)
    down = [True]
    with geocoding_server(lambda asked: reply(b"", 503) if down else reply()) as server:
        retries = {"attempts": 1, "backoff_seconds": 0, "pause_after": 2}
        sample.configure(metadata_extraction=online(server.url, retries=retries, cache={"enabled": False}))
        paused = sample.export("metadata_extraction", *BOTH)
        assert "failed 2 times in a row" in paused.stderr
        assert "skicyclerun run --resume" in paused.stderr
        assert sample.newest_run() == "interrupted"
        assert len(sample.names("scaled")) == 7, "the other stages go on"
        down.clear()
        forget_servers()  # as in a new process
        assert sample.run("--resume").code == 0
    assert sample.newest_run() == "finished"
    marks = {name: entry.get("watermark", {}) for name, entry in sample.entries.items()}
    marked = [name for name, mark in marks.items() if "Zermatt" in mark.get("text", "")]
    assert marked == [f"watermarked_final/Alps/{name}.webp" for name in ("a", "far 0", "far 1", "far 2", "far 3")]


# ── failures, time-outs, stops ────────────────────────────────────────────────────────────────────────────────────

#: Fails for each picture whose name is in a file, and notes what it was run for.
MOODY = (
    'basename "$1" >> "${0%.sh}.ran"; '
    'if grep -qx "$(basename "$1")" "${0%.sh}.bad"; then echo no >&2; exit 3; fi; cp "$1" "$2"'
)


def test_retry_failed_does_what_failed_and_nothing_else(sample: Staged) -> None:
    sample.command("mine", MOODY)
    sample.command("other", MOODY)
    (sample.folder / "mine.bad").write_text("a.jpg\n")
    (sample.folder / "other.bad").write_text("c.jpg\n")
    sample.export("mine", "other")
    assert sample.albums("mine")["Alps"] == ("failed", "1 of 2 pictures could not be made")
    (sample.folder / "mine.bad").write_text("")
    (sample.folder / "other.bad").write_text("")
    before = sample.touched()
    sample.run("retry-failed", "--stages", "other")
    assert sample.pictures("other")["Coast/c.jpg"] == "done"
    assert sample.pictures("mine")["Alps/a.jpg"] == "failed"
    assert sample.run("retry-failed").code == 0
    assert set(sample.pictures("mine").values()) == {"done"}
    now = sample.touched()
    assert {name: now[name] for name in before} == before
    assert ran(sample, "mine") == ["a.jpg", "a.jpg", "b.jpg", "c.jpg"]
    assert ran(sample, "other") == ["a.jpg", "b.jpg", "c.jpg", "c.jpg"]


def test_a_retry_over_albums_that_were_put_away_since_comes_to_its_end(sample: Staged) -> None:
    sample.export()
    sample.command("mine", 'case "$1" in *c.jpg) exit 1;; esac; cp "$1" "$2"')
    assert sample.run("--stages", "mine").code == 3
    assert sample.run(*YES, "--stages", "cleanup", "--force-clean").code == 0
    assert sample.run("retry-failed").code == 0
    assert sample.newest_run() == "finished"
    assert "Nothing to resume" in sample.run("--resume").stderr


def test_a_retry_that_is_cut_off_is_resumed_with_the_settings_that_it_was_begun_with(sample: Staged) -> None:
    """They are those of the configuration at the retry, not of the run before it."""
    sample.command("mine", 'case "$1" in *c.jpg) exit 1;; esac; cp "$1" "$2"')
    sample.export("mine")
    sample.command("mine", 'cp "$1" "$2"', version=2)
    killed = skicyclerun_process(
        *sample.arguments("retry-failed"), extra={"SKICYCLERUN_FAULT": "stage.album_started:1"}
    )
    assert killed.code == -signal.SIGKILL
    assert sample.run("--resume").code == 0
    assert "mine: nothing to do, 3 up to date" in sample.run("--stages", "mine", "--dry-run").stderr


def test_a_picture_whose_time_is_up_fails_alone(sample: Staged) -> None:
    sample.command("mine", 'case "$1" in *a.jpg) sleep 60;; esac; cp "$1" "$2"', timeout_seconds=0.5)
    sample.export("mine")
    assert sample.pictures("mine") == {"Alps/a.jpg": "failed", "Alps/b.jpg": "done", "Coast/c.jpg": "done"}
    assert "took longer than 0.5 s" in sample.reason("mine", "Alps/a.jpg")


def test_an_album_whose_time_is_up_fails_with_what_it_has_kept_and_the_run_goes_on(sample: Staged) -> None:
    sample.command("mine", 'case "$1" in *b.jpg) sleep 60;; esac; cp "$1" "$2"', timeouts={"album": 1.5})
    sample.export("mine")
    status, reason = sample.albums("mine")["Alps"]
    assert status == "failed"
    assert reason.startswith(
        "time-out after 1.5 s without progress (stages.mine.timeouts.album): 1 of 2 pictures made and kept"
    )
    assert sample.albums("mine")["Coast"] == ("done", "")
    assert sample.names("mine") == ["Alps/a.jpg", "Coast/c.jpg"]
    sample.command("mine", 'cp "$1" "$2"', timeouts={"album": 60})
    sample.run("retry-failed")
    assert sample.names("mine") == ["Alps/a.jpg", "Alps/b.jpg", "Coast/c.jpg"]


def test_a_stage_whose_time_is_up_leaves_the_rest_pending_for_a_resume(sample: Staged) -> None:
    sample.command("mine", COUNTING, timeouts={"run": 0.000001})
    said = sample.export("mine")
    assert sample.newest_run() == "interrupted"
    assert "resume" in said.stdout + said.stderr
    assert sample.names("mine") == []
    sample.command("mine", COUNTING, timeouts={"run": 60})
    assert sample.run("--resume").code == 0
    assert sample.names("mine") == ["Alps/a.jpg", "Alps/b.jpg", "Coast/c.jpg"]


@pytest.fixture
def gate(sample: Staged) -> Iterator[Path]:
    """A stage whose first picture waits until a file appears: a run that can be met in its middle."""
    waiting, opened = sample.folder / "waiting", sample.folder / "open"
    wait = f'touch "{waiting}"; while [ ! -e "{opened}" ]; do sleep 0.02; done'
    sample.command("mine", f'case "$1" in *b.jpg) {wait};; esac; {COUNTING}')
    yield opened
    opened.touch()


def appeared(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_stopped_in_the_middle_of_a_stage_finishes_the_picture_and_is_resumed(sample: Staged, gate: Path) -> None:
    process = start(*sample.arguments("--stages", "export,mine,preprocessing"))
    appeared(sample.folder / "waiting", process)
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    shown = ""
    while "Stopping after the photos in hand" not in shown:
        shown += process.stderr.readline()
    gate.touch()
    stopped = ended(process, shown)
    assert stopped.code == 128 + signal.SIGTERM
    assert sample.newest_run() == "interrupted"
    assert sample.pictures("mine") == {"Alps/a.jpg": "done", "Alps/b.jpg": "done"}
    assert sample.run("--resume").code == 0
    assert ran(sample) == ["a.jpg", "b.jpg", "c.jpg"]
    assert len(sample.names("scaled")) == 3


def test_what_a_cleanup_has_put_away_is_not_reported_as_done(sample: Staged, gate: Path) -> None:
    gate.touch()
    sample.export("mine", "preprocessing")
    gate.unlink()
    (sample.folder / "waiting").unlink()
    process = start(*sample.arguments(*YES, "--stages", "cleanup,export,mine"))
    appeared(sample.folder / "waiting", process)
    lines = sample.run("status").stdout.splitlines()
    gate.touch()
    assert ended(process).code == 0
    assert "mine: 0 of 2 albums done, 0 of 2 pictures, 0 made in this run." in lines
    # That run leaves `scaled` as it is.
    assert next(line for line in lines if line.startswith("preprocessing: 2 of 2 albums done, 3 of 3 pictures"))
    assert "mine: 2 of 2 albums done, 3 of 3 pictures" in sample.run("status").stdout


def test_a_run_killed_in_the_middle_of_a_stage_is_resumed(sample: Staged, gate: Path) -> None:
    sample.configure(export={"source": "folder", "library": str(sample.library), "group_photos": 1})
    process = start(*sample.arguments("--stages", "export,mine,preprocessing"))
    appeared(sample.folder / "waiting", process)
    # The first picture is committed while the second is waited for.
    while sample.pictures("mine")["Alps/a.jpg"] != "done":
        assert process.poll() is None
    process.kill()
    assert ended(process).code == -signal.SIGKILL
    gate.touch()
    assert sample.run("--resume").code == 0
    assert sample.names("mine") == ["Alps/a.jpg", "Alps/b.jpg", "Coast/c.jpg"]
    assert ran(sample).count("a.jpg") == 1
    assert not list(sample.lib_root.rglob(".skicyclerun-*"))


@pytest.mark.parametrize("point", ["stage.picture_made", "group.synced:3", "group.renamed:3", "catalog.written:2"])
def test_a_disk_that_fills_up_in_the_middle_of_a_stage_stops_the_run_is_said_and_resumed(
    sample: Staged, point: str
) -> None:
    arguments = sample.arguments("--stages", "export,preprocessing,watermarking")
    full = skicyclerun_process(*arguments, extra={"SKICYCLERUN_FAULT_ENOSPC": point})
    assert full.code == 1
    assert "disk is full" in full.stderr.lower()
    assert "skicyclerun run --resume" in full.stderr
    assert sample.newest_run() == "interrupted"
    assert sample.run("--resume").code == 0
    assert sample.names("watermarked_final") == ["Alps/a.webp", "Alps/b.webp", "Coast/c.webp"]
    assert not list(sample.lib_root.rglob(".skicyclerun-*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 64 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    point = tmp_path / "small"
    point.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(point)]
    if subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", str(point)], check=True)


def test_a_disk_that_is_really_full_in_the_middle_of_a_stage_stops_the_run_and_a_resume_goes_on(
    sample: Staged, small_disk: Path
) -> None:
    """Files, the database and the catalog alike find no room, once a command has taken all of it."""
    sample.lib_root = small_disk
    filler = small_disk / "filler"
    fill = f'if [ ! -e "{filler}.was" ]; then touch "{filler}.was"; cat /dev/zero > "{filler}" 2> /dev/null; fi; true'
    sample.command("mine", f'cp "$1" "$2"; {fill}')
    full = sample.export("mine", *BOTH)
    assert full.code == 1
    assert "disk is full" in full.stderr.lower()
    assert "skicyclerun run --resume" in full.stderr
    kept = sample.touched("albums")
    filler.unlink()
    assert sample.run("--resume").code == 0
    assert {name: what for name, what in sample.touched().items() if name in kept} == kept
    assert len(sample.names("watermarked_final")) == len(sample.names("mine")) == 3
    assert not list(small_disk.rglob(".skicyclerun-*"))


def test_a_resumed_run_keeps_the_stage_settings_it_was_begun_with(sample: Staged) -> None:
    arguments = sample.arguments("--stages", "export,preprocessing")
    skicyclerun_process(*arguments, extra={"SKICYCLERUN_FAULT": "stage.group_committed"})
    sample.configure(preprocessing={"max_dimension": 64, "format": "jpeg"})
    assert sample.run("--resume").code == 0
    assert sample.names("scaled") == ["Alps/a.webp", "Alps/b.webp", "Coast/c.webp"]


# ── names ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def rows_of_files(sample: Staged, *stages: str) -> list[tuple[str, str]]:
    """(folder, file name) of the rows of these stages that speak for a file."""
    marks = ", ".join("?" * len(stages))
    return sample.sql(
        f"SELECT folder, file_name FROM stage_pictures WHERE present = 1 AND departed = 0 AND stage IN ({marks})"
        " ORDER BY folder, file_name",
        *stages,
    )


def test_two_stages_that_share_a_folder_never_give_one_name_twice(sample: Staged) -> None:
    """Not even where the files of the one have been put away, so that its names look free."""
    both = ("watermarking", "post_lora_watermarking")
    sample.command("lora_processing", 'cp "$1" "$2"', extension=".webp", reads="preprocessing")
    sample.export("preprocessing", "lora_processing", *both)
    sample.run("--stages", ",".join(("cleanup", *both)), "--album", "Coast")
    sample.picture("Alps/a (2).jpg", 200)
    sample.update("preprocessing", "watermarking")
    marked = sample.outputs("watermarked_final")
    before = {name: (marked / name).read_bytes() for name in sample.names("watermarked_final")}
    assert sample.run("--stages", "lora_processing,post_lora_watermarking").code == 0
    assert {name: (marked / name).read_bytes() for name in before} == before
    assert [f"{folder}/{name}" for folder, name in rows_of_files(sample, *both)] == sample.names("watermarked_final")


def test_the_name_of_a_file_that_is_to_be_put_away_is_not_given_to_another(sample: Staged) -> None:
    """A file that somebody deleted meanwhile would be archived and removed when it is there again."""
    sample.export("preprocessing")
    sample.configure(preprocessing={"format": "jpeg"})
    killed = skicyclerun_process(
        *sample.arguments("run", "--stages", "preprocessing"), extra={"SKICYCLERUN_FAULT": "archive.job_created"}
    )
    assert killed.code == -signal.SIGKILL
    (sample.outputs("scaled") / "Alps" / "a.webp").unlink()
    sample.configure(preprocessing={"format": "webp"})
    assert sample.run("--fresh", "--stages", "preprocessing").code == 0
    there = [f"{folder}/{name}" for folder, name in rows_of_files(sample, "preprocessing")]
    assert there == sample.names("scaled")
    assert len(there) == 3
