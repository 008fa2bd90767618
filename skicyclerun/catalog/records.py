"""Catalog records out of the state database: the rows that speak for a file on disk, as entries are made of."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from skicyclerun.catalog.entries import CatalogRecord
from skicyclerun.models import Album, Component, SourceKind
from skicyclerun.state.photos import facts_from_row
from skicyclerun.state.store import Row, Store


def record_of(row: Row, export_folder: Path) -> CatalogRecord:
    """The record of one row of the query `present_photos`."""
    album = Album(row["album_id"], row["album_title"], tuple(json.loads(row["folder_path"])))
    return CatalogRecord(
        file_path=str(export_folder / row["folder"] / row["file_name"]),
        file_name=row["file_name"],
        album_name=row["folder"],
        export_timestamp=row["exported_at"],
        source_kind=SourceKind(row["source_kind"]),
        album_id=album.id,
        album_title=album.title,
        album_path=album.path,
        photo_id=row["source_id"],
        original_filename=row["original_filename"],
        facts=facts_from_row(row),
        component=Component(row["component"]),
        fingerprint=row["fingerprint"],
    )


def records_of(rows: Iterable[Row], export_folder: Path) -> Iterable[CatalogRecord]:
    """The records of the rows, one at a time."""
    return (record_of(row, export_folder) for row in rows)


async def gone_paths(store: Store, export_folder: Path) -> list[str]:
    """Paths that were exported once and that no row speaks for any more: their entries leave the catalog."""
    return [str(export_folder / row["folder"] / row["file_name"]) for row in await store.all("paths_gone")]
