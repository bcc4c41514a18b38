-- What sources of bindings say.
CREATE TABLE binding (
    source TEXT NOT NULL,
    slot   TEXT NOT NULL,
    claim  TEXT NOT NULL,
    PRIMARY KEY (source, slot)
) WITHOUT ROWID;
