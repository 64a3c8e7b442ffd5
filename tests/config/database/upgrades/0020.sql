-- An arm was promoted; Ann is in the holdout, and so is whoever has her address.

INSERT INTO promotion (journey, step, arm, promoted_at) VALUES ('old-news', 'subject', 'short', 1769767200);
INSERT INTO held_out (profile_id, bucket, since) VALUES (1, 158, 1769767200);
INSERT INTO held_out_address (hash, bucket, since) VALUES ('0a5d2f346baa9455fe3b6d3b2ac9a8a1', 10, 1769767200);
INSERT INTO past_message (id, bucket, profile_id, enrollment_id, journey, step, channel, kind, topic, wanted_at, send_at, state, address)
VALUES (901, 158, 1, 900, 'old-news', 'news', 'email', 'transactional', 'news', 1735725600, 1735725600, 'delivered', 'ann@example.com');
