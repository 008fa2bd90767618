-- The bucket that a change belongs to, and the keys that an invalidation stands for: what waits for a distribution that
-- the configuration no longer names, or for paths that it writes otherwise, is told to the one that it names now. Empty
-- in rows of earlier versions.

ALTER TABLE cdn_changes ADD COLUMN place TEXT NOT NULL DEFAULT '';
ALTER TABLE cdn_invalidations ADD COLUMN place TEXT NOT NULL DEFAULT '';
ALTER TABLE cdn_invalidations ADD COLUMN keys TEXT NOT NULL DEFAULT '[]';   -- a JSON list
