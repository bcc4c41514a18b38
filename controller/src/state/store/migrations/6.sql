-- Grants that were given by hand.
ALTER TABLE revision ADD COLUMN grants TEXT NOT NULL DEFAULT '[]';
