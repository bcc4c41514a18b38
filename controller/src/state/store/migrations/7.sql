-- What one file of a set says, JSON: once for all sets that have it.
CREATE TABLE said (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    digest TEXT NOT NULL UNIQUE, -- SHA-256 of it, hexadecimal
    parsed TEXT NOT NULL
);
-- NULL in sets that an older version saved: what their files say stands in documents.parsed.
ALTER TABLE file ADD COLUMN said INTEGER REFERENCES said;
CREATE INDEX file_body ON file (body);
CREATE INDEX file_said ON file (said);
CREATE INDEX documents_digest ON documents (digest);
