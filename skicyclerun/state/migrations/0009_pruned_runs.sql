-- Photo rows of old runs may be forgotten (`runs prune`); how many of an album's exported ones, and of what size, stays.
ALTER TABLE albums ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0;
ALTER TABLE albums ADD COLUMN forgotten_bytes INTEGER NOT NULL DEFAULT 0;
