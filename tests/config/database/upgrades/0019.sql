-- Reports count messages with a reason from an index.

INSERT INTO message (profile_id, enrollment_id, journey, version, step, member, channel, kind, topic, priority, mode, after, on_cap, wanted_at, latest_anchor, send_at, state, reason, decision, attempts, bucket) VALUES
(1, 902, 'old-news', '8f75360173f9', 'news', 'email', 'email', 'marketing', 'news', 50, 'any', 0, 'skip', 1769767200, 1769767200, 1769767200, 'skipped', 'no_consent', '{"outcome":"no_consent","send_at":null,"reason":"no_consent","rule":null,"timezone":"UTC","timezone_source":"profile"}', 0, 158)
