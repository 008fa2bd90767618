-- Of an album's index in a bucket: a digest of all rows that it and its pictures come from, as they were when all of it
-- was there. While it is the same, nothing of the album has to be planned.

ALTER TABLE bucket_objects ADD COLUMN made_of TEXT NOT NULL DEFAULT '';
CREATE UNIQUE INDEX bucket_objects_by_key ON bucket_objects (place, key);
