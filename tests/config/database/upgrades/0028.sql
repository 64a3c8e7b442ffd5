-- Ann's sixth browser of the week is left out.

INSERT INTO join_limit_hit (profile_id, bucket, at, kind, value, limited_kind, limited_to, why, exempt) VALUES (1, 158, 1772445800, 'anonymous_id', 'browser-6', 'anonymous_id', 'at most 5 in 7d', 'identify', false);
UPDATE identifier SET added_at = 1772445800 WHERE profile_id = 1;
