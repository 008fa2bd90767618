-- Archives are copied to a second place. A row for each archive and place; it outlives the runs.

CREATE TABLE archive_copies (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    file       TEXT NOT NULL,                     -- the archive's name in the archive folder
    remote     TEXT NOT NULL,                     -- the place
    status     TEXT NOT NULL DEFAULT 'pending'
               CHECK (status IN ('pending', 'copied', 'only_there', 'pruned')),
    token      TEXT NOT NULL UNIQUE,              -- in the record beside the copy: whose its name is
    name       TEXT NOT NULL DEFAULT '',          -- its name there, once it is reserved
    size       INTEGER,
    sha256     TEXT,                              -- of the whole ZIP, as it was read back from there
    version    TEXT NOT NULL DEFAULT '',          -- of what was read back: changes when it is written anew
    attempts   INTEGER NOT NULL DEFAULT 0,
    reason     TEXT NOT NULL DEFAULT '',          -- why it is still pending
    entered_at TEXT NOT NULL,
    copied_at  TEXT,
    ended_at   TEXT,
    CHECK (status = 'pending' OR (name <> '' AND size IS NOT NULL AND sha256 IS NOT NULL AND copied_at IS NOT NULL))
);
CREATE UNIQUE INDEX archive_copies_by_file ON archive_copies (remote, file) WHERE status <> 'pruned';

CREATE TRIGGER archive_copies_step_legally BEFORE UPDATE OF status ON archive_copies
WHEN OLD.status <> NEW.status AND (OLD.status, NEW.status) NOT IN (VALUES
    ('pending', 'copied'), ('copied', 'pending'), ('copied', 'only_there'),
    ('copied', 'pruned'), ('only_there', 'pruned'), ('pending', 'pruned'))
BEGIN SELECT RAISE(ABORT, 'not a step of the state machine of an archive copy'); END;

-- Which folder it was that archives were copied to: an empty mount point is another.
CREATE TABLE archive_remotes (
    remote   TEXT PRIMARY KEY,
    identity TEXT NOT NULL
) WITHOUT ROWID;

-- The record of transitions also holds those of archive copies.
CREATE TABLE transitions_of_all (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    subject     TEXT NOT NULL CHECK (subject IN ('run', 'album', 'archive', 'stage_album', 'archive_copy')),
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
