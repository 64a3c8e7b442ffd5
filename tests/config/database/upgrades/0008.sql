-- Ann has an address that she replaced.

INSERT INTO identifier (kind, value, profile_id, state, country, platform, seen_at, retired_at) VALUES
('email', 'ann.before@example.com', 1, 'active', NULL, NULL, 1772440000, 1772445000);
