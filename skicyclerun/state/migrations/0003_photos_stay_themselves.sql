-- A photo stays itself: what the catalog said of one that has left, for as long as it may come back; and photos whose
-- files were removed by hand.

CREATE TABLE former_entries (
    id              INTEGER PRIMARY KEY,
    path            TEXT NOT NULL,                -- the key that the entry had
    path_key        TEXT NOT NULL,                -- folder/file_name as a case-insensitive disk compares it
    stage           TEXT NOT NULL DEFAULT '',     -- that made the file; empty for an exported one
    variant         TEXT NOT NULL DEFAULT '',
    source_kind     TEXT NOT NULL,                -- the photo it is of, or comes from; empty where nobody knows
    source_location TEXT NOT NULL,
    photo_id        TEXT NOT NULL,
    component       TEXT NOT NULL,
    sha256          TEXT NOT NULL,                -- of the exported file
    since           TEXT NOT NULL,                -- what was exported or made before this was there beside it: no heir
    left_at         TEXT NOT NULL,
    entry           TEXT NOT NULL,                -- JSON, to the letter; empty where it had left before this table was
    UNIQUE (path, stage, variant, source_kind, source_location, photo_id, component)
);
CREATE INDEX photos_present_by_id ON photos (source_id, component) WHERE present = 1;
CREATE INDEX photos_present_by_content ON photos (sha256) WHERE present = 1;

-- 1: its file was removed by hand from the album's folder, and export.removed_files says to leave it out.
ALTER TABLE photos ADD COLUMN removed INTEGER NOT NULL DEFAULT 0;
CREATE INDEX photos_removed ON photos (source_id, component) WHERE removed = 1;
