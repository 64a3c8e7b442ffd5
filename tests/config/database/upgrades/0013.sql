-- A push that one of Dan's devices took; the other one had asked for later.

INSERT INTO message (profile_id, enrollment_id, journey, version, step, member, channel, kind, topic, priority, mode, after, on_cap, wanted_at, deadline, send_at, state, reason, decision, attempts, not_after, claimed_by, provider_id, segments) VALUES
(4, 900, 'old-news', '8f75360173f9', 'news', 'push', 'push', 'marketing', 'news', 50, 'any', 0, 'skip', 1769767200, 1769767200, 1769767200, 'sent', NULL, '{"outcome":"send","send_at":"2026-01-30T10:00:00Z","reason":null,"rule":null,"timezone":"UTC","timezone_source":"profile"}', 1, NULL, NULL, 'projects/p/messages/1', NULL);

INSERT INTO message_device (message_id, token, profile_id, state, reason, attempts, not_after, retry_at, provider_id) VALUES
((SELECT max(id) FROM message), 'token-dan', 4, 'sent', NULL, 1, NULL, NULL, 'projects/p/messages/1'),
((SELECT max(id) FROM message), 'token-dan-2', 4, 'dropped', 'fcm 503', 1, NULL, NULL, NULL);
