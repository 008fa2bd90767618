"""A small exported library that has been through stages, to be damaged: made once, and put back for each test."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from skicyclerun.verification.report import VerificationReport
from tests.exported_sample import Exported

#: All that read the sample library's pictures; geocode_sweep has nothing to say without a network.
STAGES: Final = ("metadata_extraction", "preprocessing", "watermarking")

#: What stands in the database of what stages made, but for row numbers and times of the run.
WHAT_STAGES_MADE: Final = """
SELECT stage, folder, photo, input, variant, input_sha256, depends, status, file_name, size, sha256, mtime_ns, width,
       height, made_at, present, departed
FROM stage_pictures ORDER BY stage, folder, input, variant
"""


class Staged(Exported):
    """An export with scaled and watermarked pictures in a lib_root of its own."""

    def __init__(self, lib_root: Path, library: Path) -> None:
        super().__init__(lib_root, library)
        self.scaled = lib_root / "pipeline" / "scaled"
        self.marked = lib_root / "pipeline" / "watermarked_final"

    def run_stages(self, *stages: str) -> int:
        return self.command("run", "--yes", "--stages", ",".join(stages or STAGES))

    def everything(self) -> dict[str, str]:
        """SHA-256 of every exported and made file, by its path below `pipeline`; of a link, that it is one."""
        pipeline = self.lib_root / "pipeline"
        return {
            str(path.relative_to(pipeline)): (
                "a link" if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest()
            )
            for path in sorted(pipeline.rglob("*"))
            if path.is_symlink() or path.is_file()
        }

    def kept(self) -> dict[str, Path]:
        """What repairs kept aside, by its path below their folders."""
        found: dict[str, Path] = {}
        for folder in self.archive.glob("repair_*"):
            found |= {str(path.relative_to(folder)): path for path in folder.rglob("*") if not path.is_dir()}
        return found

    def made_by_run(self) -> dict[tuple[int, str], int]:
        """How many pictures each stage made in each run, where it made any."""
        rows = self.sql("SELECT run_id, stage, SUM(made) FROM stage_albums GROUP BY run_id, stage")
        return {(run, stage): made for run, stage, made in rows if made}


def found_in(report: VerificationReport) -> set[tuple[str, str, str, str]]:
    return {(each.stage, each.finding.value, each.folder, each.name) for each in report.problems}


def staged_once(folder: Path, sample: Path) -> Callable[[], Staged]:
    """Exports a copy of it and runs the stages, once; what it returns puts all of it back as it was, in its place."""
    library, root, saved = folder / "library", folder / "out", folder / "saved"
    shutil.copytree(sample, library)
    assert Exported(root, library).export().command("run", "--yes", "--stages", ",".join(STAGES)) == 0
    shutil.copytree(root, saved, symlinks=True)

    def put_back() -> Staged:
        shutil.rmtree(root)
        shutil.copytree(saved, root, symlinks=True)
        return Staged(root, library)

    return put_back


def entry_keys(entries: dict[str, Any], stage: str) -> list[str]:
    """Paths of the entries of what a stage made."""
    return [path for path, entry in entries.items() if entry.get("made_by", {}).get("stage") == stage]
