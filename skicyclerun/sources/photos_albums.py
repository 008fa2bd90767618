"""The albums of a library and what is in them, straight from the tables of `Photos.sqlite`, as osxphotos gives them."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import Any, Final, NamedTuple

from skicyclerun.models import AlbumKind
from skicyclerun.sources.photos_asset import AlbumRecord, AlbumUnreadable, nfc
from skicyclerun.sources.photos_facts import PICKED, moment_by_osxphotos, whole_number
from skicyclerun.sources.photos_schema import Schema, SchemaUnknown

_KINDS: Final = {2: AlbumKind.ALBUM, 1505: AlbumKind.SHARED, 1508: AlbumKind.PROJECT}
"""ZGENERICALBUM.ZKIND."""
_ORDER: Final = tuple(_KINDS.values())
_ROOT_FOLDER: Final = 3999
_BY_DATE: Final = 1
_BY_TITLE: Final = 5
"""ZCUSTOMSORTKEY; 0 is by hand."""
_WITHOUT_PLACE: Final = (9_999_999,)
"""In the sidebar; osxphotos' `library_list_order` of an album that has none."""


_SHOWN: Final = f"""{{asset}}.ZHIDDEN IS NOT 1 AND {{asset}}.ZTRASHEDSTATE IS NOT 1
    AND ({{asset}}.ZAVALANCHEUUID IS NULL OR ifnull({{asset}}.ZAVALANCHEPICKTYPE, 0) & {PICKED}
        OR {{asset}}.ZVISIBILITYSTATE IS 0)"""
"""What `photos_asset.is_shown` says."""
_FACTS: Final = """extra.ZORIGINALFILESIZE, {asset}.ZDATECREATED, extra.ZTIMEZONEOFFSET, extra.ZTIMEZONENAME,
    extra.ZTITLE"""
"""Of a `_Member`, from its size on."""


class _Row(NamedTuple):
    """An album or a folder."""

    key: int
    uuid: str
    title: str | None
    kind: int
    folder: int | None
    place: Any
    """Among the albums and folders of its folder."""
    sorted_by: int | None
    ascending: int | None


class _Member(NamedTuple):
    uuid: str
    place: Any
    """In the album, by hand."""
    size: int | None
    created: float | None
    offset: Any
    zone: Any
    title: str | None


def read_albums(connection: sqlite3.Connection, schema: Schema) -> list[AlbumRecord]:
    """Those not in the trash; their own ones by the sidebar, then shared ones, then projects.

    Raises AlbumUnreadable, SchemaUnknown, sqlite3.Error.
    """
    rows, listed = _read_rows(connection)
    members = _read_members(connection, schema)
    found: list[tuple[int, tuple[int, ...], AlbumRecord]] = []
    for row in listed:
        kind = _KINDS[row.kind]
        way = _way_to(row, rows) if kind is AlbumKind.ALBUM else []
        found.append((_ORDER.index(kind), _place(row, way), _record(row, way, members.get(row.key, []), kind)))
    shared = _ORDER.index(AlbumKind.SHARED)
    found.extend((shared, _WITHOUT_PLACE, record) for record in _read_shares(connection, schema))
    found.sort(key=lambda each: (*each[:2], each[2].title, each[2].id))
    return [record for *_, record in found]


def _read_rows(connection: sqlite3.Connection) -> tuple[dict[int, _Row], list[_Row]]:
    """Folders and albums by key, and those that are listed."""
    rows: dict[int, _Row] = {}
    own: dict[str, _Row] = {}
    roots = 0
    for *facts, trashed, owner in connection.execute(
        "SELECT Z_PK, ZUUID, ZTITLE, ZKIND, ZPARENTFOLDER, Z_FOK_PARENTFOLDER, ZCUSTOMSORTKEY, ZCUSTOMSORTASCENDING,"
        " ZTRASHEDSTATE, ZCLOUDOWNERHASHEDPERSONID FROM ZGENERICALBUM"
    ):
        row = _Row(*facts)
        rows[row.key] = row
        roots += row.kind == _ROOT_FOLDER
        if row.kind in _KINDS and trashed == 0 and (owner is None or _KINDS[row.kind] is AlbumKind.SHARED):
            own[row.uuid] = row
    if roots != 1:
        raise SchemaUnknown(f"{roots} root folders")
    return rows, list(own.values())


def _way_to(row: _Row, rows: dict[int, _Row]) -> list[_Row]:
    """The folders that an album lies in, outermost first."""
    way: list[_Row] = []
    while row.folder is not None:
        above = rows.get(row.folder)
        if above is None or above in way:
            raise SchemaUnknown(f"the folder of album {row.uuid} is not there, or in itself")
        if above.kind == _ROOT_FOLDER:
            break
        way.insert(0, above)
        row = above
    return way


def _place(row: _Row, way: list[_Row]) -> tuple[int, ...]:
    """In the sidebar, as osxphotos' `library_list_order`: nothing above a folder without a place counts."""
    place: tuple[int, ...] = ()
    for each in (*way, row):
        try:
            place = (*place, int(each.place))
        except (TypeError, ValueError):
            place = _WITHOUT_PLACE
    return place


def _read_members(connection: sqlite3.Connection, schema: Schema) -> dict[int, list[_Member]]:
    """By album, those that Photos shows."""
    asset = schema.asset
    members: dict[int, list[_Member]] = {}
    for album, *facts in connection.execute(
        f"""SELECT {schema.member_album}, {asset}.ZUUID, {schema.member_order}, {_FACTS.format(asset=asset)}
        FROM {asset} JOIN {schema.membership} ON {schema.member_asset} = {asset}.Z_PK
        JOIN ZADDITIONALASSETATTRIBUTES AS extra ON extra.ZASSET = {asset}.Z_PK
        WHERE {_SHOWN.format(asset=asset)}"""
    ):
        members.setdefault(album, []).append(_Member(*facts))
    return members


def _in_order(row: _Row, members: list[_Member]) -> list[_Member]:
    """As Photos shows them. Raises TypeError where their places cannot be compared."""
    by_hand = sorted(members, key=lambda member: (member.place, member.uuid))
    if row.sorted_by == _BY_TITLE:
        return sorted(by_hand, key=lambda member: nfc(member.title or ""))
    if row.sorted_by == _BY_DATE and row.ascending in (0, 1):
        return sorted(by_hand, key=_moment, reverse=row.ascending == 0)
    return by_hand


def _moment(member: _Member) -> datetime:
    return moment_by_osxphotos(member.created, member.offset, member.zone)


def _read_shares(connection: sqlite3.Connection, schema: Schema) -> list[AlbumRecord]:
    """Shared albums of Photos 11 (macOS 26) and later, which are in a table of shares; in the order of their titles.

    Their photos have no place: they come in the order in which they were shared, as osxphotos has them.
    """
    asset = schema.asset
    if not (schema.has("ZSHARE", "Z_ENT", "ZTITLE") and schema.has(asset, "ZCOLLECTIONSHARE")):
        return []
    entity = connection.execute("SELECT Z_ENT FROM Z_PRIMARYKEY WHERE Z_NAME = 'CollectionShare'").fetchone()
    if entity is None:
        return []
    members: dict[int, list[_Member]] = {}
    for at, (share, uuid, *facts) in enumerate(
        connection.execute(
            f"""SELECT ZSHARE.Z_PK, {asset}.ZUUID, {_FACTS.format(asset=asset)}
            FROM {asset} JOIN ZSHARE ON ZSHARE.Z_PK = {asset}.ZCOLLECTIONSHARE
            JOIN ZADDITIONALASSETATTRIBUTES AS extra ON extra.ZASSET = {asset}.Z_PK
            WHERE ZSHARE.Z_ENT = ? AND {_SHOWN.format(asset=asset)}
            ORDER BY {asset}.ZCLOUDBATCHPUBLISHDATE, {asset}.Z_PK""",
            entity,
        )
    ):
        members.setdefault(share, []).append(_Member(uuid, at, *facts))
    records = []
    for key, uuid, title, sorted_by, ascending in connection.execute(
        "SELECT Z_PK, ZUUID, ZTITLE, ZCUSTOMSORTKEY, ZCUSTOMSORTASCENDING FROM ZSHARE"
        " WHERE Z_ENT = ? AND ifnull(ZTRASHEDSTATE, 0) = 0",
        entity,
    ):
        row = _Row(key, uuid, title, 1505, None, None, sorted_by, ascending)
        records.append(_record(row, [], members.get(key, []), AlbumKind.SHARED))
    return records


def _record(row: _Row, way: list[_Row], members: list[_Member], kind: AlbumKind) -> AlbumRecord:
    try:
        shown = _in_order(row, members)
    except Exception as error:
        raise AlbumUnreadable(nfc(row.title or ""), error) from error
    return AlbumRecord(
        id=row.uuid,
        title=nfc(row.title or ""),
        folders=tuple(nfc(folder.title or "") for folder in way),
        uuids=tuple(member.uuid for member in shown),
        size=sum(whole_number(member.size) for member in shown),
        kind=kind,
    )
