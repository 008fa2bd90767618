-- Files beside a picture have rows of their own, as the movie of a Live Photo has: its sidecar, and its unmodified
-- original in the folder `originals` of its album (file_name is then `originals/NAME`). SQLite cannot change a CHECK:
-- the table is made anew, and what names it with it.

DROP TRIGGER albums_are_done_only_when_accounted_for;
DROP TRIGGER photos_speak_otherwise;
DROP TRIGGER photos_speak_for_more;

CREATE TABLE photos_and_files_beside (
    id                INTEGER PRIMARY KEY,
    album             INTEGER NOT NULL REFERENCES albums (id),
    position          INTEGER NOT NULL,
    source_id         TEXT NOT NULL,
    component         TEXT NOT NULL CHECK (component IN ('still', 'video', 'live_movie', 'sidecar', 'original')),
    original_filename TEXT NOT NULL,
    fingerprint       TEXT NOT NULL,
    file_name         TEXT NOT NULL,              -- decided once and kept; below the album's folder
    status            TEXT NOT NULL DEFAULT 'planned'
                      CHECK (status IN ('planned', 'exported', 'failed', 'missing', 'left_out')),
    attempts          INTEGER NOT NULL DEFAULT 0,
    reason            TEXT NOT NULL DEFAULT '',
    size              INTEGER,
    sha256            TEXT,
    mtime_ns          INTEGER,
    facts             TEXT,                       -- JSON, what the catalog says of the file
    exported_at       TEXT,
    present           INTEGER NOT NULL DEFAULT 0, -- 1: this row is the one that speaks for the file on disk
    path_key          TEXT NOT NULL,              -- folder/file_name as a case-insensitive disk compares it
    removed           INTEGER NOT NULL DEFAULT 0, -- 1: its file was removed by hand, and is left out for it
    CHECK (status <> 'exported' OR (size IS NOT NULL AND sha256 IS NOT NULL)),
    CHECK (present = 0 OR status = 'exported'),
    UNIQUE (album, source_id, component),
    UNIQUE (album, file_name)
);
INSERT INTO photos_and_files_beside
SELECT id, album, position, source_id, component, original_filename, fingerprint, file_name, status, attempts, reason,
       size, sha256, mtime_ns, facts, exported_at, present, path_key, removed
FROM photos;
DROP TABLE photos;
ALTER TABLE photos_and_files_beside RENAME TO photos;

CREATE INDEX photos_by_status ON photos (album, status, position);
CREATE INDEX photos_by_path ON photos (path_key);
CREATE UNIQUE INDEX photos_present ON photos (path_key) WHERE present = 1;
CREATE INDEX photos_present_by_id ON photos (source_id, component) WHERE present = 1;
CREATE INDEX photos_present_by_content ON photos (sha256) WHERE present = 1;
CREATE INDEX photos_removed ON photos (source_id, component) WHERE removed = 1;

CREATE TRIGGER albums_are_done_only_when_accounted_for BEFORE UPDATE OF status ON albums
WHEN NEW.status = 'done' AND (
    NEW.expected IS NULL
    OR NEW.expected <> (SELECT COUNT(*) FROM photos
                        WHERE album = NEW.id AND status IN ('exported', 'left_out')))
BEGIN SELECT RAISE(ABORT, 'an album is done only when every expected photo is exported or left out'); END;

CREATE TRIGGER photos_speak_otherwise AFTER UPDATE OF status, present, facts, sha256, file_name ON photos
BEGIN DELETE FROM catalog_written; END;
CREATE TRIGGER photos_speak_for_more AFTER INSERT ON photos WHEN NEW.present = 1
BEGIN DELETE FROM catalog_written; END;
