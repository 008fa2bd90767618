-- The stages after the export: an album of a stage goes through the same machine as an album of the export, and each
-- (stage, input, variant) has a row that outlives the runs.

CREATE TABLE stage_albums (
    id          INTEGER PRIMARY KEY,
    run_id      INTEGER NOT NULL REFERENCES runs (id),
    stage       TEXT NOT NULL,
    position    INTEGER NOT NULL,
    folder      TEXT NOT NULL,                    -- the album's folder, the same for every stage
    title       TEXT NOT NULL,                    -- with the folders of the library, for people
    expected    INTEGER,                          -- pictures of the stage before; NULL until planned
    waiting     INTEGER NOT NULL DEFAULT 0,       -- those of them that have not come, because it has not made them
    status      TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'exporting', 'done', 'failed')),
    attempts    INTEGER NOT NULL DEFAULT 0,
    reason      TEXT NOT NULL DEFAULT '',
    started_at  TEXT,
    ended_at    TEXT,
    seconds     REAL NOT NULL DEFAULT 0,
    made        INTEGER NOT NULL DEFAULT 0,       -- the counts at its end: its rows move on to the next run
    done        INTEGER NOT NULL DEFAULT 0,
    failed      INTEGER NOT NULL DEFAULT 0,
    left_out    INTEGER NOT NULL DEFAULT 0,
    bytes       INTEGER NOT NULL DEFAULT 0,
    pass        INTEGER NOT NULL DEFAULT 1,       -- counted up where a stage before it has made more in the same run
    UNIQUE (run_id, stage, folder, pass)
);
CREATE INDEX stage_albums_by_folder ON stage_albums (stage, folder, run_id);

CREATE TABLE stage_pictures (
    id           INTEGER PRIMARY KEY,
    stage        TEXT NOT NULL,
    album        INTEGER NOT NULL REFERENCES stage_albums (id),  -- that planned it last
    position     INTEGER NOT NULL,
    folder       TEXT NOT NULL,
    photo        TEXT NOT NULL,                   -- the exported file it comes from, in the same folder
    input        TEXT NOT NULL,                   -- the file of the stage before
    variant      TEXT NOT NULL DEFAULT '',
    input_sha256 TEXT NOT NULL,
    depends      TEXT NOT NULL,                   -- digest of all else that the result depends on
    status       TEXT NOT NULL DEFAULT 'planned' CHECK (status IN ('planned', 'done', 'failed', 'left_out')),
    attempts     INTEGER NOT NULL DEFAULT 0,
    reason       TEXT NOT NULL DEFAULT '',
    note         TEXT NOT NULL DEFAULT '',
    file_name    TEXT NOT NULL DEFAULT '',        -- decided once and kept; empty: facts only
    size         INTEGER,
    sha256       TEXT,
    mtime_ns     INTEGER,
    width        INTEGER,
    height       INTEGER,
    facts        TEXT,                            -- JSON, for the catalog
    seconds      REAL,
    made_at      TEXT,
    present      INTEGER NOT NULL DEFAULT 0,      -- 1: this row speaks for a file on disk, or for facts
    departed     INTEGER NOT NULL DEFAULT 0,      -- 1: its input has left; the file is put away at the end of the run
    CHECK (status <> 'done' OR made_at IS NOT NULL)
);
CREATE UNIQUE INDEX stage_pictures_by_input ON stage_pictures (stage, folder, input, variant) WHERE departed = 0;
CREATE INDEX stage_pictures_by_folder ON stage_pictures (stage, folder, position);
CREATE INDEX stage_pictures_departed ON stage_pictures (stage) WHERE departed = 1;
CREATE INDEX stage_pictures_absent ON stage_pictures (folder, file_name) WHERE present = 0;
CREATE INDEX stage_pictures_by_album ON stage_pictures (album, status);
CREATE INDEX stage_pictures_by_photo ON stage_pictures (folder, photo);
CREATE INDEX stage_pictures_by_content ON stage_pictures (stage, input_sha256);

CREATE TRIGGER stage_albums_step_legally BEFORE UPDATE OF status ON stage_albums
WHEN OLD.status <> NEW.status AND (OLD.status, NEW.status) NOT IN (VALUES
    ('pending', 'exporting'), ('exporting', 'done'), ('exporting', 'failed'),
    ('failed', 'pending'), ('exporting', 'pending'))
BEGIN SELECT RAISE(ABORT, 'not a step of the album state machine'); END;

CREATE TRIGGER stage_albums_are_done_only_when_accounted_for BEFORE UPDATE OF status ON stage_albums
WHEN NEW.status = 'done' AND (
    NEW.expected IS NULL
    OR NEW.expected <> (SELECT COUNT(*) FROM stage_pictures
                        WHERE album = NEW.id AND departed = 0 AND status IN ('done', 'left_out')))
BEGIN SELECT RAISE(ABORT, 'an album is done only when every expected picture is made or left out'); END;

-- Stages ask for the files of an album's folder, whichever run exported them.
CREATE INDEX albums_by_folder ON albums (folder, run_id);

-- What master.json looked like when it last said all that the rows say; gone with the first row that says otherwise.
CREATE TABLE catalog_written (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    path     TEXT NOT NULL,
    identity TEXT NOT NULL                        -- device, inode, size, modification time: JSON
);
CREATE TRIGGER photos_speak_otherwise AFTER UPDATE OF status, present, facts, sha256, file_name ON photos
BEGIN DELETE FROM catalog_written; END;
CREATE TRIGGER photos_speak_for_more AFTER INSERT ON photos WHEN NEW.present = 1
BEGIN DELETE FROM catalog_written; END;
CREATE TRIGGER stages_speak_otherwise AFTER UPDATE OF status, present, departed, facts, sha256, file_name
ON stage_pictures BEGIN DELETE FROM catalog_written; END;
CREATE TRIGGER stages_speak_less AFTER DELETE ON stage_pictures
BEGIN DELETE FROM catalog_written; END;

-- An archive job puts away old outputs, or what left its album by way of the stages.
ALTER TABLE archives ADD COLUMN purpose TEXT NOT NULL DEFAULT 'outputs' CHECK (purpose IN ('outputs', 'stages'));

-- The record of transitions also holds those of stage albums.
CREATE TABLE transitions_of_all (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    subject     TEXT NOT NULL CHECK (subject IN ('run', 'album', 'archive', 'stage_album')),
    subject_id  INTEGER NOT NULL,
    from_status TEXT NOT NULL,
    trigger     TEXT NOT NULL,
    to_status   TEXT NOT NULL,
    reason      TEXT NOT NULL DEFAULT '',
    at          TEXT NOT NULL
);
INSERT INTO transitions_of_all SELECT * FROM transitions;
DROP TABLE transitions;
ALTER TABLE transitions_of_all RENAME TO transitions;
CREATE INDEX transitions_by_subject ON transitions (subject, subject_id, id);

CREATE TRIGGER transitions_are_never_changed BEFORE UPDATE ON transitions
BEGIN SELECT RAISE(ABORT, 'transitions are append-only'); END;

CREATE TRIGGER transitions_are_never_deleted BEFORE DELETE ON transitions
BEGIN SELECT RAISE(ABORT, 'transitions are append-only'); END;
