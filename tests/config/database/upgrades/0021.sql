-- One launch waits for an approval, another was approved and has entered its audience.

INSERT INTO approval (launch_id, journey, version, audience, why, size, summary, asked_at, lapses_at, state) VALUES ('spring', 'old-news', '0123456789ab', 'everyone', 'more than 2 profiles', 3, '{"entered": 3}', 1769767200, 1770026400, 'waiting');
INSERT INTO approval (launch_id, journey, version, audience, people, why, size, summary, asked_at, lapses_at, state, decided_at, decided_by, finished_at) VALUES ('winter', 'old-news', '0123456789ab', 'everyone', 2, 'the topic news', 3, '{"entered": 2}', 1769767200, 1770026400, 'approved', 1769767300, 'ann', 1769767310);
