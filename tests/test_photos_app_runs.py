"""The whole program against the stand-in for Photos: what goes wrong, what is said, what is kept, and resuming.

Each run is a process of its own with the stand-in first on PATH: started as a person does where it is watched or
interrupted, otherwise forked (tests/fork_server.py). What the source makes of each single behaviour is in
test_photos_app.py; here it is the run that counts.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import signal
import subprocess
import threading
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.command_line import (
    Ended,
    Terminal,
    album_of,
    ended,
    exported,
    picture,
    skicyclerun_process,
    start,
    status_of,
    wait_for,
)
from tests.fork_server import ForkServer, fork_server
from tests.standin_osascript.play import is_running
from tests.standin_osascript.scenario import Json, Scenario, error
from tests.test_crash_campaign import catalog

pytestmark = pytest.mark.long

LOCALISED = (
    "Fotos hat einen Fehler erhalten: \N{DOUBLE LOW-9 QUOTATION MARK}Das Programm\N{RIGHT SINGLE QUOTATION MARK}…"
)
NFD = unicodedata.normalize("NFD", "Grünhornlücke")
NFC = unicodedata.normalize("NFC", NFD)


class Mac:
    """Photos with a library, as far as skicyclerun can see, and a lib_root to export to."""

    def __init__(self, folder: Path, server: ForkServer | None = None) -> None:
        self.folder = folder
        self._server = server
        self.photos = Scenario(folder / "standin")
        self.lib_root = folder / "lib_root"
        self.path = ""
        """Folders that come before the stand-in on PATH, with a colon after each."""
        self.settings: dict[str, Any] = {"retries": {"backoff_seconds": 0.0}, "group_photos": 1}

    def file(self, of: str, name: str, **behaviour: Any) -> Json:
        """A file that an export leaves: the picture `of`, under a name."""
        return {"name": name, "from": str(self.photos.jpeg(f"{of}.jpg", picture(f"{of}.jpg"))), **behaviour}

    def add(self, name: str, *files: Json, **facts: Any) -> str:
        """An item whose picture is known by its name."""
        stem = name.rpartition(".")[0]
        return self.photos.add_item(name, files=files or [self.file(stem, f"{stem}.jpeg")], **facts)

    def album(self, title: str | None, *names: str) -> list[str]:
        """An album of plain items; their ids."""
        items = [self.add(name) for name in names]
        self.photos.add_album(title, items)
        return items

    def run(self, *more: str | Path) -> Ended:
        """To its end. Where it was forked, all that it said is the answer's `stderr`."""
        if self._server is None:
            return ended(self.begin(*more))
        code, shown = self._server.run(*self._typed(*more), environ=self._environ())
        return Ended(code, "", shown)

    def begin(self, *more: str | Path) -> subprocess.Popen[str]:
        return start(*self._typed(*more), extra=self._environ())

    def _typed(self, *more: str | Path) -> list[str | Path]:
        config = self.lib_root / "config" / "pipeline_config.json"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(json.dumps({"export": self.settings}))
        return [*(more or ("run", "--source", "apple_photos")), "--lib-root", self.lib_root, "--yes"]

    def _environ(self) -> dict[str, str]:
        made = self.photos.environment()
        return {"PATH": self.path + made["PATH"], "SKICYCLERUN_STANDIN": made["SKICYCLERUN_STANDIN"]}

    def look(self, command: str, *more: str) -> Ended:
        """A command that only looks."""
        place = ("--lib-root", str(self.lib_root))
        return skicyclerun_process(command, "--source", "apple_photos", *place, *more, extra=self._environ())

    def all_exported(self) -> dict[str, str]:
        """File → which picture it shows."""
        shades = {shade_of(path.read_bytes()): path.stem for path in self.photos.folder.glob("*.jpg")}
        return {name: shades[shade_of(data)] for name, data in exported(self.lib_root).items()}

    def reasons(self) -> dict[str, str]:
        """Original name → why it was not exported."""
        albums = status_of(self.lib_root)["albums"]
        return {each["original_filename"]: each["reason"] for album in albums for each in album["not_exported"]}

    def nothing_is_left(self) -> None:
        """No process of the stand-in, and no staging."""
        pids = {note[key] for note in self.photos.notes() for key in ("pid", "hanging", "child") if key in note}
        assert [pid for pid in pids if is_running(pid)] == []
        assert list(self.lib_root.rglob(".skicyclerun-*")) == []


def shade_of(jpeg: bytes) -> tuple[int, ...]:
    with Image.open(io.BytesIO(jpeg)) as image:
        shade = image.convert("RGB").getpixel((4, 4))
    assert isinstance(shade, tuple)
    return tuple(int(value) for value in shade)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    late = ("skicyclerun.sources.photos_app", "skicyclerun.sources.photos_app_exports")
    with fork_server(tmp_path_factory.mktemp("server"), imports=late) as running:
        yield running


@pytest.fixture
def mac(tmp_path: Path, server: ForkServer) -> Mac:
    return Mac(tmp_path, server)


# ── a run that goes well ──────────────────────────────────────────────────────────────────────────────────────────


def test_albums_and_photos_of_any_name_are_exported_in_album_order(mac: Mac) -> None:
    mac.album('Berg, See; "Tal"\nZwei', "a, b.HEIC", "line\nbreak.PNG", 'with "quotes".JPG')
    mac.album("Lake", "IMG_1.HEIC")
    mac.photos.add_album("Lake", [mac.add("IMG_1.JPG", mac.file("other", "IMG_1.jpeg"))], folders=["Trips, 2023"])
    mac.album(NFD, f"{NFD}.JPG")
    mac.album(None, "untitled.JPG")
    mac.album("Empty")
    twice = [mac.add("IMG_2.JPG", mac.file(each, "IMG_2.jpeg")) for each in ("first", "second")]
    mac.photos.add_album("Twins", twice)
    done = mac.run()
    assert done.code == 0
    assert mac.all_exported() == {
        "Berg, See; _Tal__Zwei/a, b.jpg": "a, b",
        "Berg, See; _Tal__Zwei/line_break.jpg": "line\nbreak",
        "Berg, See; _Tal__Zwei/with _quotes_.jpg": 'with "quotes"',
        "Lake/IMG_1.jpg": "IMG_1",
        "Lake (2)/IMG_1.jpg": "other",
        f"{NFC}/{NFC}.jpg": NFD,
        "Twins/IMG_2.jpg": "first",
        "Twins/IMG_2 (2).jpg": "second",
        **{name: "untitled" for name in exported(mac.lib_root) if name.endswith("/untitled.jpg")},
    }
    report = status_of(mac.lib_root)
    assert (report["totals"]["albums"], report["totals"]["exported"]) == (7, 9)
    assert album_of(report, "Empty")["status"] == "done"
    mac.nothing_is_left()


def test_whatever_photos_leaves_in_the_directory_the_photo_is_found(mac: Mac) -> None:
    movie = mac.photos.jpeg(
        "live.mov", b"\x00\x00\x00\x14ftypqt  \x00\x00\x00\x00qt  " + b"\x00\x00\x00\x10moov" + b"m" * 8
    )
    items = [
        mac.add("numbered.JPG", mac.file("numbered", "numbered (1).jpeg")),
        mac.add("second.JPG", mac.file("second", "second 2.jpeg")),
        mac.add("edited.HEIC", mac.file("edited", "FullSizeRender.jpeg")),
        mac.add("hidden.JPG", {"name": ".DS_Store"}, {"name": "._hidden.jpeg"}, mac.file("hidden", "hidden.JPG")),
        mac.add("live.HEIC", {"name": "live.mov", "from": str(movie)}, mac.file("live", "live.jpeg")),
        mac.add("decomposed.JPG", mac.file("decomposed", f"{NFD}.jpeg")),
    ]
    mac.photos.add_album("Lake", items)
    assert mac.run().code == 0
    names = ("numbered", "second", "edited", "hidden", "live", "decomposed")
    assert mac.all_exported() == {f"Lake/{name}.jpg": name for name in sorted(names)}


@pytest.mark.skipif(not shutil.which("exiftool"), reason="exiftool reads what was written")
def test_position_and_keywords_are_written_where_the_export_lacks_them(mac: Mac) -> None:
    facts = {"location": [46.5, -11.25], "altitude": 1850.0, "keywords": ["ski, alpine", "Föhn"], "title": "At the hut"}
    mac.photos.add_album("Lake", [mac.add("A.HEIC", date="2024-07-01T10:00:00", description="two\nlines", **facts)])
    assert mac.run().code == 0
    command = ["exiftool", "-json", "-n", "-charset", "iptc=utf8", str(mac.lib_root / "pipeline/albums/Lake/A.jpg")]
    (tags,) = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert (tags["GPSLatitude"], tags["GPSLongitude"], tags["GPSAltitude"]) == (46.5, -11.25, 1850)
    assert tags["Subject"] == tags["Keywords"] == ["ski, alpine", "Föhn"]
    assert (tags["Title"], tags["Description"], tags["DateTimeOriginal"]) == (
        "At the hut",
        "two\nlines",
        "2024:07:01 10:00:00",
    )
    (entry,) = json.loads((mac.lib_root / "metadata/master.json").read_text()).values()
    assert entry["gps"] == {"lat": 46.5, "lon": -11.25, "altitude": 1850.0}
    assert (entry["keywords"], entry["source"]["kind"]) == (["ski, alpine", "Föhn"], "apple_photos")


def test_more_than_a_pipe_holds_and_bytes_that_are_no_text(mac: Mac) -> None:
    items = [mac.add("A.JPG", description="x" * 200_000), mac.add("B.JPG", title="caf\udce9")]
    mac.photos.add_album("Lake", items)
    mac.photos.add_fault("*", flood=200_000, times=-1, stderr=base64.b64encode(b"\xff\xfe\n").decode())
    assert mac.run().code == 0
    assert mac.all_exported() == {"Lake/A.jpg": "A", "Lake/B.jpg": "B"}


def test_the_first_progress_line_comes_before_the_second_photo_is_done(mac: Mac) -> None:
    del mac.settings["group_photos"]
    items = mac.album("Lake", "A.JPG", "B.JPG", "C.JPG")
    mac.photos.add_fault(about=items[1], hang="silent")
    process = mac.begin()
    read = wait_for(process, "PROGRESS: album_1_of_1 | photo_1_of_3")
    interrupt(process, mac)
    assert ended(process, read).code == 130


def test_a_terminal_shows_the_first_photo_before_the_second_is_done(mac: Mac) -> None:
    items = mac.album("Lake", "A.JPG", "B.JPG", "C.JPG")
    mac.photos.add_fault(about=items[1], hang="silent")
    made = mac.photos.environment()
    extra = {name: made[name] for name in ("PATH", "SKICYCLERUN_STANDIN")}
    arguments = ("run", "--source", "apple_photos", "--lib-root", mac.lib_root, "--yes")
    with Terminal(*arguments, extra=extra) as terminal:
        terminal.read_until("photo 1 of 3")
        terminal.process.send_signal(signal.SIGINT)
        terminal.read_until("Stopping after the photos in hand")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.read_to_the_end().code == 130
    mac.nothing_is_left()


def test_a_library_without_albums_is_said_and_nothing_is_touched(mac: Mac) -> None:
    done = mac.run()
    assert (done.code, "There are no albums in Photos.app. Nothing was touched." in done.stderr) == (0, True)
    assert sorted(path.name for path in mac.lib_root.iterdir()) == ["config"]


# ── errors that may pass, and one photo's own ─────────────────────────────────────────────────────────────────────


def test_errors_that_may_pass_are_tried_again_and_a_photo_that_is_gone_fails_alone(mac: Mac) -> None:
    numbers = (-600, -609, -10000, -10004, -128, -4960)
    items = mac.album("Lake", *(f"{number}.JPG" for number in numbers), "gone.JPG", "late.JPG", "plain.JPG")
    forms = ("offsets", "path", "name") * 2
    for item, number, form in zip(items, numbers, forms, strict=False):
        mac.photos.add_fault(about=item, error=error(number, LOCALISED, form))
    mac.photos.add_fault(about=items[-3], error=error(-1728, LOCALISED, "path"), times=-1)
    late = mac.file("late", "late.jpeg", after_exit=True)
    mac.photos.add_fault(about=items[-2], error=error(-1712, LOCALISED, "name"), files=[late])
    done = mac.run()
    assert done.code == 3
    assert sorted(mac.all_exported().values()) == sorted([*map(str, numbers), "late", "plain"])
    assert list(mac.reasons()) == ["gone.JPG"]
    assert "(-1728)" in mac.reasons()["gone.JPG"]
    counts = [sum(call["words"][0] == item for call in mac.photos.calls("export-item")) for item in items]
    assert counts == [2] * len(numbers) + [1, 1, 1]
    mac.nothing_is_left()


def test_exports_that_left_nothing_usable_are_made_again(mac: Mac) -> None:
    # The first two take the seconds that a file may come after the answer.
    broken: dict[str, Json] = {
        "empty": {"files": [{"name": ".DS_Store"}, {"name": "empty.jpeg"}]},
        "caught": {"caught": error(-1712, "AppleEvent timed out.")},
        "cut": {"files": [mac.file("cut", "cut.jpeg", cut=200)], "kill": int(signal.SIGTERM)},
        "broke off": {"cut_output": 30},
        "killed": {"kill": int(signal.SIGKILL)},
    }
    mac.settings["retries"]["pause_after"] = 2
    items = mac.album("Lake", *(f"{name}.JPG" for name in broken))
    for item, behaviour in zip(items, broken.values(), strict=True):
        mac.photos.add_fault(about=item, **behaviour)
    assert mac.run().code == 0
    assert mac.all_exported() == {f"Lake/{name}.jpg": name for name in sorted(broken)}


def test_a_photo_that_fails_every_time_fails_alone_and_can_be_fetched_later(mac: Mac) -> None:
    items = mac.album("Lake", "A.JPG", "B.JPG", "C.JPG")
    mac.photos.add_fault(about=items[1], error=error(-10000, "handler failed"), times=3)
    assert mac.run().code == 3
    assert mac.reasons()["B.JPG"].endswith("handler failed (-10000). Tried 3 times.")
    assert status_of(mac.lib_root)["albums"][0]["status"] == "failed"
    before = len(mac.photos.calls("export-item"))
    assert mac.run("retry-failed").code == 0
    assert mac.all_exported() == {f"Lake/{name}.jpg": name for name in "ABC"}
    assert [call["words"][0] for call in mac.photos.calls("export-item")[before:]] == [items[1]]


def test_a_late_file_never_reaches_the_attempt_after_it(mac: Mac) -> None:
    mac.settings["timeouts"] = {"photo": 2.0}
    (item,) = mac.album("Lake", "A.JPG")
    second_attempt = mac.photos.folder / "state" / "fault_1"
    stale = mac.file("stale", "A.jpeg", when=str(second_attempt))
    mac.photos.add_fault(about=item, hang="silent", files=[stale])
    # Its counter is what the stale file waits for: it is written while the second attempt is at work.
    mac.photos.add_fault(about=item, log=["the second attempt"])
    assert mac.run().code == 0
    assert mac.all_exported() == {"Lake/A.jpg": "A"}
    until_there(second_attempt.with_name("fault_1.done"))
    assert mac.all_exported() == {"Lake/A.jpg": "A"}
    mac.nothing_is_left()


# ── what stops the run ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("number", "form", "step"),
    [
        (-1743, "offsets", "System Settings > Privacy & Security > Automation"),
        (-2741, "syntax", "please report it"),
    ],
)
def test_an_error_that_will_not_pass_stops_the_run_which_can_be_resumed(
    mac: Mac, number: int, form: str, step: str
) -> None:
    mac.album("Lake", "A.JPG", "B.JPG", "C.JPG")
    mac.photos.add_fault(skip=1, error=error(number, LOCALISED, form))
    stopped = mac.run()
    assert stopped.code == 1
    assert f"({number})" in stopped.stderr
    assert step in stopped.stderr
    assert mac.all_exported() == {"Lake/A.jpg": "A"}
    assert len(mac.photos.calls("export-item")) == 2
    mac.nothing_is_left()
    assert mac.run("run", "--resume").code == 0
    assert mac.all_exported() == {f"Lake/{name}.jpg": name for name in "ABC"}


def test_items_that_answer_as_a_broken_script_would_fail_alone_when_others_have_worked(mac: Mac) -> None:
    numbers = (-1708, -1700, -1703, -1728)
    items = mac.album("Lake", *(f"{number}.JPG" for number in numbers), "A.JPG", "B.JPG")
    for item, number in zip(items, numbers, strict=False):
        mac.photos.add_fault(about=item, error=error(number, LOCALISED, "path"), times=-1)
    assert mac.run().code == 3
    assert mac.all_exported() == {"Lake/A.jpg": "A", "Lake/B.jpg": "B"}
    reasons = mac.reasons()
    assert [f"({number})" in reasons[f"{number}.JPG"] for number in numbers] == [True] * 4
    assert len(mac.photos.calls("export-item")) == 6, "none is asked for twice"
    mac.photos.faults.clear()
    assert mac.run("retry-failed").code == 0
    assert len(mac.all_exported()) == 6


@pytest.mark.parametrize("number", [-1708, -1728])
def test_the_same_on_every_item_stops_the_run_and_is_to_be_reported(mac: Mac, number: int) -> None:
    mac.album("Lake", "A.JPG", "B.JPG", "C.JPG")
    mac.photos.add_fault(error=error(number, LOCALISED), times=-1)
    stopped = mac.run()
    assert stopped.code == 1
    assert f"({number})" in stopped.stderr
    assert "please report it" in stopped.stderr
    assert mac.all_exported() == {}
    mac.photos.faults.clear()
    assert mac.run("run", "--resume").code == 0
    assert mac.all_exported() == {f"Lake/{name}.jpg": name for name in "ABC"}


def test_an_album_that_is_refused_as_a_whole_does_not_stop_the_albums_after_it_where_others_have_worked(
    mac: Mac,
) -> None:
    mac.album("Lake", "A.JPG")
    for item in mac.album("Odd", "B.JPG", "C.JPG"):
        mac.photos.add_fault(about=item, error=error(-1700, LOCALISED), times=-1)
    mac.album("Peak", "D.JPG")
    done = mac.run()
    assert done.code == 3
    assert mac.all_exported() == {"Lake/A.jpg": "A", "Peak/D.jpg": "D"}
    assert "WARNING: Every photo of 'Odd' failed alike" in done.stderr
    assert "please report it" in done.stderr


@pytest.mark.parametrize("number", [-1743, -1712])
def test_the_advice_of_a_first_run_that_photos_did_not_answer_is_the_command_that_was_typed(
    mac: Mac, number: int
) -> None:
    mac.album("Lake", "A.JPG")
    mac.photos.add_fault("preflight", error=error(number, LOCALISED), times=-1)
    done = mac.run("run", "--source", "apple_photos", "--album", "Lake", "--no-cleanup")
    assert done.code == 1
    typed = f"skicyclerun run --source apple_photos --album Lake --no-cleanup --lib-root {mac.lib_root} --yes"
    assert f"Then `{typed}`." in done.stderr
    assert "--resume" not in done.stderr
    mac.photos.faults.clear()
    assert mac.run("run", "--source", "apple_photos", "--album", "Lake", "--no-cleanup").code == 0


def test_albums_names_itself_where_photos_does_not_answer(mac: Mac) -> None:
    mac.photos.add_fault("preflight", error=error(-1743, LOCALISED), times=-1)
    done = mac.look("albums")
    assert done.code == 1
    assert f"Then `skicyclerun albums --source apple_photos --lib-root {mac.lib_root}`." in done.stderr
    assert "macOS asks whether" in done.stderr


def test_what_macos_will_ask_is_on_the_terminal_before_it_asks(mac: Mac) -> None:
    mac.album("Lake", "A.JPG")
    go = mac.folder / "go"
    mac.photos.add_fault("preflight", until=str(go))
    process = mac.begin()
    read = wait_for(process, "WAITING: Photos.app: at most 2 min 0 s. The first time, macOS asks whether")
    assert not go.exists(), "Photos has not answered yet"
    go.touch()
    assert ended(process, read).code == 0


def test_albums_says_what_it_cannot_see(mac: Mac) -> None:
    mac.album("Lake", "A.JPG")
    done = mac.look("albums")
    assert done.code == 0
    assert "no smart albums, shared albums" in done.stderr
    assert "no smart albums, shared albums" in json.loads(mac.look("albums", "--json").stdout)["not_listed"]


def test_permission_denied_on_the_first_call_touches_nothing(mac: Mac) -> None:
    mac.album("Lake", "A.JPG")
    mac.photos.add_fault("*", error=error(-1743, LOCALISED), times=-1)
    done = mac.run()
    assert (done.code, "Automation" in done.stderr, len(mac.photos.notes())) == (1, True, 1)
    assert sorted(path.name for path in mac.lib_root.iterdir()) == ["config"]


def test_no_osascript_is_said(mac: Mac, tmp_path: Path) -> None:
    done = skicyclerun_process(
        "run", "--source", "apple_photos", "--lib-root", tmp_path / "root", "--yes", extra={"PATH": str(tmp_path)}
    )
    assert (done.code, "only be read on macOS" in done.stderr, "--library" in done.stderr) == (1, True, True)
    assert not (tmp_path / "root").exists()


def test_ten_failures_in_a_row_pause_the_source_and_a_resume_carries_on(mac: Mac) -> None:
    mac.album("Lake", "A.JPG", *(f"{number}.JPG" for number in range(6)))
    mac.photos.add_fault(skip=1, error=error(-609, "Connection is invalid."), times=10)
    paused = mac.run()
    assert paused.code == 1
    assert "failed 10 times in a row" in paused.stderr
    assert "(-609)" in paused.stderr
    assert "skicyclerun run --resume" in paused.stderr
    assert "A" in mac.all_exported().values()
    assert len(mac.photos.calls("export-item")) == 11
    resumed = mac.run("run", "--resume")
    # The photos that had used up their attempts failed; they can be fetched again.
    assert resumed.code == 3
    assert mac.run("retry-failed").code == 0
    assert sorted(mac.all_exported().values()) == sorted(["A", *map(str, range(6))])


@pytest.fixture
def running_photos(mac: Mac) -> Iterator[subprocess.Popen[bytes]]:
    """A process that passes for Photos, in the listing of a `ps` that knows no other."""
    process = subprocess.Popen(["sleep", "60"])
    # Somebody has to collect it for it to be gone.
    collector = threading.Thread(target=process.wait)
    collector.start()
    folder = mac.folder / "ps"
    folder.mkdir()
    (folder / "ps").write_text(
        f"#!/bin/sh\nkill -0 {process.pid} 2>/dev/null && echo '{process.pid} {os.getuid()} Photos'\nexit 0\n"
    )
    (folder / "ps").chmod(0o755)
    mac.path = f"{folder}:"
    yield process
    process.kill()
    collector.join()


@pytest.mark.parametrize("allowed", [True, False])
def test_photos_is_restarted_only_where_the_configuration_allows_it(
    mac: Mac, running_photos: subprocess.Popen[bytes], allowed: bool
) -> None:
    mac.settings |= {"restart_photos": allowed, "retries": {"backoff_seconds": 0.0, "pause_after": 3, "attempts": 9}}
    mac.album("Lake", "A.JPG", "B.JPG")
    mac.photos.add_fault(error=error(-1712), files=[], times=0)
    mac.photos.add_fault(error=error(-609, "Connection is invalid."), times=3)
    done = mac.run()
    assert done.code == (0 if allowed else 1)
    assert (running_photos.poll() is not None) is allowed
    if not allowed:
        assert "failed 3 times in a row" in done.stderr
        assert mac.run("run", "--resume").code == 0
    assert mac.all_exported() == {"Lake/A.jpg": "A", "Lake/B.jpg": "B"}


# ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_photo_that_hangs_is_ended_and_made_again(mac: Mac) -> None:
    mac.settings["timeouts"] = {"photo": 1.5}
    items = mac.album("Lake", "A.JPG", "B.JPG", "C.JPG")
    mac.photos.add_fault(about=items[0], hang="silent", child=True)
    mac.photos.add_fault(about=items[1], hang="line")
    assert mac.run().code == 0
    assert mac.all_exported() == {f"Lake/{name}.jpg": name for name in "ABC"}
    mac.nothing_is_left()


def test_slow_photos_come_last_and_leave_names_and_bytes_as_they_would_have_been(
    mac: Mac, server: ForkServer, tmp_path: Path
) -> None:
    def library(of: Mac) -> list[str]:
        twins = [of.add("IMG_1.JPG", of.file(each, "IMG_1.jpeg")) for each in ("first", "second")]
        items = [*twins, of.add("A.JPG"), of.add("B.JPG")]
        of.photos.add_album("Lake", items)
        return items

    undisturbed = Mac(tmp_path / "undisturbed", server)
    library(undisturbed)
    assert undisturbed.run().code == 0

    mac.settings["timeouts"] = {"photo": 2.0}
    items = library(mac)
    mac.photos.add_fault(about=items[0], hang="silent")
    mac.photos.add_fault(about=items[2], error=error(-1712, LOCALISED), files=[])
    assert mac.run().code == 0
    order = [call["words"][0] for call in mac.photos.calls("export-item")]
    assert order == [*items, items[0], items[2]]
    assert exported(mac.lib_root) == exported(undisturbed.lib_root)
    assert list(mac.all_exported().values()) == ["A", "B", "second", "first"]
    assert catalog(mac.lib_root) == catalog(undisturbed.lib_root)
    mac.nothing_is_left()


def test_killed_between_a_slow_photo_and_its_next_attempt_it_ends_as_if_nothing_had_happened(mac: Mac) -> None:
    mac.settings["timeouts"] = {"photo": 2.0}
    items = mac.album("Lake", "A.JPG", "B.JPG", "C.JPG")
    mac.photos.add_fault(about=items[0], hang="silent")
    mac.photos.add_fault(about=items[2], hang="line")
    process = mac.begin()
    deadline = time.monotonic() + 60
    while [call["words"][0] for call in mac.photos.calls("export-item")] != items:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    ended(process)
    hanging = [note["hanging"] for note in mac.photos.notes() if "hanging" in note]
    mac.photos.faults.clear()
    assert mac.run("run", "--resume").code == 0
    assert mac.all_exported() == {f"Lake/{name}.jpg": name for name in "ABC"}
    for pid in hanging:
        if is_running(pid):
            os.kill(pid, signal.SIGKILL)  # as on a Mac, where it would live until its event times out


def test_a_photo_that_always_hangs_fails_alone(mac: Mac) -> None:
    mac.settings |= {"timeouts": {"photo": 1.5}, "retries": {"attempts": 1}}
    items = mac.album("Lake", "A.JPG", "B.JPG")
    mac.photos.add_fault(about=items[0], hang="silent", times=-1)
    assert mac.run().code == 3
    assert mac.all_exported() == {"Lake/B.jpg": "B"}
    assert "no answer within the time given" in mac.reasons()["A.JPG"]
    mac.nothing_is_left()


def test_an_album_whose_time_is_up_keeps_what_it_has_and_the_next_one_follows(mac: Mac) -> None:
    mac.settings["timeouts"] = {"album": 4.0}
    items = mac.album("Lake", "A.JPG", "B.JPG", "C.JPG")
    mac.album("Peak", "D.JPG")
    mac.photos.add_fault(about=items[1], hang="silent")
    done = mac.run()
    assert done.code == 3
    assert mac.all_exported() == {"Lake/A.jpg": "A", "Peak/D.jpg": "D"}
    reason = album_of(status_of(mac.lib_root), "Lake")["reason"]
    assert "time-out after 4 s without progress (export.timeouts.album)" in reason
    mac.nothing_is_left()
    assert mac.run("retry-failed").code == 0
    assert mac.all_exported() == {"Lake/A.jpg": "A", "Lake/B.jpg": "B", "Lake/C.jpg": "C", "Peak/D.jpg": "D"}


def test_when_the_runs_time_is_up_the_rest_stays_pending(mac: Mac) -> None:
    mac.settings["timeouts"] = {"run": 3.0, "photo": 4.0}
    items = mac.album("Lake", "A.JPG", "B.JPG", "C.JPG")
    mac.photos.add_fault(about=items[1], hang="silent")
    done = mac.run()
    assert done.code == 3
    assert "export.timeouts.run" in done.stderr
    assert mac.all_exported() == {"Lake/A.jpg": "A"}
    assert album_of(status_of(mac.lib_root), "Lake")["status"] == "pending"
    mac.nothing_is_left()
    del mac.settings["timeouts"]
    mac.photos.faults.clear()
    assert mac.run("run", "--resume").code == 0
    assert mac.all_exported() == {f"Lake/{name}.jpg": name for name in "ABC"}


# ── signals ───────────────────────────────────────────────────────────────────────────────────────────────────────


def until_there(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.005)


def interrupt(process: subprocess.Popen[str], mac: Mac, *, at_once: bool = True) -> None:
    """Ctrl-C while osascript hangs, twice for a stop at once."""
    deadline = time.monotonic() + 30
    while not any("hanging" in note for note in mac.photos.notes()):
        assert time.monotonic() < deadline, "it does not hang"
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    if at_once:
        wait_for(process, "WARNING: Stopping after the photos in hand")
        process.send_signal(signal.SIGINT)


def test_stopped_at_once_during_a_hang_leaves_no_process_and_can_be_resumed(mac: Mac) -> None:
    items = mac.album("Lake", "A.JPG", "B.JPG", "C.JPG")
    mac.photos.add_fault(about=items[1], hang="line", child=True)
    process = mac.begin()
    interrupt(process, mac)
    assert ended(process).code == 130
    mac.nothing_is_left()
    assert mac.all_exported() == {"Lake/A.jpg": "A"}
    assert mac.run("run", "--resume").code == 0
    assert mac.all_exported() == {f"Lake/{name}.jpg": name for name in "ABC"}


def test_stopped_once_during_a_hang_ends_with_the_photo_in_hand(mac: Mac) -> None:
    mac.settings["timeouts"] = {"photo": 2.0}
    items = mac.album("Lake", "A.JPG", "B.JPG", "C.JPG")
    mac.photos.add_fault(about=items[1], hang="silent", child=True)
    process = mac.begin()
    interrupt(process, mac, at_once=False)
    assert ended(process).code == 130
    mac.nothing_is_left()
    assert mac.all_exported() == {"Lake/A.jpg": "A"}
    assert mac.run("run", "--resume").code == 0
    assert mac.all_exported() == {f"Lake/{name}.jpg": name for name in "ABC"}


@pytest.mark.parametrize(("verb", "options"), [("preflight", []), ("choose-albums", ["--dialogs"])])
def test_interrupted_while_photos_waits_for_the_person_leaves_no_process_and_touches_nothing(
    mac: Mac, verb: str, options: list[str]
) -> None:
    mac.album("Lake", "A.JPG")
    mac.photos.add_fault(verb, hang="silent", child=True)
    process = mac.begin("run", "--source", "apple_photos", *options)
    interrupt(process, mac, at_once=False)
    done = ended(process)
    assert (done.code, "Stopped." in done.stderr) == (130, True)
    mac.nothing_is_left()
    assert sorted(path.name for path in mac.lib_root.iterdir()) == ["config"]
