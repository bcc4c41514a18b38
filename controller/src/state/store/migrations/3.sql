-- Who asked over mTLS.
ALTER TABLE revision ADD COLUMN spiffe_id TEXT;
