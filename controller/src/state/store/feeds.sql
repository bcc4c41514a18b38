-- What stood in the feeds that a revision's blocklists name. Kept for the revision that counts and the one before.
CREATE TABLE feed_content (
    digest  TEXT PRIMARY KEY,
    entries BLOB NOT NULL
);
CREATE TABLE revision_feed (
    revision   INTEGER NOT NULL REFERENCES revision ON DELETE CASCADE,
    path       TEXT NOT NULL,
    format     TEXT NOT NULL,
    written_at TEXT NOT NULL,      -- RFC 3339, of the file
    content    TEXT NOT NULL REFERENCES feed_content,
    PRIMARY KEY (revision, path, format)
) WITHOUT ROWID;
