"""Make the small Photos libraries of this folder from the real ones. Typed once; needs FFmpeg for the movies.

    python -m tests.data.reduce_library ../shared/libraries/Test-15.4.1.photoslibrary tests/data

Databases stay as they are to the byte; pictures are scaled to a tenth and keep their EXIF, XMP and profile, movies
to 160 pixels; what an export never reads is left out. README.md beside this file says more.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from PIL import Image
from pillow_heif import register_heif_opener

_SCALE: Final = 10
_LEAST_PIXELS: Final = 64
_MOVIE_WIDTH: Final = 160
_DATABASES: Final = ("Photos.sqlite", "Photos.sqlite-wal", "photos.db", "photos.db-wal")
_FORMATS: Final = {".jpeg": "JPEG", ".jpg": "JPEG", ".png": "PNG", ".heic": "HEIF"}


def main() -> None:
    library, folder = Path(sys.argv[1]), Path(sys.argv[2])
    register_heif_opener()
    target = folder / f"{library.name}.tar.xz"
    with tarfile.open(target, "w:xz", preset=9) as archive:
        for path in sorted(path for path in library.rglob("*") if path.is_file()):
            data = _reduced(path, path.relative_to(library))
            if data is not None:
                member = tarfile.TarInfo(str(Path(library.name) / path.relative_to(library)))
                member.size, member.mode = len(data), 0o644
                member.mtime = int(path.stat().st_mtime)
                archive.addfile(member, io.BytesIO(data))
    sys.stdout.write(f"{target}: {target.stat().st_size:,} bytes\n")


def _reduced(path: Path, inside: Path) -> bytes | None:
    """What becomes of a file; None: it is left out."""
    top = inside.parts[0]
    if top == "database":
        return path.read_bytes() if path.name in _DATABASES and len(inside.parts) == 2 else None
    if top not in ("originals", "Masters", "resources"):
        return None
    suffix = path.suffix.lower()
    if suffix in _FORMATS:
        return _scaled(path, _FORMATS[suffix])
    if suffix == ".mov":
        return _movie(path)
    return path.read_bytes() if suffix == ".aae" or (suffix == ".plist" and "renders" in inside.parts) else None


def _scaled(path: Path, kind: str) -> bytes:
    with Image.open(path) as image:
        kept = {key: image.info[key] for key in ("exif", "icc_profile", "xmp") if image.info.get(key)}
        longest = max(_LEAST_PIXELS, max(image.size) // _SCALE)
        image.thumbnail((longest, longest))
        written = io.BytesIO()
        image.save(written, kind, **kept, **({} if kind == "PNG" else {"quality": 60}))
    return written.getvalue()


def _movie(path: Path) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        smaller = Path(folder) / path.name
        small = ("-vf", f"scale={_MOVIE_WIDTH}:-2", "-crf", "40", "-b:a", "16k", "-ac", "1")
        keep = ("-map_metadata", "0", "-movflags", "use_metadata_tags", "-map", "0:v:0", "-map", "0:a?")
        subprocess.run(["ffmpeg", "-v", "error", "-i", path, *keep, *small, smaller], check=True)
        return smaller.read_bytes()


if __name__ == "__main__":
    main()
