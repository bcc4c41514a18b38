-- The state of one gateway. user_version counts the forms of this file: a change here is a change there.

-- Texts of files, each once.
CREATE TABLE body (
    digest TEXT PRIMARY KEY,   -- SHA-256, hexadecimal
    text   TEXT NOT NULL
);

-- What was applied together.
CREATE TABLE documents (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    digest TEXT NOT NULL,      -- of names and of the digests of texts
    parsed TEXT NOT NULL       -- what no file says, JSON
);
CREATE INDEX documents_digest ON documents (digest);

-- What one file of a set says, JSON: once for all sets that have it.
CREATE TABLE said (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    digest TEXT NOT NULL UNIQUE, -- SHA-256 of it, hexadecimal
    parsed TEXT NOT NULL
);

CREATE TABLE file (
    documents INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE,
    place     INTEGER NOT NULL,
    name      TEXT NOT NULL,
    body      TEXT NOT NULL REFERENCES body,
    said      INTEGER REFERENCES said, -- NULL in sets that a version before form 7 saved: it stands in documents.parsed
    PRIMARY KEY (documents, place)
) WITHOUT ROWID;
CREATE INDEX file_body ON file (body);
CREATE INDEX file_said ON file (said);

CREATE TABLE revision (
    number      INTEGER PRIMARY KEY,
    epoch       INTEGER NOT NULL,
    generation  TEXT NOT NULL,     -- of the maps that count in this epoch
    at          TEXT NOT NULL,     -- RFC 3339
    uid         INTEGER,           -- who asked on the socket; NULL for the daemon itself
    spiffe_id   TEXT,              -- who asked over mTLS
    how         TEXT NOT NULL,
    documents   INTEGER NOT NULL REFERENCES documents,
    blocks      TEXT NOT NULL,     -- JSON
    quarantines TEXT NOT NULL,     -- JSON
    grants      TEXT NOT NULL DEFAULT '[]',  -- JSON
    outcome     TEXT NOT NULL CHECK (outcome IN ('pending', 'committed', 'refused', 'abandoned', 'taken_back')),
    why         TEXT,              -- where it was not committed
    -- Waits to be confirmed: all five or none.
    confirm_revision    INTEGER,
    confirm_before      INTEGER REFERENCES documents,
    confirm_boot_id     TEXT,
    confirm_deadline_ns INTEGER,
    confirm_deadline_at TEXT
);
CREATE INDEX revision_documents ON revision (documents);

-- What sources of bindings say now, beside the policy's files.
CREATE TABLE binding (
    source TEXT NOT NULL,
    slot   TEXT NOT NULL,      -- address and scope, JSON
    claim  TEXT NOT NULL,      -- JSON
    PRIMARY KEY (source, slot)
) WITHOUT ROWID;

-- The revision that counts. One row, none before the first commit.
CREATE TABLE in_force (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL REFERENCES revision
);

-- The candidate that is judged beside it.
CREATE TABLE candidate (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    documents INTEGER NOT NULL REFERENCES documents,
    sample    INTEGER NOT NULL,
    since     TEXT NOT NULL
);

-- Numbers in the maps. One never comes to mean something else.
CREATE TABLE number (
    kind   TEXT NOT NULL,      -- identity, selector, class, rule, guard
    key    TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (kind, key),
    UNIQUE (kind, number)
) WITHOUT ROWID;

-- What a number of a rule meant last, JSON.
CREATE TABLE rule (
    number INTEGER PRIMARY KEY,
    info   TEXT NOT NULL
);

-- Options of `tidegate run` that stay without being repeated, and the like.
CREATE TABLE setting (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
