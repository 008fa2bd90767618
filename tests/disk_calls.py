"""What a program asked of the disk, and what a power cut may leave of it.

`disk_calls.c` stands between the program and the disk. A recording is replayed over the tree as it was before, up to
any moment; `DiskState.after_a_cut` then decides what of it a file system may have kept:

- Bytes are safe once their file was synced after they were written. Of later ones any part may be there: none, some
  and not others (a hole of zeros between), the last one cut in the middle.
- A name made, renamed or removed is safe once its folder was synced. Of later ones any may be there, whatever their
  order; only the two halves of one rename stay together, as every journalling file system promises
  (POSIX, rename: "atomic"; it promises nothing about durability).
- Syncing a file says nothing about its name, syncing a folder nothing about what its files hold.

Memory-mapped writes are not seen. SQLite maps only its `-shm`, which it makes anew.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import pytest

_SOURCE: Final = Path(__file__).with_name("disk_calls.c")

Kept = Literal["nothing", "everything", "names only", "bytes only", "any"]
#: What becomes of that which was not synced, from the simplest to the wildest.
KEPT: Final[tuple[Kept, ...]] = ("nothing", "everything", "names only", "bytes only", "any")


def compiled(folder: Path) -> Path:
    """The library to preload. Skips the test where there is no compiler, or no Linux."""
    compiler = shutil.which("cc")
    if compiler is None or not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs Linux and a C compiler, to stand between the program and the disk")
    library = folder / "disk_calls.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(_SOURCE)], check=True)
    return library


# ── a recording ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Call:
    """One call that succeeded; which letter means what stands in disk_calls.c."""

    letter: str
    inode: int
    folder: int
    name: str
    other_folder: int
    other_name: str
    offset: int
    length: int
    data: bytes


def recording(log: Path) -> list[Call]:
    """The calls in their order."""
    data = log.read_bytes()
    calls: list[Call] = []
    place = 0
    while place < len(data):
        end = data.index(b"\n", place)
        letter, inode, folder, name, other, other_name, offset, length = data[place:end].decode("ascii").split("\t")
        place = end + 1
        held = int(length) if letter in "WC" else 0
        calls.append(
            Call(
                letter,
                int(inode),
                int(folder),
                _name(name),
                int(other),
                _name(other_name),
                int(offset),
                int(length),
                data[place : place + held],
            )
        )
        place += held
    return calls


def _name(hexadecimal: str) -> str:
    return os.fsdecode(bytes.fromhex(hexadecimal))


# ── the disk, as far as it is known to be safe ────────────────────────────────────────────────────────────────────


@dataclass(slots=True, eq=False)
class _Node:
    """A file, folder or link: what of it is safe, and what was asked since."""

    kind: Literal["file", "folder", "link"]
    data: bytes = b""
    """Of a file what is safe; of a link its target."""
    mtime_ns: int = 0
    entries: dict[str, _Node] = field(default_factory=dict)
    written: list[Call] = field(default_factory=list)
    """Not synced yet."""


@dataclass(slots=True, eq=False)
class _Naming:
    """A change of names that is not known to be safe: `node` becomes `into`, and is no longer `at`."""

    number: int
    node: _Node
    at: tuple[_Node, str] | None = None
    into: tuple[_Node, str] | None = None

    def apply(self, entries: dict[_Node, dict[str, _Node]]) -> None:
        if self.at is not None and entries[self.at[0]].get(self.at[1]) is self.node:
            del entries[self.at[0]][self.at[1]]
        if self.into is not None:
            entries[self.into[0]][self.into[1]] = self.node

    def touches(self, folder: _Node) -> bool:
        return folder in (self.at[0] if self.at else None, self.into[0] if self.into else None)


class DiskState:
    """A tree that calls are replayed on. `root` is read as it is when this is made, before the recorded run."""

    def __init__(self, root: Path) -> None:
        self._nodes: dict[int, _Node] = {}
        self._root = self._read(root)
        self._namings: list[_Naming] = []
        self._counter = itertools.count()

    def _read(self, path: Path) -> _Node:
        status = path.lstat()
        if path.is_symlink():
            node = _Node("link", os.fsencode(os.readlink(path)))
        elif path.is_dir():
            node = _Node("folder")
            node.entries = {name: self._read(path / name) for name in sorted(os.listdir(path))}
        elif status.st_ino in self._nodes:  # a hard link
            node = self._nodes[status.st_ino]
        else:
            node = _Node("file", path.read_bytes(), status.st_mtime_ns)
        self._nodes[status.st_ino] = node
        return node

    def replay(self, call: Call) -> None:
        """Ask this of the disk."""
        number = next(self._counter)
        nodes = self._nodes
        match call.letter:
            case "C":
                kinds: tuple[Literal["file", "folder", "link"], ...] = ("file", "folder", "link")
                node = nodes[call.inode] = _Node(kinds[call.offset], call.data)
                self._namings.append(_Naming(number, node, into=(nodes[call.folder], call.name)))
            case "L":
                self._namings.append(_Naming(number, nodes[call.inode], into=(nodes[call.folder], call.name)))
            case "U":
                self._namings.append(_Naming(number, nodes[call.inode], at=(nodes[call.folder], call.name)))
            case "R":
                at, into = (nodes[call.folder], call.name), (nodes[call.other_folder], call.other_name)
                self._namings.append(_Naming(number, nodes[call.inode], at, into))
            case "W" | "T" | "M":
                nodes[call.inode].written.append(call)
            case "S":
                self._sync(nodes[call.inode])
            case _:
                raise AssertionError(call)

    def _sync(self, node: _Node) -> None:
        if node.kind == "file":
            node.data, node.mtime_ns = _with(node, node.written)
            node.written = []
            return
        safe = [naming for naming in self._namings if naming.touches(node)]
        # What came before on the other side of a rename, about the same name, is no longer to be had alone.
        for naming in tuple(safe):
            if naming.at is not None:
                safe += [each for each in self._namings if each.number < naming.number and each.into == naming.at]
        for naming in sorted(set(safe), key=lambda each: each.number):
            naming.apply(_Entries())
        self._namings = [naming for naming in self._namings if naming not in safe]

    def after_a_cut(self, root: Path, kept: Kept, chance: random.Random) -> None:
        """Make `root` what the disk may hold after a power cut now, from nothing."""
        entries = _Copies()
        for naming in self._namings:
            if kept in ("everything", "names only") or (kept == "any" and chance.random() < 0.5):
                naming.apply(entries)
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        self._write(self._root, root, entries, kept, chance, {})

    def _write(
        self,
        folder: _Node,
        path: Path,
        entries: dict[_Node, dict[str, _Node]],
        kept: Kept,
        chance: random.Random,
        made: dict[_Node, Path],
    ) -> None:
        for name, node in entries[folder].items():
            target = path / name
            if node.kind == "folder":
                target.mkdir()
                self._write(node, target, entries, kept, chance, made)
            elif node.kind == "link":
                os.symlink(os.fsdecode(node.data), target)
            elif node in made:
                os.link(made[node], target)
            else:
                made[node] = target
                data, mtime_ns = _with(node, _survivors(node.written, kept, chance))
                target.write_bytes(data)
                if mtime_ns:
                    os.utime(target, ns=(mtime_ns, mtime_ns))


class _Entries(dict[_Node, dict[str, _Node]]):
    """The safe entries of each folder themselves."""

    def __missing__(self, node: _Node) -> dict[str, _Node]:
        return node.entries


class _Copies(dict[_Node, dict[str, _Node]]):
    """Entries that may be changed while the safe ones stay."""

    def __missing__(self, node: _Node) -> dict[str, _Node]:
        return self.setdefault(node, dict(node.entries))


def _survivors(written: list[Call], kept: Kept, chance: random.Random) -> list[Call]:
    if kept in ("nothing", "names only"):
        return []
    if kept == "any":
        way = chance.randrange(3)
        if way == 0:  # a beginning, its last write cut
            written = written[: chance.randint(0, len(written))]
            return [*written[:-1], _cut(written[-1], chance)] if written else []
        if way == 1:  # some and not others
            return [call for call in written if chance.random() < 0.6]
    return written


def _cut(call: Call, chance: random.Random) -> Call:
    if call.letter != "W" or not call.data:
        return call
    length = chance.randint(0, len(call.data))
    return Call("W", call.inode, 0, "", 0, "", call.offset, length, call.data[:length])


def _with(node: _Node, written: list[Call]) -> tuple[bytes, int]:
    """Bytes and modification time of a file after these calls."""
    data, mtime_ns = bytearray(node.data), node.mtime_ns
    for call in written:
        if call.letter == "M":
            mtime_ns = call.offset * 1_000_000_000 + call.length
            continue
        end = call.offset + (len(call.data) if call.letter == "W" else 0)
        if len(data) < end:
            data.extend(bytes(end - len(data)))
        if call.letter == "W":
            data[call.offset : end] = call.data
        else:
            del data[call.offset :]
    return bytes(data), mtime_ns


def moments(calls: list[Call], count: int, chance: random.Random) -> Iterator[int]:
    """So many places to cut at, of which half are right before or after a sync or a change of names."""
    telling = [at for at, call in enumerate(calls) if call.letter in "SRUL"]
    for number in range(count):
        if number % 2 and telling:
            yield chance.choice(telling) + chance.randint(0, 1)
        else:
            yield chance.randint(0, len(calls))
