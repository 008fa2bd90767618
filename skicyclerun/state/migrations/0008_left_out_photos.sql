-- Photos that somebody has left out (`skicyclerun leave-out`): no run exports them, in whichever album they are, until
-- they are taken in again. A photo goes by what the source calls it; folder and file are what it was named by.

CREATE TABLE left_out_photos (
    source_kind     TEXT NOT NULL,
    source_location TEXT NOT NULL,
    photo_id        TEXT NOT NULL,
    component       TEXT NOT NULL CHECK (component IN ('still', 'video', 'live_movie')),
    folder          TEXT NOT NULL,
    file_name       TEXT NOT NULL,
    since           TEXT NOT NULL,
    PRIMARY KEY (source_kind, source_location, photo_id, component)
) WITHOUT ROWID;
