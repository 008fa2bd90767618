"""A small library that goes through the stages after the export, by the command line, and commands of one's own."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from PIL import Image

from tests.command_line import Ended, skicyclerun

#: Degrees, minutes, seconds of Zermatt.
ZERMATT: Final = {1: "N", 2: (46.0, 1.0, 12.0), 3: "E", 4: (7.0, 44.0, 57.0), 16: "T", 17: 45.0}


def make_picture(
    path: Path, shade: int = 0, *, date: str = "", position: bool = False, size: tuple[int, int] = (96, 72)
) -> None:
    """A picture of one colour; `shade` makes it another one."""
    exif = Image.Exif()
    if date:
        exif[0x9003] = date
    if position:
        exif.get_ifd(0x8825).update(ZERMATT)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 255 - shade, 90)).save(path, exif=exif)


class Staged:
    """A library, its lib_root, and a configuration that is written anew with each change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.library = folder / "library"
        self.lib_root = folder / "root"
        self.library.mkdir(exist_ok=True)
        self._sections: dict[str, Any] = {"export": {"source": "folder", "library": str(self.library)}}
        self.configure()

    # ── doing ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def picture(self, name: str, shade: int = 0, **facts: Any) -> Path:
        """Put a picture into the library: `Album/name.jpg`."""
        path = self.library / name
        make_picture(path, shade, **facts)
        return path

    def configure(self, **sections: Any) -> None:
        """Set whole sections of the configuration, keep the others; each stage works quickly and one at a time."""
        self._sections |= sections
        config = self.lib_root / "config"
        config.mkdir(parents=True, exist_ok=True)
        (config / "pipeline_config.json").write_text(json.dumps(self._sections), encoding="utf-8")

    def command(self, name: str, script: str, *further: str, **keys: Any) -> None:
        """A stage of one's own: a shell script that is given input and output (or those of the album)."""
        path = self.folder / f"{name}.sh"
        path.write_text(script, encoding="utf-8")
        names = ("{album_input}", "{album_output}") if keys.pop("per_album", False) else ("{input}", "{output}")
        section = {"command": ["/bin/sh", str(path), *names, *further], **keys}
        self.configure(stages={**self._sections.get("stages", {}), name: section})

    def arguments(self, *options: str | Path) -> list[str]:
        """What is typed."""
        named = options and options[0] in ("run", "retry-failed", "status", "verify")
        return [*([] if named else ["run"]), *map(str, options), "--lib-root", str(self.lib_root)]

    def run(self, *options: str | Path) -> Ended:
        """A command, `run` by default, in this process."""
        return skicyclerun(*self.arguments(*options))

    def export(self, *stages: str) -> Ended:
        """Export over what is there, and these stages."""
        return self.run("--no-cleanup", "--stages", ",".join(("export", *stages)))

    def update(self, *stages: str) -> Ended:
        """Bring the export up to date, and these stages."""
        return self.run("--update", "--stages", ",".join(("export", *stages)))

    # ── looking ───────────────────────────────────────────────────────────────────────────────────────────────────

    def outputs(self, folder: str) -> Path:
        return self.lib_root / "pipeline" / folder

    def names(self, folder: str) -> list[str]:
        """The files in one of the output folders, as `Album/name`."""
        outputs = self.outputs(folder)
        return sorted(str(path.relative_to(outputs)) for path in outputs.rglob("*") if path.is_file())

    def touched(self, *folders: str) -> dict[str, tuple[int, int]]:
        """Inode and modification time of all files in output folders; all of them, if none is named."""
        pipeline = self.lib_root / "pipeline"
        found = {}
        for path in sorted(pipeline.rglob("*")):
            name = path.relative_to(pipeline)
            if path.is_file() and (not folders or name.parts[0] in folders):
                found[str(name)] = (path.stat().st_ino, path.stat().st_mtime_ns)
        return found

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.lib_root / "state" / "skicyclerun.sqlite3")) as connection:
            found = connection.execute(statement, values).fetchall()
            connection.commit()
            return found

    def pictures(self, stage: str) -> dict[str, str]:
        """`Album/input` → status of the stage's pictures that are still asked for."""
        rows = self.sql("SELECT folder, input, status FROM stage_pictures WHERE stage = ? AND departed = 0", stage)
        return {f"{folder}/{name}": status for folder, name, status in rows}

    def reason(self, stage: str, name: str) -> str:
        """Why the stage has not made something of `Album/input`."""
        folder, _, file_name = name.partition("/")
        (row,) = self.sql(
            "SELECT reason FROM stage_pictures WHERE stage = ? AND folder = ? AND input = ? AND departed = 0",
            stage,
            folder,
            file_name,
        )
        return str(row[0])

    def albums(self, stage: str) -> dict[str, tuple[str, str]]:
        """Folder → (status, reason) of the stage's albums in the newest run."""
        rows = self.sql(
            "SELECT folder, status, reason FROM stage_albums WHERE stage = ? AND run_id = (SELECT MAX(id) FROM runs)",
            stage,
        )
        return {folder: (status, reason) for folder, status, reason in rows}

    def made_at(self, stage: str) -> Mapping[str, str]:
        """`Album/input` → when its result was made: another time where it was made again."""
        rows = self.sql("SELECT folder, input, id, made_at FROM stage_pictures WHERE stage = ? AND departed = 0", stage)
        return {f"{folder}/{name}": f"{row} {made_at}" for folder, name, row, made_at in rows}

    def newest_run(self) -> str:
        """Status of the newest run."""
        return str(self.sql("SELECT status FROM runs ORDER BY id DESC LIMIT 1")[0][0])

    @property
    def entries(self) -> dict[str, Any]:
        """The catalog, by `folder/Album/name`."""
        loaded = json.loads((self.lib_root / "metadata" / "master.json").read_text())
        pipeline = self.lib_root / "pipeline"
        return {str(Path(path).relative_to(pipeline)): entry for path, entry in loaded.items()}

    @property
    def log(self) -> str:
        """All log files."""
        return "".join(path.read_text() for path in sorted((self.lib_root / "logs").iterdir()))
