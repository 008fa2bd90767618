-- Runs, albums, photos, archive jobs, and an append-only record of every transition.
-- Times are ISO 8601 UTC with milliseconds and Z. Lists are JSON.

CREATE TABLE runs (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    status          TEXT NOT NULL CHECK (status IN ('active', 'interrupted', 'finished', 'abandoned')),
    mode            TEXT NOT NULL CHECK (mode IN ('fresh', 'update')),
    stages          TEXT NOT NULL,
    source_kind     TEXT NOT NULL,
    source_location TEXT NOT NULL,
    selection       TEXT NOT NULL,                -- --album patterns, empty for all
    options         TEXT NOT NULL,                -- the export settings that decide names and bytes; a resumed run keeps them
    planned         INTEGER NOT NULL DEFAULT 0,   -- 1 once the albums are listed
    started_at      TEXT NOT NULL,
    ended_at        TEXT,
    reason          TEXT NOT NULL DEFAULT ''
);

-- Which folder an album has. Kept for as long as the album exists, whatever happens to the runs.
CREATE TABLE album_folders (
    source_kind     TEXT NOT NULL,
    source_location TEXT NOT NULL,
    album_id        TEXT NOT NULL,
    folder          TEXT NOT NULL,
    PRIMARY KEY (source_kind, source_location, album_id)
) WITHOUT ROWID;

CREATE TABLE albums (
    id          INTEGER PRIMARY KEY,
    run_id      INTEGER NOT NULL REFERENCES runs (id),
    position    INTEGER NOT NULL,
    source_id   TEXT NOT NULL,
    title       TEXT NOT NULL,
    folder_path TEXT NOT NULL,
    folder      TEXT NOT NULL,
    listed      INTEGER NOT NULL,                 -- photos, as the source's listing said
    expected    INTEGER,                          -- photo rows; NULL until the album's photos are planned
    status      TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'exporting', 'done', 'failed')),
    attempts    INTEGER NOT NULL DEFAULT 0,
    reason      TEXT NOT NULL DEFAULT '',
    started_at  TEXT,
    ended_at    TEXT,
    seconds     REAL NOT NULL DEFAULT 0,          -- spent exporting, over all attempts
    UNIQUE (run_id, source_id),
    UNIQUE (run_id, folder)
);

CREATE TABLE photos (
    id                INTEGER PRIMARY KEY,
    album             INTEGER NOT NULL REFERENCES albums (id),
    position          INTEGER NOT NULL,
    source_id         TEXT NOT NULL,
    component         TEXT NOT NULL CHECK (component IN ('still', 'video', 'live_movie')),
    original_filename TEXT NOT NULL,
    fingerprint       TEXT NOT NULL,
    file_name         TEXT NOT NULL,              -- decided once and kept
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
    CHECK (status <> 'exported' OR (size IS NOT NULL AND sha256 IS NOT NULL)),
    CHECK (present = 0 OR status = 'exported'),
    UNIQUE (album, source_id, component),
    UNIQUE (album, file_name)
);
CREATE INDEX photos_by_status ON photos (album, status, position);
CREATE INDEX photos_by_path ON photos (path_key);
CREATE INDEX albums_by_source_id ON albums (source_id, run_id);
CREATE UNIQUE INDEX photos_present ON photos (path_key) WHERE present = 1;

CREATE TABLE archives (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id      INTEGER REFERENCES runs (id),
    status      TEXT NOT NULL
                CHECK (status IN ('pending', 'archiving', 'proving', 'archived', 'cleaning', 'done', 'failed')),
    clean       INTEGER NOT NULL,                 -- 1: the folders are emptied once the archive is proved
    timestamp   TEXT NOT NULL,                    -- YYYYMMDD_HHMMSS, part of the file name
    file        TEXT NOT NULL DEFAULT '',         -- name in the archive folder once proved; empty: nothing to archive
    size        INTEGER,
    files       INTEGER,
    proved_at   TEXT,
    reason      TEXT NOT NULL DEFAULT '',
    created_at  TEXT NOT NULL,
    ended_at    TEXT
);

CREATE TABLE transitions (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    subject     TEXT NOT NULL CHECK (subject IN ('run', 'album', 'archive')),
    subject_id  INTEGER NOT NULL,
    from_status TEXT NOT NULL,
    trigger     TEXT NOT NULL,
    to_status   TEXT NOT NULL,
    reason      TEXT NOT NULL DEFAULT '',
    at          TEXT NOT NULL
);
CREATE INDEX transitions_by_subject ON transitions (subject, subject_id, id);

CREATE TRIGGER transitions_are_never_changed BEFORE UPDATE ON transitions
BEGIN SELECT RAISE(ABORT, 'transitions are append-only'); END;

CREATE TRIGGER transitions_are_never_deleted BEFORE DELETE ON transitions
BEGIN SELECT RAISE(ABORT, 'transitions are append-only'); END;

-- The last word on what a legal step is, also for a program that is not this one.
CREATE TRIGGER albums_step_legally BEFORE UPDATE OF status ON albums
WHEN OLD.status <> NEW.status AND (OLD.status, NEW.status) NOT IN (VALUES
    ('pending', 'exporting'), ('exporting', 'done'), ('exporting', 'failed'),
    ('failed', 'pending'), ('exporting', 'pending'))
BEGIN SELECT RAISE(ABORT, 'not a step of the album state machine'); END;

CREATE TRIGGER albums_are_done_only_when_accounted_for BEFORE UPDATE OF status ON albums
WHEN NEW.status = 'done' AND (
    NEW.expected IS NULL
    OR NEW.expected <> (SELECT COUNT(*) FROM photos
                        WHERE album = NEW.id AND status IN ('exported', 'left_out')))
BEGIN SELECT RAISE(ABORT, 'an album is done only when every expected photo is exported or left out'); END;
