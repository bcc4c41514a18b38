-- What was done, by whom, each record bound to the one before it (controller/src/audit). Nothing in it is ever changed or removed.
CREATE TABLE audit (
    seq    INTEGER PRIMARY KEY,  -- from 1, without gaps
    record TEXT NOT NULL,        -- RFC 8785 JSON; holds seq and the hash of the record before
    hash   TEXT NOT NULL         -- SHA-256 of record, hexadecimal
);
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit record is append-only'); END;
CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit record is append-only'); END;
