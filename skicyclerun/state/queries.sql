-- Every statement the program runs, by name. Loaded by store.py; the parameters are named as the columns they fill.

-- name: record_transition
INSERT INTO transitions (subject, subject_id, from_status, trigger, to_status, reason, at)
VALUES (:subject, :subject_id, :from_status, :trigger, :to_status, :reason, :at)

-- name: transitions_of_run
-- Of its albums, its archive jobs and its albums of stages; with the album's folder and the stage.
SELECT subject, 'export' AS stage, folder, subject_id, from_status, trigger, to_status, at
FROM albums JOIN transitions ON subject = 'album' AND subject_id = albums.id WHERE albums.run_id = :run_id
UNION ALL
SELECT subject, 'cleanup', '', subject_id, from_status, trigger, to_status, at
FROM archives JOIN transitions ON subject = 'archive' AND subject_id = archives.id WHERE archives.run_id = :run_id
UNION ALL
SELECT subject, stage, folder, subject_id, from_status, trigger, to_status, at
FROM stage_albums JOIN transitions ON subject = 'stage_album' AND subject_id = stage_albums.id
WHERE stage_albums.run_id = :run_id
ORDER BY at

-- name: last_progress_of_albums
-- Of the albums of a run: when each photo that it exported was committed.
SELECT DISTINCT albums.folder, photos.exported_at AS at FROM albums JOIN photos ON photos.album = albums.id
WHERE albums.run_id = :run_id AND photos.exported_at IS NOT NULL ORDER BY photos.exported_at

-- ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────────

-- name: insert_run
INSERT INTO runs (status, mode, stages, source_kind, source_location, selection, options, started_at)
VALUES ('active', :mode, :stages, :source_kind, :source_location, :selection, :options, :started_at)

-- name: run_by_id
SELECT * FROM runs WHERE id = :id

-- name: latest_run
SELECT * FROM runs ORDER BY id DESC LIMIT 1

-- name: all_runs
SELECT * FROM runs ORDER BY id

-- name: run_summaries
-- Every run with its albums and photos counted. `failures`: an album of it failed, in the export or in a stage.
SELECT runs.*,
       (SELECT COUNT(*) FROM albums WHERE albums.run_id = runs.id) AS albums,
       (SELECT COUNT(*) FROM albums WHERE albums.run_id = runs.id AND albums.status = 'done') AS albums_done,
       EXISTS (SELECT 1 FROM albums WHERE albums.run_id = runs.id AND albums.status = 'failed')
           OR EXISTS (SELECT 1 FROM stage_albums
                      WHERE stage_albums.run_id = runs.id AND stage_albums.status = 'failed') AS failures,
       COALESCE(counted.exported, 0)
           + (SELECT COALESCE(SUM(forgotten), 0) FROM albums WHERE albums.run_id = runs.id) AS exported, COALESCE(counted.failed, 0) AS failed,
       COALESCE(counted.missing, 0) AS missing
FROM runs LEFT JOIN (
    SELECT albums.run_id, SUM(photos.status = 'exported') AS exported, SUM(photos.status = 'failed') AS failed,
           SUM(photos.status = 'missing') AS missing
    FROM albums JOIN photos ON photos.album = albums.id
    GROUP BY albums.run_id
) AS counted ON counted.run_id = runs.id
ORDER BY runs.id

-- name: old_runs
-- Ended, and not among the newest `keep`; only those that ended before a moment, if one is given.
SELECT id FROM runs
WHERE status IN ('finished', 'abandoned') AND id NOT IN (SELECT id FROM runs ORDER BY id DESC LIMIT :keep)
  AND (:ended_before IS NULL OR COALESCE(ended_at, started_at) < :ended_before)
ORDER BY id

-- name: forgettable_of_runs
-- The rows of each of these runs (`runs` is a JSON list) that may be forgotten: state/pruning.py says which.
WITH old AS MATERIALIZED (
    SELECT value AS id FROM json_each(:runs)
), unsettled AS MATERIALIZED (
    -- Photos that some run did not export.
    SELECT DISTINCT runs.source_kind, runs.source_location, albums.source_id AS album_id, photos.source_id,
           photos.component
    FROM photos JOIN albums ON albums.id = photos.album JOIN runs ON runs.id = albums.run_id
    WHERE photos.status <> 'exported'
), compared AS MATERIALIZED (
    -- Albums of old runs that were the last of their kind before a kept run; see album_changes_of_run.
    SELECT (SELECT before.id FROM albums AS before JOIN runs AS its ON its.id = before.run_id
            WHERE before.source_id = albums.source_id AND before.run_id < albums.run_id
              AND before.expected IS NOT NULL
              AND its.source_kind = runs.source_kind AND its.source_location = runs.source_location
              AND json_extract(its.options, '$.repairs_run') IS NULL
            ORDER BY before.run_id DESC LIMIT 1) AS album
    FROM albums JOIN runs ON runs.id = albums.run_id
    WHERE runs.id NOT IN (SELECT id FROM old)
), forgettable AS MATERIALIZED (
    SELECT photos.id, albums.run_id
    FROM old JOIN albums ON albums.run_id = old.id JOIN runs ON runs.id = old.id
         JOIN photos ON photos.album = albums.id AND photos.status = 'exported'
    WHERE photos.present = 0
      AND albums.id NOT IN (SELECT album FROM compared WHERE album IS NOT NULL)
      AND (runs.source_kind, runs.source_location, albums.source_id, photos.source_id, photos.component)
          NOT IN (SELECT source_kind, source_location, album_id, source_id, component FROM unsettled)
      AND NOT EXISTS (SELECT 1 FROM photos AS there JOIN albums AS its_album ON its_album.id = there.album
                      WHERE there.present = 1 AND there.path_key = photos.path_key
                        AND its_album.run_id < albums.run_id)
)
SELECT run_id, COUNT(*) AS photos, json_group_array(id) AS ids FROM forgettable GROUP BY run_id ORDER BY run_id

-- name: keep_figures_of_photos
-- What goes into the figures of their albums; `photos` is a JSON list of rows that `forget_photos` deletes next.
WITH going AS MATERIALIZED (
    SELECT album, size FROM photos WHERE id IN (SELECT value FROM json_each(:photos))
)
UPDATE albums
SET forgotten = forgotten + (SELECT COUNT(*) FROM going WHERE going.album = albums.id),
    forgotten_bytes = forgotten_bytes + (SELECT COALESCE(SUM(size), 0) FROM going WHERE going.album = albums.id)
WHERE id IN (SELECT album FROM going)

-- name: forget_photos
DELETE FROM photos WHERE id IN (SELECT value FROM json_each(:photos))

-- name: step_run
UPDATE runs SET status = :to_status, ended_at = :ended_at, reason = :reason
WHERE id = :id AND status = :from_status

-- name: set_run_options
UPDATE runs SET options = :options WHERE id = :id AND status = 'active'

-- name: mark_run_planned
UPDATE runs SET planned = 1 WHERE id = :id AND planned = 0

-- ── albums ──────────────────────────────────────────────────────────────────────────────────────────────────────

-- name: insert_album
INSERT INTO albums (run_id, position, source_id, title, folder_path, folder, listed)
VALUES (:run_id, :position, :source_id, :title, :folder_path, :folder, :listed)

-- name: album_by_id
SELECT * FROM albums WHERE id = :id

-- name: albums_of_run
SELECT * FROM albums WHERE run_id = :run_id ORDER BY position

-- name: albums_of_run_with_status
SELECT * FROM albums WHERE run_id = :run_id AND status = :status ORDER BY position

-- name: count_albums_by_status
SELECT status, COUNT(*) AS albums
FROM (SELECT status FROM albums WHERE run_id = :run_id
      UNION ALL SELECT status FROM stage_albums WHERE run_id = :run_id)
GROUP BY status

-- name: start_album
UPDATE albums SET status = :to_status, attempts = attempts + 1, reason = '', ended_at = NULL,
                  started_at = COALESCE(started_at, :now)
WHERE id = :id AND status = :from_status

-- name: end_album
UPDATE albums SET status = :to_status, reason = :reason, ended_at = :now, seconds = seconds + :seconds
WHERE id = :id AND status = :from_status

-- name: retry_album
UPDATE albums SET status = :to_status, reason = '', ended_at = NULL WHERE id = :id AND status = :from_status

-- name: set_album_expected
UPDATE albums SET expected = :expected WHERE id = :id AND expected IS NULL

-- name: album_counts_of_run
SELECT albums.id,
       COUNT(photos.id) + albums.forgotten AS rows_planned,
       COALESCE(SUM(photos.status = 'exported'), 0) + albums.forgotten AS exported,
       COALESCE(SUM(photos.status = 'failed'), 0) AS failed,
       COALESCE(SUM(photos.status = 'missing'), 0) AS missing,
       COALESCE(SUM(photos.status = 'left_out'), 0) AS left_out,
       COALESCE(SUM(photos.status = 'planned'), 0) AS planned,
       COALESCE(SUM(CASE WHEN photos.status = 'exported' THEN photos.size END), 0) + albums.forgotten_bytes AS bytes
FROM albums LEFT JOIN photos ON photos.album = albums.id
WHERE albums.run_id = :run_id
GROUP BY albums.id ORDER BY albums.position

-- name: album_changes_of_run
-- What an update did with the photos of each album. A row that was carried over has had no attempt in this run. Replaced:
-- an earlier run exported this photo to this album, no run since has planned the album without it, and the albums were
-- not emptied since. The run before tells, but of a photo that failed there.
WITH emptied AS MATERIALIZED (
    SELECT COALESCE(MAX(archives.ended_at), '') AS at
    FROM archives LEFT JOIN runs ON runs.id = archives.run_id
    WHERE archives.clean = 1 AND archives.status = 'done' AND archives.file <> ''
      AND archives.ended_at < (SELECT started_at FROM runs WHERE id = :run_id)
      AND (runs.id IS NULL OR EXISTS (SELECT 1 FROM json_each(runs.stages) WHERE value = 'export'))
), planned AS MATERIALIZED (
    SELECT albums.id, albums.run_id, albums.source_id
    FROM albums JOIN runs ON runs.id = albums.run_id JOIN runs AS this ON this.id = :run_id
    WHERE albums.source_id IN (SELECT source_id FROM albums WHERE run_id = :run_id)
      AND albums.run_id < :run_id AND albums.expected IS NOT NULL
      AND runs.source_kind = this.source_kind AND runs.source_location = this.source_location
      AND json_extract(runs.options, '$.repairs_run') IS NULL
), mine AS MATERIALIZED (
    SELECT albums.id, albums.source_id,
           (SELECT planned.id FROM planned WHERE planned.source_id = albums.source_id
            ORDER BY planned.run_id DESC LIMIT 1) AS last
    FROM albums WHERE albums.run_id = :run_id
)
SELECT mine.id,
       (SELECT COUNT(*) FROM photos WHERE photos.album = mine.id) AS found,
       (SELECT COUNT(*) FROM photos WHERE photos.album = mine.id AND photos.status = 'exported' AND photos.attempts = 0)
       AS unchanged,
       (SELECT COUNT(*)
        FROM photos JOIN photos AS before ON before.album = mine.last AND before.source_id = photos.source_id
                                             AND before.component = photos.component
        WHERE photos.album = mine.id AND photos.status = 'exported' AND photos.attempts > 0
          AND CASE
              WHEN before.status = 'exported' THEN before.exported_at > (SELECT at FROM emptied)
              WHEN before.status IN ('failed', 'missing', 'planned') THEN EXISTS (
                  SELECT 1
                  FROM planned AS earlier JOIN photos AS its ON its.album = earlier.id
                       AND its.source_id = photos.source_id AND its.component = photos.component
                  WHERE earlier.source_id = mine.source_id AND its.status = 'exported'
                    AND its.exported_at > (SELECT at FROM emptied)
                    AND NOT EXISTS (
                        SELECT 1 FROM planned AS since
                        WHERE since.source_id = mine.source_id AND since.run_id > earlier.run_id
                          AND NOT EXISTS (SELECT 1 FROM photos AS there
                                          WHERE there.album = since.id AND there.source_id = photos.source_id
                                            AND there.component = photos.component AND there.status <> 'left_out')))
              ELSE 0 END) AS replaced
FROM mine

-- name: earlier_failures
-- Albums of earlier runs that failed and have photos which no later run exported, since the folders of the export were
-- last emptied: a run without an export empties those of its stages only.
-- A later run that planned the album anew speaks for all of it, a repair only for the photos it asked for; both once
-- the album has ended there, or where it is the run reported on, whose report shows what is left.
SELECT albums.run_id, COUNT(DISTINCT albums.id) AS albums
FROM albums JOIN runs ON runs.id = albums.run_id
     LEFT JOIN photos ON photos.album = albums.id AND photos.status IN ('planned', 'failed', 'missing')
WHERE albums.run_id < :run_id AND albums.status = 'failed'
  AND (photos.id IS NOT NULL OR (albums.expected IS NULL AND albums.listed > 0))
  AND albums.run_id >= COALESCE((
      SELECT MAX(COALESCE(archives.run_id,
                          (SELECT MAX(id) + 1 FROM runs AS before WHERE before.started_at < archives.created_at)))
      FROM archives
      WHERE archives.clean = 1 AND archives.status = 'done' AND archives.file <> ''
        AND (archives.run_id IS NULL
             OR EXISTS (SELECT 1 FROM runs AS its, json_each(its.stages) AS stage
                        WHERE its.id = archives.run_id AND stage.value = 'export'))), 0)
  AND NOT EXISTS (
      SELECT 1 FROM albums AS later JOIN runs AS later_runs ON later_runs.id = later.run_id
      WHERE later.source_id = albums.source_id AND later.run_id > albums.run_id
        AND later_runs.source_kind = runs.source_kind AND later_runs.source_location = runs.source_location
        AND (later.status IN ('done', 'failed') OR later.run_id = :run_id)
        AND (photos.id IS NULL OR json_extract(later_runs.options, '$.repairs_run') IS NULL
             OR EXISTS (SELECT 1 FROM photos AS again WHERE again.album = later.id
                        AND again.source_id = photos.source_id AND again.component = photos.component)))
GROUP BY albums.run_id ORDER BY albums.run_id

-- ── which folder an album has ───────────────────────────────────────────────────────────────────────────────────

-- name: album_folders_of_source
SELECT album_id, folder FROM album_folders WHERE source_kind = :source_kind AND source_location = :source_location

-- name: put_album_folder
INSERT INTO album_folders (source_kind, source_location, album_id, folder)
VALUES (:source_kind, :source_location, :album_id, :folder)
ON CONFLICT (source_kind, source_location, album_id) DO UPDATE SET folder = excluded.folder

-- name: forget_album_folder
DELETE FROM album_folders
WHERE source_kind = :source_kind AND source_location = :source_location AND album_id = :album_id

-- name: folders_in_use
-- Folders that hold files we exported and that have not been cleaned since, with the album they belong to.
SELECT DISTINCT runs.source_kind, runs.source_location, albums.source_id AS album_id, albums.folder
FROM albums JOIN runs ON runs.id = albums.run_id
WHERE EXISTS (SELECT 1 FROM photos WHERE photos.album = albums.id AND photos.status = 'exported' AND photos.present = 1)

-- ── photos ──────────────────────────────────────────────────────────────────────────────────────────────────────

-- name: insert_photo
INSERT INTO photos (album, position, source_id, component, original_filename, fingerprint, file_name, status, reason,
                    removed, path_key)
VALUES (:album, :position, :source_id, :component, :original_filename, :fingerprint, :file_name, :status, :reason,
        :removed, :path_key)

-- name: not_present
UPDATE photos SET present = 0 WHERE id = :id

-- name: carry_photos
-- Rows that speak for files go on in another album: same files, same facts, same time of export. `ids` is a JSON list.
UPDATE photos SET album = :album, attempts = 0, reason = ''
WHERE id IN (SELECT value FROM json_each(:ids)) AND +album = :former AND present = 1

-- name: leave_photos_behind
-- In the album that they were carried over from rows stay that say what they were there.
INSERT INTO photos (album, position, source_id, component, original_filename, fingerprint, file_name, status, attempts,
                    reason, size, sha256, mtime_ns, facts, exported_at, path_key)
SELECT :former, position, source_id, component, original_filename, fingerprint, file_name, status, :attempts, :reason,
       size, sha256, mtime_ns, facts, exported_at, path_key
FROM photos WHERE id IN (SELECT value FROM json_each(:ids))

-- name: carried_otherwise
-- Of a carried photo, what is not as it was.
UPDATE photos SET position = :position, original_filename = :original_filename, fingerprint = :fingerprint
WHERE id = :id

-- name: album_renamed
-- A row where the catalog calls one of these albums otherwise than the other.
SELECT 1 FROM albums AS former JOIN albums AS now ON now.id = :album
WHERE former.id = :former
  AND (former.title, former.folder_path, former.folder) IS NOT (now.title, now.folder_path, now.folder)

-- name: albums_with_files
-- The rows of an album that hold exported files, with the settings of their runs.
SELECT albums.id, runs.options FROM albums JOIN runs ON runs.id = albums.run_id
WHERE albums.source_id = :album_id AND runs.source_kind = :source_kind AND runs.source_location = :source_location
  AND EXISTS (SELECT 1 FROM photos
              WHERE photos.album = albums.id AND photos.status = 'exported' AND photos.present = 1)
ORDER BY albums.id

-- name: present_of_album
SELECT id, source_id, component, file_name, fingerprint, original_filename, position, attempts, reason
FROM photos WHERE album = :album AND status = 'exported' AND present = 1

-- name: same_photo_elsewhere
-- Files of the same photo, in the same state, in the folders of other albums.
SELECT albums.folder, photos.file_name, photos.size, photos.sha256, photos.mtime_ns, photos.facts, runs.options
FROM photos JOIN albums ON albums.id = photos.album JOIN runs ON runs.id = albums.run_id
WHERE photos.present = 1 AND photos.source_id = :photo_id AND photos.component = :component
  AND photos.fingerprint = :fingerprint AND albums.folder <> :folder
  AND runs.source_kind = :source_kind AND runs.source_location = :source_location
ORDER BY photos.id DESC LIMIT 4

-- name: present_of_source
SELECT DISTINCT albums.source_id AS album_id, photos.source_id
FROM photos JOIN albums ON albums.id = photos.album JOIN runs ON runs.id = albums.run_id
WHERE photos.present = 1 AND runs.source_kind = :source_kind AND runs.source_location = :source_location

-- name: removed_of_album
-- Left out because their files were removed by hand, by the newest row of each.
SELECT mine.source_id, mine.component
FROM photos AS mine JOIN albums ON albums.id = mine.album JOIN runs ON runs.id = albums.run_id
WHERE mine.removed = 1 AND albums.source_id = :album_id
  AND runs.source_kind = :source_kind AND runs.source_location = :source_location
  AND NOT EXISTS (SELECT 1 FROM albums AS later JOIN runs AS later_runs ON later_runs.id = later.run_id
                  JOIN photos AS again ON again.album = later.id
                  WHERE later.source_id = :album_id AND later.run_id > albums.run_id
                    AND later_runs.source_kind = :source_kind AND later_runs.source_location = :source_location
                    AND again.source_id = mine.source_id AND again.component = mine.component AND again.removed = 0)

-- name: present_elsewhere
-- What was exported into other folders than this one.
SELECT albums.folder, photos.file_name FROM photos JOIN albums ON albums.id = photos.album
WHERE photos.present = 1 AND albums.folder <> :folder

-- name: present_of_earlier_runs
-- Of the same source; planned_again: its album is part of this run and was listed, and no photo of it has this file.
-- CROSS: by way of the albums, of whose rows few are present still, rather than through all that are.
SELECT photos.id, albums.folder, photos.file_name, albums.source_id AS album_id,
       EXISTS (SELECT 1 FROM albums AS again WHERE again.run_id = :run_id AND again.source_id = albums.source_id
               AND again.expected IS NOT NULL) AS planned_again
FROM runs AS this CROSS JOIN albums ON albums.run_id < this.id CROSS JOIN runs ON runs.id = albums.run_id
     CROSS JOIN photos ON photos.album = albums.id AND photos.status = 'exported' AND photos.present = 1
WHERE this.id = :run_id
  AND runs.source_kind = this.source_kind AND runs.source_location = this.source_location
  AND NOT EXISTS (SELECT 1 FROM photos AS mine JOIN albums AS my_album ON my_album.id = mine.album
                  WHERE my_album.run_id = :run_id AND mine.path_key = photos.path_key AND mine.status <> 'left_out')

-- name: left_out_photos
SELECT * FROM left_out_photos ORDER BY folder, file_name, source_kind, source_location, photo_id, component

-- name: left_out_of_source
SELECT photo_id, component FROM left_out_photos
WHERE source_kind = :source_kind AND source_location = :source_location

-- name: leave_out_photo
INSERT INTO left_out_photos (source_kind, source_location, photo_id, component, folder, file_name, since)
VALUES (:source_kind, :source_location, :photo_id, :component, :folder, :file_name, :since)
ON CONFLICT (source_kind, source_location, photo_id, component) DO NOTHING

-- name: take_in_photo
DELETE FROM left_out_photos
WHERE source_kind = :source_kind AND source_location = :source_location AND photo_id = :photo_id
  AND component = :component

-- name: owed_by_latest_run
-- What it has planned and not exported. The movie of a Live Photo goes with its still, where it has the still's id, and
-- what lies beside a picture or a movie goes with that.
SELECT photos.id, albums.folder, photos.file_name FROM photos JOIN albums ON albums.id = photos.album
WHERE albums.run_id = (SELECT MAX(id) FROM runs) AND photos.source_id = :photo_id
  AND photos.status IN ('planned', 'failed', 'missing')
  AND (photos.component = :component OR (photos.component = 'live_movie' AND :component = 'still')
       OR (photos.component IN ('sidecar', 'original') AND :component IN ('still', 'video')))

-- name: not_owed
UPDATE photos SET status = 'left_out', reason = :reason WHERE id = :id AND status IN ('planned', 'failed', 'missing')

-- name: left_out_rows
-- Of these rows (`ids` is a JSON list) those of photos that are left out.
SELECT photos.id FROM photos JOIN albums ON albums.id = photos.album JOIN runs ON runs.id = albums.run_id
WHERE photos.id IN (SELECT value FROM json_each(:ids)) AND EXISTS (
    SELECT 1 FROM left_out_photos AS out
    WHERE out.source_kind = runs.source_kind AND out.source_location = runs.source_location
      AND out.photo_id = photos.source_id
      AND (out.component = photos.component OR (out.component = 'still' AND photos.component = 'live_movie')
           OR (out.component IN ('still', 'video') AND photos.component IN ('sidecar', 'original'))))

-- name: albums_ever
SELECT albums.source_id AS album_id, albums.title, albums.folder_path, albums.folder, runs.source_kind,
       runs.source_location, MAX(albums.run_id) AS run_id
FROM albums JOIN runs ON runs.id = albums.run_id
GROUP BY albums.source_id, albums.folder, runs.source_kind, runs.source_location ORDER BY MAX(albums.run_id) DESC

-- name: photos_ever_at
-- That had this file, the one that has it now before the others, then the newest.
SELECT photos.source_id, photos.component, photos.file_name, photos.present, photos.removed, albums.folder,
       runs.source_kind, runs.source_location
FROM photos JOIN albums ON albums.id = photos.album JOIN runs ON runs.id = albums.run_id
WHERE photos.path_key = :path_key AND photos.component NOT IN ('sidecar', 'original')
ORDER BY photos.present DESC, photos.id DESC

-- name: photos_of_newest_album
SELECT photos.source_id, photos.component, photos.file_name, photos.present, photos.removed, albums.folder,
       runs.source_kind, runs.source_location
FROM photos JOIN albums ON albums.id = photos.album JOIN runs ON runs.id = albums.run_id
WHERE albums.id = (SELECT MAX(newest.id) FROM albums AS newest JOIN runs AS its ON its.id = newest.run_id
                   WHERE newest.source_id = :album_id AND newest.expected IS NOT NULL
                     AND its.source_kind = :source_kind AND its.source_location = :source_location
                     AND json_extract(its.options, '$.repairs_run') IS NULL)
  AND photos.component NOT IN ('sidecar', 'original')
ORDER BY photos.position

-- name: photos_to_do
SELECT id, position, source_id, component, original_filename, fingerprint, file_name, attempts
FROM photos WHERE album = :album AND status = 'planned' ORDER BY position

-- name: photos_of_album
SELECT * FROM photos WHERE album = :album ORDER BY position

-- name: supersede_present
UPDATE photos SET present = 0 WHERE present = 1 AND path_key = :path_key AND id <> :id

-- name: photo_exported
UPDATE photos SET status = 'exported', attempts = attempts + :attempts, reason = '', size = :size, sha256 = :sha256,
                  mtime_ns = :mtime_ns, facts = :facts, exported_at = :exported_at, present = 1
WHERE id = :id AND status = 'planned'

-- name: forget_whereabouts
-- What stages found of a photo when its file still said where it was taken: its position, its place, and what a model
-- was told of it. They look again, since their input is another one now.
UPDATE stage_pictures SET facts = json_remove(facts, '$.gps', '$.location', '$.llm_image_analysis')
WHERE folder = :folder AND photo = :photo AND file_name = '' AND facts IS NOT NULL AND input_sha256 <> :sha256

-- name: photo_not_exported
UPDATE photos SET status = :status, attempts = attempts + :attempts, reason = :reason
WHERE id = :id AND status = 'planned'

-- name: retry_photos
UPDATE photos SET status = 'planned', reason = '' WHERE album = :album AND status IN ('failed', 'missing')

-- name: album_accounting
SELECT COUNT(*) AS rows_planned,
       COALESCE(SUM(status = 'exported'), 0) AS exported,
       COALESCE(SUM(status = 'failed'), 0) AS failed,
       COALESCE(SUM(status = 'missing'), 0) AS missing,
       COALESCE(SUM(status = 'left_out'), 0) AS left_out,
       COALESCE(SUM(status = 'planned'), 0) AS planned,
       COALESCE(SUM(CASE WHEN status = 'exported' THEN size END), 0) AS bytes
FROM photos WHERE album = :album

-- name: files_of_ours_in_folder
-- Exported and there, or planned by this run, which may have been stopped between the rename and the commit.
SELECT photos.file_name, photos.status, photos.size, photos.mtime_ns
FROM photos JOIN albums ON albums.id = photos.album
WHERE albums.folder = :folder
  AND (photos.present = 1 OR (photos.status = 'planned' AND albums.run_id = :run_id))

-- name: present_photos_in
SELECT photos.*, albums.folder, albums.title AS album_title, albums.folder_path, albums.source_id AS album_id,
       runs.source_kind
FROM photos JOIN albums ON albums.id = photos.album JOIN runs ON runs.id = albums.run_id
WHERE photos.present = 1 AND albums.folder = :folder
ORDER BY albums.run_id, albums.position, photos.position

-- name: catalog_folders
-- Album folders that hold a file of ours, in the order of the runs and their albums.
SELECT folder, MIN(at) AS first FROM (
    SELECT folder, run_id * 1000000 + position AS at FROM albums
    WHERE EXISTS (SELECT 1 FROM photos WHERE photos.album = albums.id AND photos.present = 1)
    UNION ALL SELECT DISTINCT folder, 9223372036854775807 FROM stage_pictures WHERE present = 1)
GROUP BY folder ORDER BY first

-- name: present_hashes
SELECT albums.folder, photos.file_name, photos.sha256
FROM photos JOIN albums ON albums.id = photos.album WHERE photos.present = 1

-- name: contents_present
-- Of every file that a row speaks for.
SELECT sha256 FROM photos WHERE present = 1
UNION SELECT sha256 FROM stage_pictures WHERE present = 1 AND file_name <> '' AND sha256 IS NOT NULL

-- name: present_of_run
SELECT COUNT(*) AS files FROM photos JOIN albums ON albums.id = photos.album
WHERE albums.run_id = :run_id AND photos.present = 1

-- name: exported_and_present_of_run
SELECT COUNT(*) AS exported, COALESCE(SUM(photos.present), 0) AS present
FROM photos JOIN albums ON albums.id = photos.album
WHERE albums.run_id = :run_id AND photos.status = 'exported'

-- name: mean_exported_size
SELECT AVG(size) AS size FROM photos WHERE status = 'exported'

-- name: none_present
UPDATE photos SET present = 0 WHERE present = 1

-- ── archives ────────────────────────────────────────────────────────────────────────────────────────────────────

-- name: insert_archive
INSERT INTO archives (run_id, status, clean, timestamp, created_at, purpose)
VALUES (:run_id, 'pending', :clean, :timestamp, :created_at, :purpose)

-- name: archive_by_id
SELECT * FROM archives WHERE id = :id

-- name: archive_of_run
SELECT * FROM archives WHERE run_id = :run_id AND purpose = :purpose ORDER BY id DESC LIMIT 1

-- name: open_archives
SELECT * FROM archives WHERE status NOT IN ('done', 'failed') ORDER BY id

-- name: step_archive
UPDATE archives SET status = :to_status, reason = :reason, file = COALESCE(:file, file), size = COALESCE(:size, size),
                    files = COALESCE(:files, files), proved_at = COALESCE(:proved_at, proved_at), ended_at = :ended_at
WHERE id = :id AND status = :from_status

-- ── copies of archives elsewhere ────────────────────────────────────────────────────────────────────────────────

-- name: insert_copy
INSERT OR IGNORE INTO archive_copies (file, remote, token, entered_at) VALUES (:file, :remote, :token, :entered_at)

-- name: copies_of_remote
SELECT * FROM archive_copies WHERE remote = :remote AND status <> 'pruned' ORDER BY id

-- name: copies_in_other_places
SELECT * FROM archive_copies WHERE remote <> :remote AND status IN ('copied', 'only_there') ORDER BY id

-- name: files_archived
SELECT DISTINCT file FROM archives WHERE file <> ''

-- name: copy_by_id
SELECT * FROM archive_copies WHERE id = :id

-- name: name_copy
UPDATE archive_copies SET name = :name, token = :token, size = :size, sha256 = :sha256 WHERE id = :id AND status = 'pending'

-- name: forget_copy
DELETE FROM archive_copies WHERE id = :id AND status = 'pending'

-- name: copy_put_off
UPDATE archive_copies SET attempts = attempts + 1, reason = :reason WHERE id = :id AND status = 'pending'

-- name: step_copy
UPDATE archive_copies SET status = :to_status, reason = '', version = COALESCE(:version, version),
                          copied_at = COALESCE(:copied_at, copied_at), ended_at = :ended_at,
                          damage = CASE WHEN :copied_at IS NULL THEN damage ELSE '' END
WHERE id = :id AND status = :from_status

-- name: copy_prune_begun
UPDATE archive_copies SET prune_begun_at = :begun_at WHERE id = :id AND status <> 'pruned'

-- name: copy_read_again
UPDATE archive_copies SET damage = :damage, version = COALESCE(:version, version)
WHERE id = :id AND status IN ('copied', 'only_there') AND version = :known

-- name: jobs_with_file
SELECT COUNT(*) AS jobs FROM archives WHERE file = :file AND status NOT IN ('done', 'failed')

-- name: remote_identity
SELECT identity, confirmed FROM archive_remotes WHERE remote = :remote

-- name: remember_remote
INSERT OR REPLACE INTO archive_remotes (remote, identity, confirmed) VALUES (:remote, :identity, :confirmed)

-- name: catalog_written
SELECT path, identity FROM catalog_written

-- name: begin_catalog_write
INSERT OR REPLACE INTO catalog_written (id, path, identity) VALUES (1, :path, '')

-- name: catalog_says_otherwise
DELETE FROM catalog_written

-- name: mark_catalog_written
UPDATE catalog_written SET identity = :identity WHERE id = 1

-- name: paths_gone
SELECT DISTINCT albums.folder, photos.file_name FROM photos JOIN albums ON albums.id = photos.album
WHERE photos.status = 'exported' AND photos.present = 0
  AND NOT EXISTS (SELECT 1 FROM photos AS other WHERE other.present = 1 AND other.path_key = photos.path_key)

-- ── what the catalog said of photos that have left ──────────────────────────────────────────────────────────────

-- name: photos_known_at
-- The photos whose exported file had this name, the newest first; `since`: when the first run after it began.
SELECT photos.source_id, photos.component, photos.sha256, runs.source_kind, runs.source_location,
       (SELECT MIN(later.started_at) FROM runs AS later WHERE later.id > albums.run_id) AS since
FROM photos JOIN albums ON albums.id = photos.album JOIN runs ON runs.id = albums.run_id
WHERE photos.path_key = :path_key AND photos.status = 'exported'
ORDER BY albums.run_id DESC, photos.id DESC

-- name: stage_pictures_known_at
-- The rows of a stage whose file had this name, the newest first.
SELECT stage_pictures.variant, stage_pictures.photo,
       (SELECT MIN(later.started_at) FROM runs AS later WHERE later.id > stage_albums.run_id) AS since
FROM stage_pictures JOIN stage_albums ON stage_albums.id = stage_pictures.album
WHERE stage_pictures.folder = :folder AND stage_pictures.file_name = :file_name AND stage_pictures.stage = :stage
  AND stage_pictures.file_name <> ''
ORDER BY stage_pictures.id DESC

-- name: keep_former_entry
INSERT INTO former_entries (path, path_key, stage, variant, source_kind, source_location, photo_id, component, sha256,
                            since, left_at, entry)
VALUES (:path, :path_key, :stage, :variant, :source_kind, :source_location, :photo_id, :component, :sha256, :since,
        :left_at, :entry)
ON CONFLICT (path, stage, variant, source_kind, source_location, photo_id, component) DO UPDATE
SET sha256 = excluded.sha256, since = excluded.since, left_at = excluded.left_at,
    entry = CASE WHEN excluded.entry = '' THEN former_entries.entry ELSE excluded.entry END

-- name: former_entries
-- The latest that left first; exported files before what was made of them.
SELECT id, path, path_key, stage, variant, source_kind, source_location, photo_id, component, sha256, since
FROM former_entries ORDER BY stage <> '', left_at DESC, id

-- name: former_entry
SELECT entry FROM former_entries WHERE id = :id

-- name: forget_former_entry
DELETE FROM former_entries WHERE id = :id

-- name: forget_former_entries
DELETE FROM former_entries

-- name: heirs_by_photo
-- Where a photo is now, its former place first. Not what was there beside it all along: a copy is another file.
SELECT albums.folder, photos.file_name, photos.path_key
FROM photos JOIN albums ON albums.id = photos.album JOIN runs ON runs.id = albums.run_id
WHERE photos.present = 1 AND photos.source_id = :photo_id AND photos.component = :component
  AND runs.source_kind = :source_kind AND runs.source_location = :source_location
  AND (:stage <> '' OR photos.exported_at >= :since OR photos.path_key = :path_key)
ORDER BY photos.path_key <> :path_key, albums.run_id, albums.position, photos.position

-- name: heirs_by_content
SELECT albums.folder, photos.file_name, photos.path_key
FROM photos JOIN albums ON albums.id = photos.album
WHERE photos.present = 1 AND photos.sha256 = :sha256
  AND (photos.component IN ('sidecar', 'original')) = (:component IN ('sidecar', 'original'))
  AND (:stage <> '' OR photos.exported_at >= :since OR photos.path_key = :path_key)
ORDER BY photos.path_key <> :path_key, albums.run_id, albums.position, photos.position

-- name: stage_heirs
-- What a stage has made of a photo since.
SELECT file_name FROM stage_pictures
WHERE folder = :folder AND photo = :photo AND stage = :stage AND variant = :variant AND present = 1 AND departed = 0
  AND status = 'done' AND file_name <> '' AND made_at >= :since
ORDER BY id

-- ── verify and rebuild ──────────────────────────────────────────────────────────────────────────────────────────

-- name: quick_integrity
PRAGMA quick_check(1)

-- name: integrity
PRAGMA integrity_check(1)

-- name: count_present
SELECT COUNT(*) AS files FROM photos WHERE present = 1

-- name: present_ids
SELECT id FROM photos WHERE present = 1 ORDER BY id

-- name: present_photos_page
SELECT photos.id, photos.component, photos.file_name, photos.size, photos.sha256, photos.mtime_ns, photos.facts,
       albums.folder, runs.options, 1 AS checked
FROM photos JOIN albums ON albums.id = photos.album JOIN runs ON runs.id = albums.run_id
WHERE photos.present = 1 AND photos.id > :after
ORDER BY photos.id LIMIT :limit

-- name: names_to_come
-- Of an unfinished run: such a file may be there already, renamed to its final name and not committed yet.
SELECT albums.folder, photos.file_name
FROM photos JOIN albums ON albums.id = photos.album JOIN runs ON runs.id = albums.run_id
WHERE photos.status = 'planned' AND runs.status IN ('active', 'interrupted')

-- name: albums_since
-- Of a run and of those after it that have the same source.
SELECT albums.* FROM albums JOIN runs ON runs.id = albums.run_id
WHERE albums.run_id >= :run_id AND runs.source_kind = :source_kind AND runs.source_location = :source_location
ORDER BY albums.run_id

-- name: recovered_since
-- Photos that the run could not export and a later one of the same source did.
SELECT albums.id AS album, COUNT(*) AS photos
FROM photos JOIN albums ON albums.id = photos.album
WHERE albums.run_id = :run_id AND photos.status IN ('planned', 'failed', 'missing')
  AND EXISTS (SELECT 1 FROM albums AS later JOIN runs ON runs.id = later.run_id JOIN photos AS again
              ON again.album = later.id
              WHERE later.run_id > :run_id AND later.source_id = albums.source_id
                AND runs.source_kind = :source_kind AND runs.source_location = :source_location
                AND again.source_id = photos.source_id AND again.component = photos.component
                AND again.status = 'exported')
GROUP BY albums.id

-- name: outstanding_photos
-- Of a run and of those after it that have the same source: not exported, and not asked for again since.
SELECT photos.*, albums.folder, albums.source_id AS album_id
FROM photos JOIN albums ON albums.id = photos.album JOIN runs ON runs.id = albums.run_id
WHERE albums.run_id >= :run_id AND photos.status IN ('planned', 'failed', 'missing')
  AND runs.source_kind = :source_kind AND runs.source_location = :source_location
  AND NOT EXISTS (SELECT 1 FROM albums AS later JOIN runs AS later_runs ON later_runs.id = later.run_id
                  JOIN photos AS again ON again.album = later.id
                  WHERE later.run_id > albums.run_id AND later.source_id = albums.source_id
                    AND later_runs.source_kind = :source_kind AND later_runs.source_location = :source_location
                    AND again.source_id = photos.source_id AND again.component = photos.component)
ORDER BY albums.run_id, albums.position, photos.position

-- name: stages_with_rows
SELECT DISTINCT stage FROM stage_pictures

-- name: stage_names_page
-- A stage's files that a row speaks for, those included that are to be put away or may be renamed already, and what a
-- failed attempt left of an earlier result. `checked`: that it should be there as the row says; so should one that was
-- to be made anew and could not be, because somebody had changed it. `+`: no index, so that pages are read on by id and
-- nothing is sorted.
SELECT id, stage, folder, file_name, size, sha256, mtime_ns, width, height, status,
       (present = 1 AND departed = 0 AND status IN ('done', 'failed') AND size IS NOT NULL) AS checked
FROM stage_pictures
WHERE +stage = :stage AND id > :after AND file_name <> ''
  AND (present = 1 OR status = 'planned' OR (status = 'failed' AND sha256 IS NOT NULL))
ORDER BY id LIMIT :limit

-- name: count_files_of_stage
SELECT COUNT(*) AS files FROM stage_pictures
WHERE stage = :stage AND file_name <> '' AND present = 1 AND departed = 0 AND status IN ('done', 'failed')
  AND size IS NOT NULL

-- name: stage_file_ids
SELECT id FROM stage_pictures
WHERE stage = :stage AND file_name <> '' AND present = 1 AND departed = 0 AND status IN ('done', 'failed')
  AND size IS NOT NULL ORDER BY id

-- name: count_stage_facts
SELECT COUNT(*) AS pictures FROM stage_pictures
WHERE stage = :stage AND file_name = '' AND departed = 0 AND status = 'done'

-- name: stage_pictures_by_ids
-- `ids` is a JSON list.
SELECT id, stage, folder, file_name, mtime_ns, present FROM stage_pictures
WHERE id IN (SELECT value FROM json_each(:ids)) ORDER BY id

-- name: folders_present
SELECT albums.* FROM albums
WHERE EXISTS (SELECT 1 FROM photos WHERE photos.album = albums.id AND photos.present = 1)
ORDER BY albums.run_id DESC, albums.position

-- name: photos_by_ids
-- `ids` is a JSON list.
SELECT photos.*, albums.source_id AS album_id, albums.title, albums.folder_path, albums.folder, albums.run_id,
       runs.source_kind, runs.source_location, runs.options
FROM photos JOIN albums ON albums.id = photos.album JOIN runs ON runs.id = albums.run_id
WHERE photos.id IN (SELECT value FROM json_each(:ids))
ORDER BY albums.run_id, albums.position, photos.position

-- name: still_present
SELECT id FROM photos WHERE present = 1 AND id IN (SELECT value FROM json_each(:ids))

-- name: last_photo_id
SELECT COALESCE(MAX(id), 0) AS id FROM photos

-- name: set_exported_at
UPDATE photos SET exported_at = :exported_at WHERE id = :id AND status = 'exported'

-- name: set_stage_made_at
UPDATE stage_pictures SET made_at = :made_at WHERE id = :id AND status = 'done'

-- ── stages after the export ─────────────────────────────────────────────────────────────────────────────────────

-- name: enter_stage_album
INSERT INTO stage_albums (run_id, stage, position, folder, title) VALUES (:run_id, :stage, :position, :folder, :title)
ON CONFLICT (run_id, stage, folder, pass) DO NOTHING

-- name: next_pass_of_stage_album
INSERT INTO stage_albums (run_id, stage, position, folder, title, pass)
SELECT run_id, stage, position, folder, title, pass + 1 FROM stage_albums WHERE id = :id

-- name: stage_album_by_key
-- Its newest pass.
SELECT * FROM stage_albums WHERE run_id = :run_id AND stage = :stage AND folder = :folder ORDER BY pass DESC LIMIT 1

-- name: stage_album_by_id
SELECT * FROM stage_albums WHERE id = :id

-- name: stage_albums_of_run
-- The newest pass of each.
SELECT * FROM stage_albums AS mine
WHERE run_id = :run_id
  AND NOT EXISTS (SELECT 1 FROM stage_albums AS later
                  WHERE later.run_id = mine.run_id AND later.stage = mine.stage AND later.folder = mine.folder
                    AND later.pass > mine.pass)
ORDER BY position, id

-- name: latest_stage_albums
-- For each stage and album folder the newest row, whichever run it is of; only of albums that still have something.
SELECT * FROM stage_albums AS mine
WHERE NOT EXISTS (SELECT 1 FROM stage_albums AS later
                  WHERE later.stage = mine.stage AND later.folder = mine.folder
                    AND (later.run_id, later.pass) > (mine.run_id, mine.pass) AND later.run_id <= :run_id)
  AND run_id <= :run_id
ORDER BY run_id, position, id

-- name: emptied_stage_albums
SELECT stage, folder FROM stage_pictures WHERE departed = 0 AND status = 'done' AND file_name <> ''
GROUP BY stage, folder HAVING SUM(present) = 0

-- name: start_stage_album
UPDATE stage_albums SET status = :to_status, attempts = attempts + 1, reason = '', ended_at = NULL,
                        started_at = COALESCE(started_at, :now), expected = :expected, waiting = :waiting
WHERE id = :id AND status = :from_status

-- name: end_stage_album
UPDATE stage_albums SET status = :to_status, reason = :reason, ended_at = :now, seconds = seconds + :seconds,
                        done = :done, failed = :failed, left_out = :left_out, bytes = :bytes,
                        made = (SELECT COUNT(*) FROM stage_pictures WHERE album = :id AND departed = 0
                                AND status = 'done' AND made_at >= stage_albums.started_at)
WHERE id = :id AND status = :from_status

-- name: retry_stage_album
UPDATE stage_albums SET status = :to_status, reason = '', ended_at = NULL WHERE id = :id AND status = :from_status

-- name: stage_album_accounting
SELECT COALESCE(SUM(status = 'planned'), 0) AS planned,
       COALESCE(SUM(status = 'done'), 0) AS done,
       COALESCE(SUM(status = 'failed'), 0) AS failed,
       COALESCE(SUM(status = 'left_out'), 0) AS left_out,
       COALESCE(SUM(CASE WHEN status = 'done' THEN size END), 0) AS bytes
FROM stage_pictures WHERE album = :album AND departed = 0

-- name: stage_has_run
SELECT EXISTS (SELECT 1 FROM stage_pictures WHERE stage = :stage AND departed = 0) AS has_run

-- name: exported_inputs
-- What a stage that reads the export takes: the rows that speak for a file of this folder. Not sidecars and originals,
-- which lie beside a file and are nobody's input. Not those that have left
-- their album: an update that planned it again knows them no more, and puts their files away at its end only.
SELECT photos.file_name, photos.sha256, photos.size, photos.mtime_ns, photos.component, photos.position, photos.facts,
       albums.title AS album_title, albums.run_id
FROM photos JOIN albums ON albums.id = photos.album
WHERE photos.present = 1 AND albums.folder = :folder AND photos.component NOT IN ('sidecar', 'original')
  AND NOT EXISTS (SELECT 1 FROM albums AS again JOIN runs ON runs.id = again.run_id
                  WHERE again.source_id = albums.source_id AND again.folder = albums.folder
                    AND again.run_id > albums.run_id AND again.expected IS NOT NULL AND runs.mode = 'update'
                    AND NOT EXISTS (SELECT 1 FROM photos AS mine WHERE mine.path_key = photos.path_key
                                    AND mine.album = again.id AND mine.status <> 'left_out'))
ORDER BY albums.run_id, photos.position

-- name: export_owes
-- Pictures of the folder's album that the newest run which has it did not bring.
SELECT file_name FROM photos
WHERE album = (SELECT id FROM albums WHERE folder = :folder ORDER BY run_id DESC LIMIT 1)
  AND component = 'still' AND status NOT IN ('exported', 'left_out')

-- name: stage_inputs
-- What a stage that reads another stage takes.
SELECT file_name, sha256, size, mtime_ns, photo, variant, position
FROM stage_pictures
WHERE stage = :stage AND folder = :folder AND departed = 0 AND status = 'done' AND present = 1 AND file_name <> ''
ORDER BY position, variant

-- name: photos_left_out_by_stages
SELECT DISTINCT photo FROM stage_pictures
WHERE stage IN (SELECT value FROM json_each(:stages)) AND folder = :folder AND departed = 0 AND status = 'left_out'

-- name: stage_owes
-- Photos of the folder of which a result that the stage has planned is not there.
SELECT DISTINCT photo FROM stage_pictures
WHERE stage = :stage AND folder = :folder AND departed = 0 AND status IN ('planned', 'failed')

-- name: stage_facts
-- Facts that stages without files found of the photos of a folder.
SELECT stage, photo, facts, made_at FROM stage_pictures
WHERE folder = :folder AND stage IN (SELECT value FROM json_each(:stages)) AND departed = 0 AND status = 'done' AND file_name = '' AND facts IS NOT NULL

-- name: stage_examples
-- Some of what a stage has made last, the newest album first.
SELECT * FROM stage_pictures WHERE stage = :stage AND departed = 0 AND status = 'done' AND present = 1
ORDER BY album DESC, position, variant LIMIT 60

-- name: stage_pictures_of_folder
SELECT * FROM stage_pictures WHERE stage = :stage AND folder = :folder AND departed = 0 ORDER BY position, variant

-- name: stage_pictures_of_album
SELECT * FROM stage_pictures WHERE album = :album AND departed = 0 ORDER BY position, variant

-- name: stage_pictures_like
-- A result of the same bytes under the same settings, of a photo that was moved or renamed since.
SELECT * FROM stage_pictures
WHERE stage = :stage AND input_sha256 IN (SELECT value FROM json_each(:hashes)) AND status = 'done' AND present = 1
ORDER BY id DESC

-- name: insert_stage_picture
INSERT INTO stage_pictures (stage, album, position, folder, photo, input, variant, input_sha256, depends, status,
                            reason, file_name)
VALUES (:stage, :album, :position, :folder, :photo, :input, :variant, :input_sha256, :depends, :status, :reason,
        :file_name)

-- name: plan_stage_picture
UPDATE stage_pictures SET album = :album, position = :position, photo = :photo, input_sha256 = :input_sha256,
                          depends = :depends, status = :status, reason = :reason, file_name = :file_name,
                          size = CASE WHEN :claimed THEN NULL ELSE size END
WHERE id = :id

-- name: keep_stage_pictures
UPDATE stage_pictures SET album = :album WHERE id IN (SELECT value FROM json_each(:ids))

-- name: keep_stage_pictures_of_folder
UPDATE stage_pictures SET album = :album WHERE stage = :stage AND folder = :folder AND departed = 0

-- name: stage_results_of_folder
-- What decides whether they are up to date.
SELECT position, photo, input, variant, input_sha256, depends, status, reason, present FROM stage_pictures
WHERE stage = :stage AND folder = :folder AND departed = 0 ORDER BY position, variant

-- name: place_stage_picture
UPDATE stage_pictures SET position = :position WHERE id = :id

-- name: depart_stage_picture
UPDATE stage_pictures SET departed = 1 WHERE id = :id

-- name: stage_picture_done
UPDATE stage_pictures SET status = 'done', attempts = attempts + :attempts, reason = '', note = :note, size = :size,
                          depends = COALESCE(:depends, depends),
                          sha256 = :sha256, mtime_ns = :mtime_ns, width = :width, height = :height, facts = :facts,
                          seconds = :seconds, made_at = :made_at, present = 1
WHERE id = :id AND status = 'planned'

-- name: stage_picture_failed
UPDATE stage_pictures SET status = 'failed', attempts = attempts + :attempts, reason = :reason,
                          size = COALESCE(size, :earlier_size)
WHERE id = :id AND status = 'planned'

-- name: stage_picture_to_be_made_again
UPDATE stage_pictures SET present = 0, size = NULL, mtime_ns = NULL WHERE id = :id

-- name: files_of_stage_in_folder
-- A planned one without a size may have been made by a run that was stopped between the rename and the commit.
SELECT file_name, size, mtime_ns FROM stage_pictures
WHERE stage = :stage AND folder = :folder AND file_name <> '' AND (present = 1 OR status = 'planned')

-- name: stage_names_held
-- Names in an album's folder that rows of these stages have, or have until their files are put away.
SELECT file_name FROM stage_pictures
WHERE folder = :folder AND stage IN (SELECT value FROM json_each(:stages)) AND file_name <> ''
  AND (departed = 0 OR present = 1)

-- name: stage_pictures_without_photos
-- Rows whose photo is no longer in its folder: its album was not gone through, or it left while it was. Not of a photo
-- that the newest export of the album was to bring and has not brought: it may come yet.
SELECT id FROM stage_pictures AS mine
WHERE stage = :stage AND departed = 0
  AND (folder, photo) NOT IN (SELECT albums.folder, photos.file_name FROM photos JOIN albums ON albums.id = photos.album
                              WHERE photos.present = 1)
  AND NOT EXISTS (SELECT 1 FROM albums JOIN photos ON photos.album = albums.id
                  WHERE albums.folder = mine.folder AND photos.file_name = mine.photo
                    AND photos.status IN ('planned', 'failed', 'missing')
                    AND albums.run_id = (SELECT MAX(run_id) FROM albums WHERE folder = mine.folder))

-- name: departed_stage_files
SELECT id, stage, folder, file_name, present FROM stage_pictures WHERE departed = 1 AND (present = 1 OR file_name = '')

-- name: stage_picture_put_away
UPDATE stage_pictures SET present = 0 WHERE id = :id

-- name: forget_stage_facts
DELETE FROM stage_pictures WHERE id = :id AND file_name = ''

-- name: stage_none_present
UPDATE stage_pictures SET present = 0 WHERE stage = :stage AND file_name <> ''

-- name: present_stage_files_in
SELECT stage, folder, photo, input, variant, input_sha256, depends, note, file_name, size, sha256, width, height, facts,
       made_at
FROM stage_pictures WHERE folder = :folder AND present = 1 AND departed = 0 AND status = 'done'
ORDER BY position, id

-- name: stage_files_still_there
-- Of the names that some row has given up, those that a row has.
SELECT stage, folder, file_name FROM stage_pictures
WHERE present = 1 AND file_name <> ''
  AND (folder, file_name) IN (SELECT folder, file_name FROM stage_pictures WHERE present = 0 AND file_name <> '')

-- name: stage_files_gone
-- As a difference of two sets: for each name to be looked for among the rows of its folder would take hours where a
-- large album has got other names.
SELECT stage, folder, file_name FROM stage_pictures WHERE present = 0 AND file_name <> ''
EXCEPT SELECT stage, folder, file_name FROM stage_pictures WHERE present = 1

-- name: mean_stage_sizes
SELECT stage, AVG(size) AS size FROM stage_pictures WHERE status = 'done' AND file_name <> '' GROUP BY stage

-- name: count_stage_files
SELECT stage, COUNT(*) AS files FROM stage_pictures WHERE present = 1 AND departed = 0 AND file_name <> '' GROUP BY stage

-- name: album_folders_with_files
-- The newest row of each album folder that holds exported files, in the order of the runs and their albums.
SELECT albums.* FROM albums JOIN (
    SELECT albums.folder, MAX(albums.id) AS id FROM albums
    WHERE EXISTS (SELECT 1 FROM photos WHERE photos.album = albums.id AND photos.present = 1)
    GROUP BY albums.folder) AS newest ON newest.id = albums.id
ORDER BY albums.run_id, albums.position

-- ── objects in a bucket ─────────────────────────────────────────────────────────────────────────────────────────

-- name: bucket_objects
SELECT * FROM bucket_objects WHERE place = :place ORDER BY id

-- name: any_bucket_object
SELECT EXISTS (SELECT 1 FROM bucket_objects WHERE place = :place) AS some

-- name: bucket_objects_of_folder
-- Its pictures, as far as they decide whether one is up to date and what an index says.
SELECT key, wanted, input, status, size, sha256, left_album FROM bucket_objects
WHERE place = :place AND folder = :folder AND kind = 'picture' ORDER BY id

-- name: index_in_bucket
SELECT sha256, made_of FROM bucket_objects
WHERE place = :place AND folder = :folder AND input = '' AND wanted = :wanted AND status = 'there' AND left_album = 0

-- name: index_is_made_of
UPDATE bucket_objects SET made_of = :made_of WHERE place = :place AND key = :key AND status = 'there'
  AND made_of <> :made_of

-- name: albums_in_bucket
-- Albums whose index is there, or is about to be replaced by a new one, and how many pictures it names.
SELECT folder, key, wanted, (SELECT COUNT(*) FROM bucket_objects AS picture
                     WHERE picture.place = album.place AND picture.folder = album.folder AND picture.kind = 'picture'
                       AND picture.status = 'there' AND picture.left_album = 0) AS pictures
FROM bucket_objects AS album
WHERE place = :place AND kind = 'album index' AND (status = 'there' OR (status = 'claimed' AND sha256 IS NOT NULL))

-- name: bucket_objects_that_may_go
SELECT EXISTS (SELECT 1 FROM bucket_objects
               WHERE place = :place AND (status = 'leaving' OR left_album = 1 OR moved_from <> '')) AS some

-- name: leave_the_name_to_bucket_object
-- A prefix has another case now: both places may have objects, and the one that is written to is minded by name.
UPDATE bucket_objects SET folded = folded || char(10) || key
WHERE place = :place AND folded = :folded AND key <> :key

-- name: claim_bucket_object
-- The bytes that it is known to have stay known until others are confirmed.
INSERT INTO bucket_objects (place, key, folded, wanted, kind, folder, input, status, moved_from)
VALUES (:place, :key, :folded, :wanted, :kind, :folder, :input, 'claimed', :moved_from)
ON CONFLICT (place, key) DO UPDATE SET status = 'claimed', left_album = 0, made_of = '', wanted = excluded.wanted,
    folder = excluded.folder, input = excluded.input, folded = excluded.folded,
    moved_from = CASE WHEN excluded.moved_from <> '' THEN excluded.moved_from ELSE moved_from END

-- name: confirm_bucket_object
UPDATE bucket_objects SET status = 'there', size = :size, sha256 = :sha256, etag = :etag, checksum = :checksum,
                          uploaded_at = :now
WHERE place = :place AND key = :key

-- name: bucket_object_left
UPDATE bucket_objects SET left_album = 1 WHERE place = :place AND key = :key

-- name: bucket_object_leaves
UPDATE bucket_objects SET status = 'leaving' WHERE place = :place AND key = :key

-- name: bucket_object_to_be_sent_again
-- What confirmed it last stays: by that it is known to have been there once.
UPDATE bucket_objects SET status = 'claimed', size = NULL, sha256 = NULL, etag = :etag, made_of = ''
WHERE place = :place AND key = :key

-- name: forget_bucket_object
DELETE FROM bucket_objects WHERE place = :place AND key = :key

-- name: move_is_over
UPDATE bucket_objects SET moved_from = '' WHERE place = :place AND key = :key

-- name: albums_gone_from_source
-- Of these folders, those that hold no photo any more and that the newest export of all albums did not have. An export
-- of chosen albums says nothing about the others.
SELECT folder FROM (SELECT DISTINCT folder FROM bucket_objects WHERE place = :place AND folder <> '') AS object
WHERE NOT EXISTS (SELECT 1 FROM albums JOIN photos ON photos.album = albums.id
                  WHERE albums.folder = object.folder AND photos.present = 1)
  AND (SELECT COALESCE(MAX(run_id), 0) FROM albums WHERE albums.folder = object.folder)
    < (SELECT COALESCE(MAX(id), 0) FROM runs
       WHERE planned = 1 AND selection = '[]' AND status IN ('active', 'finished')
         AND EXISTS (SELECT 1 FROM json_each(stages) WHERE value = 'export'))

-- name: inputs_done_by_stage
SELECT folder, input FROM stage_pictures WHERE stage = :stage AND departed = 0 AND status = 'done'

-- name: sizes_of_inputs
SELECT file_name, width, height FROM stage_pictures
WHERE folder = :folder AND stage IN (SELECT value FROM json_each(:stages)) AND departed = 0 AND present = 1
  AND file_name <> ''

-- name: titles_of_folders
SELECT folder, title FROM stage_albums WHERE stage = :stage ORDER BY run_id, pass

-- name: cdn_change
INSERT OR IGNORE INTO cdn_changes (distribution, key, place) VALUES (:distribution, :key, :place)

-- name: cdn_changes_of_others
SELECT key FROM cdn_changes WHERE distribution <> :distribution AND place IN ('', :place) ORDER BY key

-- name: forget_cdn_changes_of_others
DELETE FROM cdn_changes WHERE distribution <> :distribution AND place IN ('', :place)

-- name: cdn_changes
SELECT key FROM cdn_changes WHERE distribution = :distribution ORDER BY key

-- name: forget_cdn_change
DELETE FROM cdn_changes WHERE distribution = :distribution AND key = :key

-- name: insert_cdn_invalidation
INSERT INTO cdn_invalidations (distribution, reference, paths, status, at, place, keys)
VALUES (:distribution, :reference, :paths, 'pending', :at, :place, :keys)

-- name: unsent_cdn_invalidations
SELECT id, distribution, paths, keys FROM cdn_invalidations
WHERE status = 'pending' AND place IN ('', :place) ORDER BY id

-- name: hand_on_cdn_invalidation
UPDATE cdn_invalidations SET distribution = :distribution, place = :place WHERE id = :id

-- name: forget_cdn_invalidation
DELETE FROM cdn_invalidations WHERE id = :id

-- name: open_cdn_invalidations
SELECT * FROM cdn_invalidations WHERE distribution = :distribution AND status <> 'completed' ORDER BY id

-- name: step_cdn_invalidation
UPDATE cdn_invalidations SET status = :status, remote_id = :remote_id WHERE id = :id
