"""PhotoExporter and AsyncPhotoExporter: what programs call."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import skicyclerun
from skicyclerun import AsyncPhotoExporter, PhotoExporter
from skicyclerun.errors import (
    ConfigError,
    LibraryError,
    LockHeld,
    NoAlbumMatches,
    NoState,
    SkicyclerunError,
    UnfinishedRun,
    UsageError,
)
from skicyclerun.progress.events import PhotoFinished, ProgressEvent, Renderer
from skicyclerun.progress.json_lines import JsonLines
from skicyclerun.run.lock import RunLock
from skicyclerun.state.machine import AlbumStatus, RunStatus
from tests.exported_sample import SAMPLE_FILES, Exported

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def library(sample_library: Path) -> Path:
    return sample_library


@pytest.fixture
def exporter(tmp_path: Path, library: Path) -> PhotoExporter:
    return PhotoExporter(lib_root=tmp_path / "out", library=library)


def test_importing_the_package_imports_nothing_else() -> None:
    script = (
        "import sys, skicyclerun; heavy = {'anyio', 'PIL', 'exiv2', 'pydantic', 'osxphotos', 'click', 'asyncio'}; "
        "print(sorted(heavy & set(sys.modules))); skicyclerun.PhotoExporter; print('anyio' in sys.modules, "
        "'PIL' in sys.modules, 'osxphotos' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "True False False"]


def test_the_package_says_what_it_offers() -> None:
    assert set(skicyclerun.__all__) == {"AsyncPhotoExporter", "PhotoExporter", "__version__"}
    with pytest.raises(AttributeError, match="nonsense"):
        skicyclerun.nonsense  # noqa: B018 - the access is the test


def test_the_sync_and_the_async_one_have_the_same_methods() -> None:
    def methods(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert methods(PhotoExporter) == methods(AsyncPhotoExporter)
    assert all(vars(PhotoExporter)[name].__doc__ for name in methods(PhotoExporter))


def test_making_one_touches_nothing(exporter: PhotoExporter) -> None:
    assert exporter.status() is None
    assert not exporter.settings.lib_root.exists()


def test_albums_then_export_then_catalog_then_verify(exporter: PhotoExporter) -> None:
    albums = exporter.albums()
    assert [(album.path, album.photo_count) for album in albums] == [
        ("2024/Alps", 4),
        ("2025/Alps", 3),
        ("Coast/Harbour", 3),
        ("Frühling am Fluss", 3),
    ]
    report = exporter.export_albums()
    assert report.run.status is RunStatus.FINISHED
    assert {album.row.folder: album.counts.exported for album in report.albums} == {
        folder: len(names) for folder, names in SAMPLE_FILES.items()
    }
    assert report.totals.exported == report.totals.expected == 13
    written = exporter.catalog_exports()
    assert (written.written, written.entries, written.set_aside) == (False, 13, None)
    exporter.settings.paths.master_catalog.unlink()
    assert exporter.catalog_exports().written
    verified = exporter.verify_exports(full=True)
    assert verified.sound
    assert verified.in_full == 13
    status = exporter.status()
    assert status is not None
    assert status.run == report.run


@pytest.mark.parametrize(
    ("selected", "folders"),
    [
        ("Coast*", ["Coast_Harbour"]),
        (["2024/Alps", "Frühling am Fluss"], ["Alps", "Frühling am Fluss"]),
        (("alps",), ["Alps", "Alps (2)"]),
    ],
)
def test_albums_are_selected_by_title_path_or_glob(
    exporter: PhotoExporter, selected: str | list[str], folders: list[str]
) -> None:
    assert [album.row.folder for album in exporter.export_albums(selected).albums] == folders


def test_albums_are_selected_as_they_were_listed(exporter: PhotoExporter) -> None:
    second = exporter.albums()[1]
    (album,) = exporter.export_albums([second]).albums
    assert album.row.album.id == second.id


def test_selecting_nothing_is_not_selecting_all(exporter: PhotoExporter) -> None:
    with pytest.raises(UsageError, match="No album was selected"):
        exporter.export_albums([])
    with pytest.raises(NoAlbumMatches):
        exporter.export_albums(["nowhere"])
    assert exporter.status() is None


def test_a_second_export_archives_the_first_unless_told_not_to(exporter: PhotoExporter) -> None:
    exporter.export_albums("Coast*")
    exporter.export_albums("2024/Alps", cleanup=False)
    albums = exporter.settings.paths.apple_photos_export
    assert sorted(path.name for path in albums.iterdir()) == ["Alps", "Coast_Harbour"]
    assert list(exporter.settings.paths.archive.glob("*.zip")) == []
    report = exporter.export_albums("2024/Alps", yes=True)
    assert report.archive is not None
    assert (exporter.settings.paths.archive / report.archive.file).is_file()
    assert sorted(path.name for path in albums.iterdir()) == ["Alps"]


def test_values_of_the_configuration_can_be_given(tmp_path: Path, library: Path) -> None:
    exporter = PhotoExporter(
        lib_root=str(tmp_path / "out"),
        library=str(library),
        source="folder",
        settings={"export.jpeg_quality": 50, "export.albums": ["Coast*"], "cleanup.enabled": False},
    )
    assert exporter.settings.export.jpeg_quality == 50
    report = exporter.export_albums()
    assert [album.row.folder for album in report.albums] == ["Coast_Harbour"]
    assert report.archive is None


def test_a_configuration_file_counts(tmp_path: Path, library: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"paths": {"lib_root": str(tmp_path / "root")}, "export": {"library": str(library)}}))
    exporter = PhotoExporter(config)
    assert exporter.settings.lib_root == tmp_path / "root"
    assert len(exporter.albums()) == 4


@pytest.mark.parametrize(
    "wrong", [{"export.jpeg_quality": 101}, {"export.nonsense": 1}, {"paths.archive": "{nowhere}", "export.mode": "x"}]
)
def test_a_wrong_configuration_is_refused_at_once(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        PhotoExporter(lib_root=tmp_path, settings=wrong)


def test_failures_are_in_the_report_and_can_be_retried(tmp_path: Path, library: Path) -> None:
    own = tmp_path / "library"
    shutil.copytree(library, own)
    photo = own / "2024" / "Alps" / "IMG_0002.JPG"
    data = photo.read_bytes()
    photo.write_bytes(b"no picture")
    exporter = PhotoExporter(lib_root=tmp_path / "out", library=own)
    report = exporter.export_albums()
    assert report.albums_with(AlbumStatus.FAILED) == 1
    assert [row.file_name for row in report.albums[0].photos] == ["IMG_0002.jpg"]
    photo.write_bytes(data)
    assert exporter.retry_failed().albums_with(AlbumStatus.DONE) == 4
    assert exporter.retry_failed().albums_with(AlbumStatus.DONE) == 4
    assert exporter.verify_exports(full=True).sound


def test_an_unfinished_run_is_resumed_or_given_up_knowingly(tmp_path: Path, library: Path) -> None:
    exported = Exported(tmp_path / "out", library)
    run = ("run", "--yes", "--library", str(library))
    exporter = exported.exporter
    with pytest.raises(NoState):
        exporter.resume()
    assert exported.process(*run, SKICYCLERUN_FAULT="album.finished:2").returncode == -9
    with pytest.raises(UnfinishedRun):
        exporter.export_albums()
    report = exporter.resume()
    assert (report.run.id, report.run.status, report.totals.exported) == (1, RunStatus.FINISHED, 13)
    assert exporter.resume().run.id == 1
    assert exported.process(*run, SKICYCLERUN_FAULT="group.committed").returncode == -9
    assert exporter.export_albums(give_up_unfinished=True, yes=True).run.id == 3


def test_errors_are_ours_and_come_alone(exporter: PhotoExporter, tmp_path: Path) -> None:
    with pytest.raises(LibraryError):
        PhotoExporter(lib_root=tmp_path / "out", library=tmp_path / "nowhere").albums()
    with pytest.raises(LibraryError) as caught:
        PhotoExporter(lib_root=tmp_path / "out", library=tmp_path / "nowhere").export_albums()
    assert isinstance(caught.value, SkicyclerunError)
    without_state: list[Callable[[], object]] = [
        exporter.catalog_exports,
        exporter.verify_exports,
        exporter.retry_failed,
    ]
    for method in without_state:
        with pytest.raises(NoState):
            method()
    exporter.export_albums("Coast*")
    with RunLock(exporter.settings.lib_root, exporter.settings.paths.state_db.parent / "run.lock"):
        locking: list[Callable[[], object]] = [
            exporter.export_albums,
            exporter.catalog_exports,
            exporter.rebuild_state,
        ]
        for method in locking:
            with pytest.raises(LockHeld):
                method()


def test_an_error_in_the_middle_of_a_run_comes_alone(tmp_path: Path, library: Path) -> None:
    exporter = PhotoExporter(lib_root=tmp_path / "out", library=library)
    export_folder = exporter.settings.paths.apple_photos_export
    export_folder.mkdir(parents=True)
    (export_folder / ".skicyclerun-staging").symlink_to(tmp_path)
    with pytest.raises(SkicyclerunError, match="would leave"):
        exporter.export_albums(cleanup=False)


@pytest.mark.parametrize("sample", [0, 0.0, -1, 1.5, True, float("nan")])
def test_a_sample_is_a_share_or_a_number_of_files(exporter: PhotoExporter, sample: float) -> None:
    with pytest.raises(UsageError, match="sample"):
        exporter.verify_exports(sample=sample)


def test_depths_and_modes_that_contradict_are_refused(exporter: PhotoExporter) -> None:
    with pytest.raises(UsageError):
        exporter.verify_exports(full=True, sample=0.1)
    with pytest.raises(UsageError):
        exporter.export_albums(update=True, cleanup=True)


def test_it_works_in_another_thread(exporter: PhotoExporter) -> None:
    reports: list[object] = []
    thread = threading.Thread(target=lambda: reports.append(exporter.export_albums("Coast*")))
    thread.start()
    thread.join()
    (exporter.settings.paths.apple_photos_export / "Coast_Harbour" / "IMG_0101.jpg").unlink()
    thread = threading.Thread(target=lambda: reports.append(exporter.verify_exports(repair=True)))
    thread.start()
    thread.join()
    assert [type(report).__name__ for report in reports] == ["RunReport", "VerificationReport"]
    assert exporter.verify_exports(full=True).sound


def test_progress_is_told_to_a_renderer(tmp_path: Path, library: Path) -> None:
    with (tmp_path / "events.jsonl").open("w+") as stream:
        renderer: Renderer = JsonLines(stream)
        PhotoExporter(lib_root=tmp_path / "out", library=library, renderer=renderer).export_albums("Coast*")
        stream.seek(0)
        events = [json.loads(line) for line in stream]
    assert len(events) >= 5


def test_nothing_is_printed(exporter: PhotoExporter, capfd: pytest.CaptureFixture[str]) -> None:
    exporter.export_albums("Coast*")
    exporter.verify_exports(full=True, repair=True)
    exporter.rebuild_state(force=True)
    assert capfd.readouterr() == ("", "")


class Interrupting:
    """A renderer that sends SIGINT with the first photo, once it is armed."""

    def __init__(self) -> None:
        self.armed = False

    def handle(self, event: ProgressEvent) -> None:
        if isinstance(event, PhotoFinished) and self.armed:
            self.armed = False
            os.kill(os.getpid(), signal.SIGINT)

    def close(self) -> None:
        return

    def __enter__(self) -> Interrupting:
        return self

    def __exit__(self, *_: object) -> None:
        return


@pytest.mark.parametrize("repairing", [False, True])
def test_an_interrupt_lets_the_photos_in_hand_finish_and_is_raised(
    tmp_path: Path, library: Path, repairing: bool
) -> None:
    renderer = Interrupting()
    settings = {"export.workers": 1, "export.group_photos": 1}
    exporter = PhotoExporter(lib_root=tmp_path / "out", library=library, settings=settings, renderer=renderer)
    if repairing:
        exporter.export_albums()
        shutil.rmtree(exporter.settings.paths.apple_photos_export)
    renderer.armed = True
    work: Callable[[], object] = partial(exporter.verify_exports, repair=True) if repairing else exporter.export_albums
    with pytest.raises(KeyboardInterrupt):
        work()
    status = exporter.status()
    assert status is not None
    assert status.run.status is RunStatus.INTERRUPTED
    assert 0 < status.totals.exported < 13
    assert exporter.resume().totals.exported == 13
    assert exporter.verify_exports(full=True).sound


async def test_within_an_event_loop_the_async_one_is_asked_for(exporter: PhotoExporter) -> None:
    with pytest.raises(UsageError, match="event loop") as caught:
        exporter.albums()
    assert "AsyncPhotoExporter" in caught.value.next_step


async def test_the_async_one_does_the_same(tmp_path: Path, library: Path) -> None:
    exporter = AsyncPhotoExporter(lib_root=tmp_path / "out", library=library)
    assert await exporter.status() is None
    albums = await exporter.albums()
    report = await exporter.export_albums(albums[:2])
    assert report.totals.exported == 7
    assert not (await exporter.catalog_exports()).written
    assert (await exporter.verify_exports(full=True)).sound
    assert (await exporter.resume()).run.id == (await exporter.retry_failed()).run.id == 1
    assert (await exporter.rebuild_state(force=True)).claimed == 7


def test_the_examples_of_the_documentation_work(tmp_path: Path, library: Path) -> None:
    text = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) >= 2
    for number, example in enumerate(examples):
        script = tmp_path / f"example_{number}.py"
        out = tmp_path / f"out-{number}"
        script.write_text(example.replace("/photos/out", str(out)).replace("/photos/My.photoslibrary", str(library)))
        done = subprocess.run(
            [sys.executable, str(script)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
