"""Opening, migrating and refusing a state database."""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
from contextlib import closing
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest

import skicyclerun
from skicyclerun.errors import NoState, NotWritable, StateDamaged, StateTooNew
from skicyclerun.models import SourceKind
from skicyclerun.state import runs
from skicyclerun.state.store import QUERIES, Store, statements
from tests.staged_sample import Staged


def write(path: Path, *script: str) -> None:
    connection = sqlite3.connect(path)
    try:
        with connection:
            for statement in script:
                connection.execute(statement)
    finally:
        connection.close()


async def test_every_named_query_fits_the_schema(tmp_path: Path) -> None:
    async with await Store.open(tmp_path / "s.sqlite3"):
        pass
    connection = sqlite3.connect(tmp_path / "s.sqlite3")
    try:
        for name, query in QUERIES.items():
            parameters = dict.fromkeys(_parameters(query))
            try:
                connection.execute(f"EXPLAIN {query}", parameters)
            except sqlite3.Error as error:
                pytest.fail(f"{name}: {error}")
    finally:
        connection.close()


def test_every_named_query_is_run_by_the_program() -> None:
    package = Path(skicyclerun.__file__).parent
    code = "".join(module.read_text(encoding="utf-8") for module in sorted(package.rglob("*.py")))
    named = set(re.findall(r"""["'](\w+)["']""", code))
    assert QUERIES.keys() - named == set()


def _parameters(query: str) -> list[str]:
    return re.findall(r"(?<![:\w]):([a-z_0-9]+)", query)


async def test_a_new_database_is_in_wal_mode_and_syncs_every_commit(tmp_path: Path) -> None:
    async with await Store.open(tmp_path / "deep" / "s.sqlite3") as store:
        connection = store._connection
        assert next(iter(await connection.execute_fetchall("PRAGMA journal_mode")))[0] == "wal"
        assert next(iter(await connection.execute_fetchall("PRAGMA synchronous")))[0] == 2
        assert next(iter(await connection.execute_fetchall("PRAGMA foreign_keys")))[0] == 1


async def test_opening_again_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite3"
    async with await Store.open(path) as store:
        run = await runs.create(
            store,
            mode="fresh",
            stages=("cleanup", "export"),
            source_kind=SourceKind.PHOTOS_LIBRARY,
            source_location="/x.photoslibrary",
            selection=("Frühstück",),
            options={"format": "jpeg"},
        )
    async with await Store.open(path) as store:
        assert await runs.latest(store) == run
        assert (run.selection, run.stages) == (("Frühstück",), ("cleanup", "export"))


async def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite3"
    write(path, "CREATE TABLE t (x)", "PRAGMA user_version = 99")
    before = path.read_bytes()
    for opening in (Store.open, Store.open_to_read):
        with pytest.raises(StateTooNew, match="newer skicyclerun"):
            await opening(path)
    assert path.read_bytes() == before


async def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite3"
    write(path, "CREATE TABLE songs (title)")
    with pytest.raises(StateDamaged, match="another program"):
        await Store.open(path)


async def test_a_file_that_is_no_database_is_called_damaged_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite3"
    path.write_bytes(b"not a database at all, but long enough to be looked at" * 100)
    before = path.read_bytes()
    for opening in (Store.open, Store.open_to_read):
        with pytest.raises(StateDamaged):
            await opening(path)
    assert path.read_bytes() == before


async def test_a_damaged_page_is_found_on_opening(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite3"
    async with await Store.open(path):
        pass
    data = bytearray(path.read_bytes())
    for page in range(4096, len(data), 4096):
        data[page : page + 100] = b"\xff" * 100
    path.write_bytes(data)
    with pytest.raises(StateDamaged):
        async with await Store.open(path):
            pass


async def test_reading_where_there_is_none_makes_none(tmp_path: Path) -> None:
    with pytest.raises(NoState):
        await Store.open_to_read(tmp_path / "state" / "s.sqlite3")
    assert os.listdir(tmp_path) == []


async def test_a_folder_in_the_place_of_the_database_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "s.sqlite3").mkdir()
    with pytest.raises(NotWritable, match="cannot be opened"):
        await Store.open(tmp_path / "s.sqlite3")


async def test_characters_that_mean_something_in_a_uri_are_just_characters(tmp_path: Path) -> None:
    path = tmp_path / "50% off? #1" / "s.sqlite3"
    async with await Store.open(path):
        pass
    assert path.is_file()
    async with await Store.open_to_read(path):
        pass
    assert os.listdir(tmp_path) == ["50% off? #1"]


async def test_reading_beside_a_writer_sees_what_is_committed(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite3"
    async with await Store.open(path) as writer, await Store.open_to_read(path) as reader:
        assert await runs.latest(reader) is None
        await runs.create(
            writer,
            mode="fresh",
            stages=("export",),
            source_kind=SourceKind.FOLDER,
            source_location="/p",
            selection=(),
            options={},
        )
        assert await runs.latest(reader) is not None


def test_a_script_is_split_as_sqlite_does_it() -> None:
    script = "CREATE TABLE a (x);\n-- why; because\nCREATE TRIGGER t AFTER INSERT ON a\nBEGIN DELETE FROM a; END;\n"
    assert [part.splitlines()[-1] for part in statements(script)] == [
        "CREATE TABLE a (x);",
        "BEGIN DELETE FROM a; END;",
    ]
    with pytest.raises(ValueError, match="unfinished"):
        statements("CREATE TABLE a (")


async def test_a_new_database_has_its_name_and_its_folders_synced_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("skicyclerun.state.store.sync_directory", synced.append)
    path = tmp_path / "root" / "state" / "s.sqlite3"
    for _ in range(2):
        async with await Store.open(path):
            pass
    assert synced == [tmp_path / "root" / "state", tmp_path / "root", tmp_path]


# ── databases of earlier versions ─────────────────────────────────────────────────────────────────────────────────


def as_of_version_1(path: Path) -> None:
    """Make a database what the first version would have written: its tables alone, with their rows."""
    now, before = path.with_name("now.sqlite3"), path.with_name("before.sqlite3")
    path.rename(now)
    script = files("skicyclerun.state.migrations").joinpath("0001_initial.sql").read_text(encoding="utf-8")
    with closing(sqlite3.connect(before, isolation_level=None)) as connection:
        for statement in statements(script):
            connection.execute(statement)
        connection.execute("ATTACH ? AS now", (str(now),))
        tables = connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sq%'")
        for (table,) in tables.fetchall():
            columns = ", ".join(row[1] for row in connection.execute(f"PRAGMA main.table_info({table})"))
            where = "WHERE subject <> 'stage_album'" if table == "transitions" else ""
            connection.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM now.{table} {where}")
        connection.execute("PRAGMA user_version = 1")
    now.unlink()
    before.rename(path)


def test_a_database_of_an_earlier_version_is_read_as_it_is_and_brought_up_to_date_by_a_run(tmp_path: Path) -> None:
    """Whoever updates the program and looks before running it is told no tales of damage, and nothing is changed."""
    sample = Staged(tmp_path)
    sample.picture("Alps/a.jpg", 10)
    sample.picture("Coast/b.jpg", 20)
    assert sample.export().code == 0
    state = sample.lib_root / "state" / "skicyclerun.sqlite3"
    as_of_version_1(state)
    before = state.read_bytes()
    assert "2 of 2 photos exported" in sample.run("status").stdout
    assert "Nothing is wrong" in sample.run("verify").stdout
    assert "2 to do (2 new)" in sample.run("--stages", "preprocessing", "--dry-run").stderr
    assert state.read_bytes() == before
    assert sorted(os.listdir(state.parent)) == ["run.lock", "skicyclerun.sqlite3"]
    assert sample.run("--stages", "preprocessing").code == 0
    assert sample.names("scaled") == ["Alps/a.webp", "Coast/b.webp"]
    migrations = files("skicyclerun.state.migrations").iterdir()
    newest = max(int(each.name[:4]) for each in migrations if each.name.endswith(".sql"))
    assert sample.sql("PRAGMA user_version") == [(newest,)]
    assert sample.run("verify").code == 0


# ── queries ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_large_albums_have_given_up_is_found_without_comparing_each_with_each(tmp_path: Path) -> None:
    """After another format every file has got another name; the catalog asks for the old ones each time."""
    sample = Staged(tmp_path)
    sample.picture("Alps/a.jpg")
    sample.export("preprocessing")
    names = ", ".join(row[1] for row in sample.sql("PRAGMA table_info(stage_pictures)") if row[1] != "id")
    others = names.replace("input,", "'i' || n,", 1).replace("file_name,", "'f' || n || end,", 1)
    others = others.replace("present, departed", "end = '.jpg', end = '.webp'")
    sample.sql(
        f"WITH RECURSIVE counted (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM counted WHERE n < 20000) "
        f"INSERT INTO stage_pictures ({names}) "
        f"SELECT {others} FROM stage_pictures, counted, (SELECT '.webp' AS end UNION ALL SELECT '.jpg')"
    )
    began = time.monotonic()
    assert len(sample.sql(QUERIES["stage_files_gone"])) == 20_000
    assert time.monotonic() - began < 10


async def test_a_store_whose_opening_is_cancelled_leaves_no_connection_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: set[int] = set()
    closed: set[int] = set()
    scope = anyio.CancelScope()
    token = anyio.lowlevel.current_token()

    class Watched(sqlite3.Connection):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            opened.add(id(self))
            kept.append(self)
            if threading.current_thread().name.startswith("Thread-"):  # aiosqlite's, not a worker of anyio
                anyio.from_thread.run_sync(scope.cancel, token=token)

        def close(self) -> None:
            closed.add(id(self))
            super().close()

    kept: list[Watched] = []
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Watched))
    with scope:
        await Store.open(tmp_path / "s.sqlite3")
    assert scope.cancelled_caught
    assert len(opened) > 1
    assert opened == closed


def test_a_migration_that_makes_a_table_anew_loses_no_column_no_index_and_no_trigger() -> None:
    """SQLite drops them with the old table, and only a slow query, or a fact that is gone, would tell."""

    def named(connection: sqlite3.Connection) -> set[tuple[str, ...]]:
        objects = connection.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall()
        tables = [name for kind, name in objects if kind == "table"]
        columns = {(table, row[1]) for table in tables for row in connection.execute(f"PRAGMA table_info({table})")}
        return {tuple(each) for each in objects} | columns

    scripts = sorted(
        each.name for each in files("skicyclerun.state.migrations").iterdir() if each.name.endswith(".sql")
    )
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        before: set[tuple[str, ...]] = set()
        for name in scripts:
            script = files("skicyclerun.state.migrations").joinpath(name).read_text(encoding="utf-8")
            for statement in statements(script):
                connection.execute(statement)
            now = named(connection)
            assert before - now == set(), name
            before = now
