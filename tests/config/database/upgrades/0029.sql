-- Somebody was erased, whose address was hashed.

INSERT INTO erased_address (hash, channel, bucket, since) VALUES ('0a0b0c0d0e0f00010203040506070809', 'email', 10, 1772445800);
INSERT INTO privacy_request (at, act, asked_by, hashes, counts) VALUES (1772445800, 'erase', 'command line', '["0a0b0c0d0e0f00010203040506070809"]', '{"profile": 1}');
