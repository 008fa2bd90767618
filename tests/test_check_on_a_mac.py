"""scripts/check-on-a-mac.sh, played with the stand-in for osascript: it asks, removes only what it made, and tells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.standin_osascript.scenario import PROGRAM, Scenario, error

pytestmark = pytest.mark.long

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"

#: Plays the two scripts of the check over the scenario's file, and hands everything else to the stand-in.
_OSASCRIPT = """#!{python}
import json, os, pathlib, shutil, sys
scenario = pathlib.Path(os.environ["SKICYCLERUN_STANDIN"])
if sys.argv[1] != "-e":
    os.execv({program!r}, sys.argv)
said = json.loads(scenario.read_text())
library = said["library"]
if "import theFiles" in sys.argv[2]:
    items = []
    for number, path in enumerate(sys.argv[4:], 100):
        kept = scenario.parent / f"import-{{number}}.jpg"
        shutil.copy(path, kept)
        item = f"{{number:08X}}-0000-4000-8000-000000000000/L0/001"
        facts = {{"date": f"2024-06-0{{number - 99}}T10:00:00"}}
        if number == 100:
            facts["location"] = [46.5, 11.25]
        name = os.path.basename(path)
        library["items"][item] = {{"filename": name, "files": [{{"name": name, "from": str(kept)}}], **facts}}
        items.append(item)
    library["albums"].append({{"id": "CHECK/L0/040", "title": sys.argv[3], "folders": [], "items": items}})
    print("CHECK/L0/040")
else:
    assert "delete" in sys.argv[2]
    library["albums"] = [album for album in library["albums"] if album["id"] != sys.argv[3]]
scenario.write_text(json.dumps(said))
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    scenario = Scenario(tmp_path / "standin")
    scenario.add_album("Mine", [scenario.add_item("IMG_1.HEIC")])
    return scenario


def check(scenario: Scenario, tmp_path: Path, answer: str) -> subprocess.CompletedProcess[str]:
    """Run it with `answer` typed."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in {
        "osascript": _OSASCRIPT.format(python=sys.executable, program=str(PROGRAM)),
        "osacompile": "#!/bin/sh\nexit 0\n",
    }.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    environment = scenario.environment()
    environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
    environment["TMPDIR"] = str(tmp_path)
    return subprocess.run(
        [sys.executable, str(SCRIPTS / "check_on_a_mac.py")],
        input=answer,
        capture_output=True,
        text=True,
        env=environment,
        cwd=SCRIPTS.parent,
        timeout=120,
        check=False,
    )


def test_elsewhere_it_says_so_and_does_nothing() -> None:
    if sys.platform == "darwin":
        pytest.skip("here it would do something")
    done = subprocess.run(["sh", SCRIPTS / "check-on-a-mac.sh"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "for a Mac with Photos" in done.stderr


@pytest.mark.parametrize("answer", ["", "\n", "n\n", "no\n"])
def test_without_a_yes_nothing_is_done(scenario: Scenario, tmp_path: Path, answer: str) -> None:
    done = check(scenario, tmp_path, answer)
    assert done.returncode == 2
    assert done.stdout.endswith("Nothing was done.\n")
    assert scenario.notes() == []


def test_three_pictures_are_exported_told_of_and_only_the_album_is_removed(scenario: Scenario, tmp_path: Path) -> None:
    done = check(scenario, tmp_path, "y\n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "**no**" not in done.stdout
    for line in ("check é 3.jpg: full size", "the position, where there is one", "`verify --full`", "osacompile"):
        assert line in done.stdout
    library = json.loads(scenario.path.read_text())["library"]
    assert [album["title"] for album in library["albums"]] == ["Mine"]
    assert len(library["items"]) == 4
    assert not list(Path(tempfile.gettempdir()).glob(f"{tmp_path.name}/skicyclerun-check-*"))
    assert not list(tmp_path.glob("skicyclerun-check-*"))


def test_what_is_not_as_expected_is_told_and_the_album_is_removed_all_the_same(
    scenario: Scenario, tmp_path: Path
) -> None:
    scenario.add_fault("export-item", times=-1, error=error(-10000, "Photos got an error."))
    done = check(scenario, tmp_path, "y\n")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "| an album is exported, exit 0 | **no** |" in done.stdout
    assert len(json.loads(scenario.path.read_text())["library"]["albums"]) == 1
