-- The removal of an archive in both places that was begun is finished, whatever stopped it.
ALTER TABLE archive_copies ADD COLUMN prune_begun_at TEXT;
-- What reading a copy back again found wrong with it; empty: nothing.
ALTER TABLE archive_copies ADD COLUMN damage TEXT NOT NULL DEFAULT '';
