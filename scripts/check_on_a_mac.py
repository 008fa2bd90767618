"""Exports three generated photos through Photos, and compares with what docs/photos-app.md expects.

Asked for consent first, it makes three pictures, imports them into an album of its own in Photos, exports that album as
`skicyclerun run` does, and prints a report to paste into an issue. It removes nothing that it did not make: at the end
the album (not the photos: no script may delete those) and its own temporary folder. `--keep` leaves both.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from PIL import Image

_SCRIPT: Final = Path(__file__).resolve().with_name("osxPhotoExporter.scpt")
_EXIF, _GPS, _DATE_TAKEN, _LATITUDE, _LONGITUDE = 0x8769, 0x8825, 0x9003, 2, 4
_SIZES: Final = {
    "skicyclerun check 1.jpg": (640, 480),
    "skicyclerun check 2.jpg": (480, 640),
    "check é 3.jpg": (64, 64),
}
_WHERE: Final = (46.5, 11.25)
"""Degrees north and east, written into the first picture."""

_IMPORT: Final = """
on run argv
    tell application "Photos"
        set theAlbum to make new album named (item 1 of argv)
        set theFiles to {}
        repeat with onePath in rest of argv
            set end of theFiles to (POSIX file (contents of onePath)) as alias
        end repeat
        import theFiles into theAlbum skip check duplicates yes
        return id of theAlbum
    end tell
end run
"""
_DELETE: Final = """
on run argv
    tell application "Photos" to delete (first album whose id is (item 1 of argv))
end run
"""


@dataclass(frozen=True)
class Seen:
    """One line of the report."""

    expectation: str
    holds: bool
    what: str


def main(arguments: Sequence[str]) -> int:
    """0: all is as expected; 3: something is not; 1: it could not be tried; 2: no consent."""
    name = f"skicyclerun check {datetime.now():%Y-%m-%d %H%M%S}"
    sys.stdout.write(
        f"This makes an album {name!r} in Photos with three small generated pictures, exports it into a temporary\n"
        "folder, and prints what it saw. macOS will ask whether your terminal may control Photos: allow it.\n"
        "At the end the album is removed again. The three pictures stay in your library, since no script may delete\n"
        "photos; you find them by their names (skicyclerun check 1, skicyclerun check 2, check é 3).\n"
        "Go on? [y/N] "
    )
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        sys.stdout.write("Nothing was done.\n")
        return 2
    folder = Path(tempfile.mkdtemp(prefix="skicyclerun-check-"))
    album = ""
    try:
        pictures = make_pictures(folder / "pictures")
        album = in_photos(_IMPORT, name, *map(str, pictures))
        seen = look(folder / "lib root", album)
    except subprocess.CalledProcessError as error:
        sys.stdout.write(f"It could not be tried: {(error.stderr or error.stdout or '').strip() or error}\n")
        return 1
    finally:
        if "--keep" not in arguments:
            if album:
                remove_album(album, name)
            shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(report(seen))
    return 0 if all(each.holds for each in seen) else 3


def make_pictures(folder: Path) -> list[Path]:
    """Three JPEGs that differ, with a date each, the first with a position."""
    folder.mkdir()
    for number, (name, size) in enumerate(_SIZES.items(), 1):
        exif = Image.Exif()
        exif.get_ifd(_EXIF)[_DATE_TAKEN] = f"2024:06:0{number} 10:00:00"
        if number == 1:
            minutes = [(degrees, (degrees % 1) * 60, 0.0) for degrees in _WHERE]
            exif.get_ifd(_GPS).update(
                {
                    1: "N",
                    _LATITUDE: (int(_WHERE[0]), minutes[0][1], 0.0),
                    3: "E",
                    _LONGITUDE: (int(_WHERE[1]), minutes[1][1], 0.0),
                }
            )
        Image.new("RGB", size, (60 * number, 90, 200 - 50 * number)).save(folder / name, quality=95, exif=exif)
    return [folder / name for name in _SIZES]


def in_photos(script: str, *words: str) -> str:
    """Run AppleScript with these arguments. Raises CalledProcessError with what it said."""
    command = ["osascript", "-e", script, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout.strip()


def remove_album(album: str, name: str) -> None:
    try:
        in_photos(_DELETE, album)
    except subprocess.CalledProcessError as error:
        sys.stdout.write(
            f"The album {name!r} could not be removed ({error.stderr.strip()}); please delete it by hand.\n"
        )


def skicyclerun(*words: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-m", "skicyclerun", *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def look(lib_root: Path, album: str) -> list[Seen]:
    """Try what docs/photos-app.md expects, one after the other."""
    place = ("--lib-root", str(lib_root))
    seen: list[Seen] = []

    def see(expectation: str, holds: Callable[[], tuple[bool, str]]) -> None:
        try:
            seen.append(Seen(expectation, *holds()))
        except Exception as error:  # whatever was not as expected is what the report is for
            seen.append(Seen(expectation, False, f"{type(error).__name__}: {error}"))

    def compiles() -> tuple[bool, str]:
        command = ["osacompile", "-o", str(lib_root.with_name("compiled.scpt")), str(_SCRIPT)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode == 0, done.stderr.strip() or "yes"

    def lists() -> tuple[bool, str]:
        code, out, err = skicyclerun("albums", "--source", "apple_photos", "--json", *place)
        albums = json.loads(out) if code == 0 else []
        found = [each for each in _albums_in(albums) if each.get("id") == album]
        return len(
            found
        ) == 1, f"{len(_albums_in(albums))} albums, ours {'among them' if found else 'not'} {err.strip()}"

    def exports() -> tuple[bool, str]:
        words = ("run", "--source", "apple_photos", "--stages", "export", "--album", album, "--yes", *place)
        code, out, err = skicyclerun(*words)
        return code == 0, f"exit {code}. {(out if code == 0 else err + out).strip()[-600:]}"

    see("the script compiles (osacompile)", compiles)
    see("albums are listed, by id", lists)
    see("an album is exported, exit 0", exports)
    catalog = lib_root / "metadata" / "master.json"
    entries: dict[str, Any] = json.loads(catalog.read_text()) if catalog.exists() else {}
    by_name = {entry["source"]["original_filename"]: entry for entry in entries.values() if "source" in entry}
    for number, (name, size) in enumerate(_SIZES.items(), 1):

        def whole(name: str = name, size: tuple[int, int] = size) -> tuple[bool, str]:
            entry = by_name[name]
            data = Path(entry["file_path"]).read_bytes()
            right = hashlib.sha256(data).hexdigest() == entry["sha256"]
            return right and (entry["width"], entry["height"]) == size, f"{entry['width']} x {entry['height']}"

        def dated(name: str = name, number: int = number) -> tuple[bool, str]:
            taken = str(by_name[name].get("date_taken"))
            return taken.startswith(f"2024-06-0{number}T10:00:00"), taken

        see(f"{name}: full size, its name kept", whole)
        see(f"{name}: the date taken", dated)

    def placed() -> tuple[bool, str]:
        gps = by_name[next(iter(_SIZES))].get("gps") or {}
        near = abs(gps.get("lat", 0) - _WHERE[0]) < 1e-4 and abs(gps.get("lon", 0) - _WHERE[1]) < 1e-4
        return near, str(gps)

    def elsewhere() -> tuple[bool, str]:
        gps = by_name[list(_SIZES)[1]].get("gps")
        return gps is None, str(gps)

    def verifies() -> tuple[bool, str]:
        code, out, err = skicyclerun("verify", "--full", *place)
        return code == 0, (out or err).strip()[-300:]

    def again() -> tuple[bool, str]:
        code, out, err = skicyclerun("run", "--resume", "--yes", *place)
        return code == 0, (err or out).strip()[-200:]

    see("the position, where there is one", placed)
    see("no position where there is none", elsewhere)
    see("`verify --full` finds nothing wrong", verifies)
    see("`run --resume` finds nothing to do", again)
    return seen


def _albums_in(answer: Any) -> list[dict[str, Any]]:
    return answer.get("albums", []) if isinstance(answer, dict) else list(answer)


def report(seen: Sequence[Seen]) -> str:
    """To paste into an issue."""
    _, version, _ = skicyclerun("--version")
    said = [f"\n{version.strip()}, macOS {platform.mac_ver()[0] or '?'} on {platform.machine()}\n"]
    said.append("| Expectation | Holds | Seen |\n|---|---|---|")
    for each in seen:
        what = " ".join(each.what.replace("|", "/").split())
        said.append(f"| {each.expectation} | {'yes' if each.holds else '**no**'} | {what} |")
    said.append("\nPlease paste this into an issue; docs/photos-app.md lists what is still only expected.\n")
    return "\n".join(said)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
