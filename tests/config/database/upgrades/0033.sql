-- Bob was joined to Ann once; somebody undid it.

INSERT INTO identity_record (profile_id, kind, at, from_id, into_id, from_origin, into_origin, why, source, undone_at, undone_by, data, bucket) VALUES (1, 'join', 1772445900, 2, 1, 2, 1, 'identify', 'calls', 1772445950, 'command line', '{"moved":{},"share":null}', 158);
INSERT INTO kept_apart (join_id, one_origin, other_origin, profile_id, other_id) VALUES (1, 2, 1, 2, 1);
