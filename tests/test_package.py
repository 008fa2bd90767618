"""The package as people install it: a wheel, used away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of the wheel that pip builds from the checkout."""
    pytest.importorskip("hatchling")
    wheels = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "-w", str(wheels), str(CHECKOUT)], check=True, cwd=wheels, timeout=120)
    (wheel,) = wheels.glob("skicyclerun-*.whl")
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def installed(site: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "skicyclerun", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_wheel_has_all_that_the_checkout_has(site: Path) -> None:
    packed = {str(path.relative_to(site)) for path in (site / "skicyclerun").rglob("*") if path.is_file()}
    kept = {
        str(path.relative_to(CHECKOUT))
        for path in (CHECKOUT / "skicyclerun").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert kept <= packed
    shipped = {name for name in packed if name.startswith("skicyclerun/shipped/")}
    for folder in ("config", "scripts"):
        for path in (CHECKOUT / folder).iterdir():
            if path.suffix in (".json", ".scpt", ".txt"):
                assert f"skicyclerun/shipped/{path.name}" in shipped


def test_the_version_is_said_in_one_place(site: Path) -> None:
    from skicyclerun import __version__

    (metadata,) = site.glob("skicyclerun-*.dist-info/METADATA")
    assert f"\nVersion: {__version__}\n" in metadata.read_text()
    said = [
        path
        for path in (CHECKOUT / "pyproject.toml", *(CHECKOUT / "skicyclerun").rglob("*.py"))
        if f'"{__version__}"' in path.read_text()
    ]
    assert said == [CHECKOUT / "skicyclerun" / "__init__.py"]


def test_it_works_away_from_the_checkout(site: Path, tmp_path: Path) -> None:
    where = subprocess.run(
        [sys.executable, "-c", "import skicyclerun; print(skicyclerun.__file__)"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert where.startswith(str(site))
    result = installed(site, "config", "init", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    result = installed(site, "demo", "--to", "demo", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert list((tmp_path / "demo").rglob("master.json"))
    result = installed(site, "report", "--lib-root", "demo/results", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "All 13 photos are here." in (tmp_path / "demo" / "results" / "report.html").read_text()


def test_the_program_ends_once_all_is_printed_and_all_others_have_tidied_up() -> None:
    code = """
import atexit, sys, threading
import skicyclerun.cli
from skicyclerun.__main__ import main

def last():
    threading.main_thread().join()
    print("a thread ended")

def run_command_line(arguments):
    threading.Thread(target=last).start()
    atexit.register(print, "tidied up", file=sys.stderr)
    print("." * 300_000)
    return 3

class Late:
    def __del__(self):
        print("taken apart")

late = Late()
skicyclerun.cli.run_command_line = run_command_line
main()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (3, "tidied up\n")
    assert ended.stdout == "." * 300_000 + "\na thread ended\n"
