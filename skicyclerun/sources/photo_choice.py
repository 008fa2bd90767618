"""What of a source a run takes: which albums, which groups of photos, which photos of them. Fixed when it is begun.

It is kept in the run's row, so that a resumed run, and one that repairs, choose as the run did.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Final, Self

from skicyclerun.errors import AllExcluded, UsageError
from skicyclerun.models import Album
from skicyclerun.settings.models import ExportSettings
from skicyclerun.sources.album_selection import excluded_albums, select_albums
from skicyclerun.sources.photo_filters import PhotoFilters
from skicyclerun.sources.photo_groups import GroupBy, is_group

#: In the options of a run.
ROW_KEY: Final = "choice"


@dataclass(frozen=True, slots=True)
class PhotoChoice:
    """See docs/choosing.md for each."""

    exclude: tuple[str, ...] = ()
    everything: bool = False
    group_by: GroupBy = "month"
    not_in_albums: bool = False
    filters: PhotoFilters = field(default_factory=PhotoFilters)
    begun: date | None = None
    """The day from which ages (`30d`) were counted; this machine's calendar."""

    @classmethod
    def of(cls, export: ExportSettings, today: date) -> Self:
        """That of a configuration, for a run that is begun `today`. Raises UsageError."""
        filters = PhotoFilters.of(export.filters, today)
        return cls(export.exclude, export.everything, export.group_by, export.not_in_albums, filters, today)

    @classmethod
    def from_row(cls, options: Mapping[str, Any]) -> Self:
        """From the options of a run; of one that knew nothing of this, everything that its albums hold."""
        row: Mapping[str, Any] = options.get(ROW_KEY) or {}
        begun = row.get("begun")
        return cls(
            exclude=tuple(row.get("exclude", ())),
            everything=bool(row.get("everything")),
            group_by=row.get("group_by", "month"),
            not_in_albums=bool(row.get("not_in_albums")),
            filters=PhotoFilters.from_row(row.get("filters", {})),
            begun=date.fromisoformat(begun) if begun else None,
        )

    def to_row(self) -> dict[str, Any]:
        """For the options of a run; nothing where all is taken that the albums hold."""
        if not self.exclude and not self.everything and not self.filters.set:
            return {}
        row: dict[str, Any] = {"exclude": list(self.exclude), "filters": self.filters.to_row()}
        if self.everything:
            row |= {"everything": True, "group_by": self.group_by, "not_in_albums": self.not_in_albums}
        if self.begun is not None:
            row["begun"] = self.begun.isoformat()
        return {ROW_KEY: row}

    def same_as(self, export: ExportSettings) -> bool:
        """Whether a configuration says the same, ages counted from the same day."""
        try:
            now = PhotoChoice.of(export, self.begun or date.today())
        except UsageError:
            return False
        return now.to_row() == self.to_row()

    def takes_groups(self, selection: Sequence[str], chosen: Iterable[str]) -> bool:
        """Whether a run of these albums, by their ids, that was asked for this `selection`, speaks for the groups."""
        return self.everything and (not selection or any(map(is_group, chosen)))

    def with_everything(self) -> Self:
        """The same, with the groups."""
        return replace(self, everything=True)


def albums_to_export(albums: Sequence[Album], wanted: Sequence[str], choice: PhotoChoice) -> list[Album]:
    """The albums and groups that a run takes, of those that the source lists: what `wanted` names (all where it names
    none) without what is excluded.

    Raises NoAlbumMatches, also for a name to be excluded that is none: a slip there would export what was to stay in.
    Raises AllExcluded where nothing is left.
    """
    chosen = select_albums(albums, wanted)
    out = excluded_albums(albums, choice.exclude)
    left = [album for album in chosen if album.id not in out]
    if chosen and not left:
        raise AllExcluded(wanted, choice.exclude)
    return left


def not_emptied(albums: Sequence[Album], earlier: Collection[str]) -> list[Album]:
    """Without those that the filters empty, unless an `earlier` run exported them: what is there departs."""
    return [album for album in albums if album.photo_count or not album.filtered or album.id in earlier]
