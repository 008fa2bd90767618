-- What lies in a bucket: an object has a row before anything is sent under its key, and until it is removed. Only what
-- has a row is ever replaced or removed.

CREATE TABLE bucket_objects (
    id          INTEGER PRIMARY KEY,
    place       TEXT NOT NULL,                    -- the bucket, with its service
    key         TEXT NOT NULL,
    folded      TEXT NOT NULL,                    -- the key without regard to case and Unicode form
    wanted      TEXT NOT NULL,                    -- the key before another file's made a number necessary
    kind        TEXT NOT NULL CHECK (kind IN ('picture', 'album index', 'index')),
    folder      TEXT NOT NULL,
    input       TEXT NOT NULL,                    -- the file it is made of; empty for an index
    status      TEXT NOT NULL CHECK (status IN ('claimed', 'there', 'leaving')),
    size        INTEGER,                          -- these as the service confirmed them last
    sha256      TEXT,
    etag        TEXT,
    checksum    TEXT NOT NULL DEFAULT '',         -- what confirmed it
    moved_from  TEXT NOT NULL DEFAULT '',         -- in the run at hand: the key whose bytes it took over
    left_album  INTEGER NOT NULL DEFAULT 0,       -- 1: what it was made of is no longer there
    uploaded_at TEXT,
    UNIQUE (place, folded),
    CHECK (status <> 'there' OR (size IS NOT NULL AND sha256 IS NOT NULL AND etag IS NOT NULL))
);
CREATE INDEX bucket_objects_by_file ON bucket_objects (place, folder, input);

-- Keys whose old bytes a CDN may still show, until they stand in an invalidation.
CREATE TABLE cdn_changes (
    distribution TEXT NOT NULL,
    key          TEXT NOT NULL,
    PRIMARY KEY (distribution, key)
);

-- Invalidations, entered before they are asked for: asking again under the same reference is the same invalidation.
CREATE TABLE cdn_invalidations (
    id           INTEGER PRIMARY KEY,
    distribution TEXT NOT NULL,
    reference    TEXT NOT NULL UNIQUE,
    paths        TEXT NOT NULL,                   -- a JSON list
    status       TEXT NOT NULL CHECK (status IN ('pending', 'sent', 'completed')),
    remote_id    TEXT NOT NULL DEFAULT '',
    at           TEXT NOT NULL
);
