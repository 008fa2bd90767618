-- Whether it is sure that the folder in which archives are kept elsewhere is the disk that is meant: an empty folder on the
-- disk of the archives themselves may be a mount point without its disk. What was taken before this was asked is sure.

ALTER TABLE archive_remotes ADD COLUMN confirmed INTEGER NOT NULL DEFAULT 1 CHECK (confirmed IN (0, 1));
