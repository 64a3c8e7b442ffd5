-- The retention of an old mail to Ann is over; she had been in an experiment.

INSERT INTO past_message (id, bucket, profile_id, enrollment_id, journey, step, channel, topic, wanted_at, send_at, state, address)
VALUES (900, 158, 1, 900, 'old-news', 'news', 'email', 'news', 1735725600, 1735725600, 'delivered', 'ann@example.com');
INSERT INTO message_total (journey, launch_id, step, channel, state, reason, since, number)
VALUES ('old-news', '', 'news', 'email', 'delivered', '', 0, 1);
INSERT INTO passage_total (journey, step, outcome, since, number) VALUES ('old-news', 'news', 'next', 0, 1);
INSERT INTO experiment_arm (profile_id, enrollment_id, step, bucket, journey, outcome, at)
VALUES (1, 900, 'subject', 158, 'old-news', 'short', 1735725600);
INSERT INTO retention_position (name, position) VALUES ('message', 0)
