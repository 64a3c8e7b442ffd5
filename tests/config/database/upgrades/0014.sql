-- Of what Ann said and did it is known by which identifier; of a mail to her, to which address. Dan's
-- texts are not delivered.

UPDATE profile SET attribute_identifiers = '[["user_id", "ann", ["attributes.plan"]]]' WHERE id = 1;

INSERT INTO event (profile_id, name, occurred_at, received_at, properties, dedupe_key, worked_at, identifier_kind, identifier_value, bucket) VALUES
(1, 'cart_viewed', 1772272800, 1772272800, '{}', 'test-15', 1772272800, 'user_id', 'ann', 158);

INSERT INTO consent_record (profile_id, channel, topic, granted, occurred_at, recorded_at, source, identifier_kind, identifier_value, bucket) VALUES
(1, 'email', 'news', true, 1772445000, 1772445000, 'test', 'user_id', 'ann', 158);

INSERT INTO message (profile_id, enrollment_id, journey, version, step, member, channel, kind, topic, priority, mode, after, on_cap, wanted_at, latest_anchor, send_at, state, decision, attempts, address, bucket) VALUES
(1, 901, 'old-news', '8f75360173f9', 'news', 'email', 'email', 'marketing', 'news', 50, 'any', 0, 'skip', 1769767200, 1769767200, 1769767200, 'sent', '{"outcome":"send","send_at":"2026-01-30T10:00:00Z","reason":null,"rule":null,"timezone":"UTC","timezone_source":"profile"}', 1, 'ann@example.com', 158);

INSERT INTO suppression (address, channel, bucket, state, since) VALUES
('+447700900004', 'sms', 28, 'bounced', 1772445000);
