-- Ann's browser came to her by an address that nobody verified.

INSERT INTO identifier (kind, value, profile_id, state, country, platform, seen_at, retired_at, unverified_from) VALUES
('anonymous_id', 'web-2', 1, 'active', NULL, NULL, 1772440000, NULL, 0);

UPDATE upgrade SET at = 1772445000 WHERE revision = '0009';
