-- A shop as a release with the schema 0001 kept it, at 2026-03-02 09:59 UTC. In the journey
-- "letters" Ann stands at a wait that ends at 10:00; Bob and Fay have a text planned (10:30, 10:00);
-- Dan waits for an event, has limits of his own, and of his text nobody knows what became of it;
-- Eve took her consent back and left; Fay's mail was being handed over by a worker that died; of
-- Cyd an event is not worked yet. Row numbers are the database's own.

INSERT INTO profile (timezone, country, language, attributes, created_at, updated_at) VALUES
('UTC', 'GB', 'en', '{"first_name":"Ann","plan":"gold"}', 1772272800, 1772355600),
('UTC', NULL, NULL, '{"plan":"basic"}', 1772272800, 1772272800),
('Europe/Berlin', NULL, 'de', '{}', 1772272800, 1772272800),
('UTC', NULL, NULL, '{"plan":"gold"}', 1772272800, 1772272800),
('UTC', NULL, NULL, '{}', 1772272800, 1772272800),
('UTC', NULL, NULL, '{}', 1772272800, 1772272800),
('UTC', NULL, NULL, '{}', 1772272800, 1772272800);

-- Whom we know as Ann.
DELETE FROM profile WHERE id = 7;

INSERT INTO identifier (kind, value, profile_id, state, country, platform, seen_at) VALUES
('anonymous_id', 'web-1', 1, 'active', NULL, NULL, 1772272800),
('email', 'ann@example.com', 1, 'active', NULL, NULL, 1772272800),
('email', 'bob@example.com', 2, 'active', NULL, NULL, 1772272800),
('email', 'cyd@example.com', 3, 'active', NULL, NULL, 1772272800),
('email', 'dan@example.com', 4, 'active', NULL, NULL, 1772272800),
('email', 'eve@example.com', 5, 'bounced', NULL, NULL, 1772272800),
('email', 'fay@example.com', 6, 'active', NULL, NULL, 1772272800),
('phone', '+447700900001', 1, 'active', 'GB', NULL, 1772272800),
('phone', '+447700900002', 2, 'active', 'GB', NULL, 1772272800),
('phone', '+447700900003', 3, 'active', 'GB', NULL, 1772272800),
('phone', '+447700900004', 4, 'active', 'GB', NULL, 1772272800),
('phone', '+447700900005', 5, 'active', 'GB', NULL, 1772272800),
('phone', '+447700900006', 6, 'active', 'GB', NULL, 1772272800),
('push_token', 'token-dan', 4, 'active', NULL, 'ios', 1772272800),
('user_id', 'ann', 1, 'active', NULL, NULL, 1772272800),
('user_id', 'bob', 2, 'active', NULL, NULL, 1772272800),
('user_id', 'cyd', 3, 'active', NULL, NULL, 1772272800),
('user_id', 'dan', 4, 'active', NULL, NULL, 1772272800),
('user_id', 'eve', 5, 'active', NULL, NULL, 1772272800),
('user_id', 'fay', 6, 'active', NULL, NULL, 1772272800);

INSERT INTO consent (profile_id, channel, topic, granted, changed_at) VALUES
(1, 'email', '*', true, 1772272800),
(1, 'sms', '*', true, 1772272800),
(2, 'email', '*', true, 1772272800),
(2, 'sms', '*', true, 1772272800),
(3, 'email', '*', true, 1772272800),
(3, 'sms', '*', true, 1772272800),
(4, 'email', '*', true, 1772272800),
(4, 'sms', '*', true, 1772272800),
(5, 'email', '*', false, 1772355600),
(5, 'sms', '*', true, 1772272800),
(6, 'email', '*', true, 1772272800),
(6, 'sms', '*', true, 1772272800);

INSERT INTO consent_record (profile_id, channel, topic, granted, occurred_at, recorded_at, source) VALUES
(1, 'sms', '*', true, 1772272800, 1772272800, 'test'),
(1, 'email', '*', true, 1772272800, 1772272800, 'test'),
(2, 'sms', '*', true, 1772272800, 1772272800, 'test'),
(2, 'email', '*', true, 1772272800, 1772272800, 'test'),
(3, 'sms', '*', true, 1772272800, 1772272800, 'test'),
(3, 'email', '*', true, 1772272800, 1772272800, 'test'),
(4, 'sms', '*', true, 1772272800, 1772272800, 'test'),
(4, 'email', '*', true, 1772272800, 1772272800, 'test'),
(5, 'sms', '*', true, 1772272800, 1772272800, 'test'),
(5, 'email', '*', true, 1772272800, 1772272800, 'test'),
(6, 'sms', '*', true, 1772272800, 1772272800, 'test'),
(6, 'email', '*', true, 1772272800, 1772272800, 'test'),
(1, 'sms', '*', true, 1772272800, 1772272800, 'test'),
(1, 'email', '*', true, 1772272800, 1772272800, 'test'),
(5, 'email', '*', false, 1772355600, 1772355600, 'STOP');

INSERT INTO preference (profile_id, per_week, opens, closes, changed_at) VALUES
(4, 5, 32400, 72000, 1772355600);

INSERT INTO event (profile_id, name, occurred_at, received_at, properties, dedupe_key, worked_at) VALUES
(4, 'signed_up', 1772272800, 1772272800, '{"list":"a"}', 'test-8', 1772272800),
(5, 'signed_up', 1772272800, 1772272800, '{"list":"a"}', 'test-9', 1772272800),
(1, 'profile_changed', 1772355600, 1772355600, '{}', 'merge of 7', 1772355600),
(6, 'signed_up', 1772355600, 1772355600, '{"list":"a"}', 'test-10', 1772355600),
(2, 'signed_up', 1772357400, 1772357400, '{"list":"a"}', 'test-11', 1772357400),
(5, 'order_completed', 1772359200, 1772359200, '{"total":12.5}', 'test-12', 1772359200),
(1, 'signed_up', 1772359200, 1772359200, '{"list":"a"}', 'test-13', 1772359200),
(3, 'signed_up', 1772445540, 1772445540, '{"list":"b"}', 'test-14', NULL);

INSERT INTO merge (from_id, into_id, merged_at, why, moved) VALUES
(7, 1, 1772355600, 'identify', '{"ended":[],"launches":[],"enrollments":[],"messages":[],"events":[],"identifiers":[["anonymous_id","web-1"],["email","web@example.com"],["phone","+447700900007"],["push_token","token-web"]],"consent_records":[13,14],"consents":[{"profile_id":7,"channel":"email","topic":"*","granted":true,"changed_at":1772272800},{"profile_id":7,"channel":"sms","topic":"*","granted":true,"changed_at":1772272800}],"consents_before":[{"profile_id":1,"channel":"email","topic":"*","granted":true,"changed_at":1772272800},{"profile_id":1,"channel":"sms","topic":"*","granted":true,"changed_at":1772272800}],"preferences":[],"preferences_before":[],"profile":{"id":7,"timezone":"UTC","country":null,"language":null,"attributes":{},"created_at":1772272800,"updated_at":1772272800},"profile_before":{"id":1,"timezone":"UTC","country":"GB","language":"en","attributes":{"first_name":"Ann","plan":"gold"},"created_at":1772272800,"updated_at":1772272800}}');

INSERT INTO journey_version (journey, version, definition, created_at) VALUES
('letters', '8f75360173f9', '{"journey":{"name":"letters","description":"","entry":{"again":"once","type":"event","event":"signed_up","where":[],"key":"list"},"exit_when":{"type":"did","event":"order_completed","where":[],"within":null,"at_least":1},"goal":{"did":{"type":"did","event":"order_completed","where":[],"within":null,"at_least":1},"within":"7d"},"topic":"news","priority":50,"steps":[{"name":"a day","type":"wait","duration":"1d","time":null,"days":null,"date":null,"yearly":false,"before":"0s"},{"name":"hello","type":"send","messages":[{"channel":"email","template":"hello","after":"0s","on_cap":"skip","max_delay":null},{"channel":"sms","template":"hello","after":"1h","on_cap":"skip","max_delay":null}],"mode":"any","kind":"marketing","topic":null,"fallback_after":null,"unless":null,"stop_on":"clicked"},{"name":"came back","type":"wait_until","condition":{"type":"did","event":"cart_viewed","where":[],"within":null,"at_least":1},"timeout":"3d","then":[],"on_timeout":[]},{"name":"who","type":"split","ways":[{"name":"yes","condition":{"type":"test","of":"trait","name":"plan","op":"==","value":"gold"},"steps":[{"name":"offer","type":"send","messages":[{"channel":"push","template":"offer","after":"0s","on_cap":"skip","max_delay":null},{"channel":"email","template":"offer","after":"0s","on_cap":"skip","max_delay":null}],"mode":"first","kind":"marketing","topic":null,"fallback_after":"2h","unless":"opened","stop_on":null}]}],"otherwise":[]}]},"templates":{"hello.email.html":"Subject: hello\n\n<p>hello</p>","hello.sms.txt":"hello","offer.email.html":"Subject: offer\n\n<p>offer</p>","offer.push.txt":"Title: offer\n\noffer"}}', 1772272800);

INSERT INTO enrollment (profile_id, journey, version, entry_key, launch_id, context, entry_event_id, entered_at, since, step, arrived_at, phase, due_at, attempts, ended_at, end_reason, converted_at) VALUES
(4, 'letters', '8f75360173f9', 'a', NULL, '{"list":"a"}', 1, 1772272800, 1772272800, 'came back', 1772362800, 1, 1772622000, 0, NULL, NULL, NULL),
(5, 'letters', '8f75360173f9', 'a', NULL, '{"list":"a"}', 2, 1772272800, 1772272800, 'hello', 1772359200, 2, NULL, 0, 1772359200, 'exited: exit rule', 1772359200),
(6, 'letters', '8f75360173f9', 'a', NULL, '{"list":"a"}', 4, 1772355600, 1772355600, 'hello', 1772442000, 2, 1772445660, 0, NULL, NULL, NULL),
(2, 'letters', '8f75360173f9', 'a', NULL, '{"list":"a"}', 5, 1772357400, 1772357400, 'hello', 1772443800, 2, 1772447460, 0, NULL, NULL, NULL),
(1, 'letters', '8f75360173f9', 'a', NULL, '{"list":"a"}', 7, 1772359200, 1772359200, 'a day', 1772359200, 1, 1772445600, 0, NULL, NULL, NULL);

INSERT INTO passage (profile_id, enrollment_id, step, journey, version, outcome, at) VALUES
(2, 4, 'a day', 'letters', '8f75360173f9', 'next', 1772443800),
(4, 1, 'a day', 'letters', '8f75360173f9', 'next', 1772359200),
(4, 1, 'hello', 'letters', '8f75360173f9', 'next', 1772362800),
(5, 2, 'a day', 'letters', '8f75360173f9', 'next', 1772359200),
(6, 3, 'a day', 'letters', '8f75360173f9', 'next', 1772442000);

INSERT INTO message (profile_id, enrollment_id, journey, version, step, member, channel, kind, topic, priority, mode, after, on_cap, wanted_at, deadline, send_at, state, reason, decision, attempts, not_after, claimed_by, provider_id, segments) VALUES
(4, 1, 'letters', '8f75360173f9', 'hello', 'email:hello', 'email', 'marketing', 'news', 50, 'any', 0, 'skip', 1772359200, 1772964000, 1772359200, 'sent', NULL, '{"outcome":"send","send_at":"2026-03-01T10:00:00Z","reason":null,"rule":null,"timezone":"UTC","timezone_source":"profile"}', 1, NULL, NULL, NULL, NULL),
(4, 1, 'letters', '8f75360173f9', 'hello', 'sms:hello', 'sms', 'marketing', 'news', 50, 'any', 3600, 'skip', 1772359200, 1772964000, 1772362800, 'unknown', 'the process died around the hand-over', '{"outcome":"send","send_at":"2026-03-01T11:00:00Z","reason":null,"rule":null,"timezone":"UTC","timezone_source":"profile"}', 1, NULL, NULL, NULL, 1),
(5, 2, 'letters', '8f75360173f9', 'hello', 'email:hello', 'email', 'marketing', 'news', 50, 'any', 0, 'skip', 1772359200, 1772964000, 1772359200, 'skipped', 'no_consent', '{"outcome":"not_sent","send_at":null,"reason":"no_consent","rule":null,"timezone":"UTC","timezone_source":"profile"}', 0, NULL, NULL, NULL, NULL),
(5, 2, 'letters', '8f75360173f9', 'hello', 'sms:hello', 'sms', 'marketing', 'news', 50, 'any', 3600, 'skip', 1772359200, 1772964000, 1772362800, 'cancelled', 'exited: exit rule', '{"outcome":"send","send_at":"2026-03-01T11:00:00Z","reason":null,"rule":null,"timezone":"UTC","timezone_source":"profile"}', 0, NULL, NULL, NULL, NULL),
(6, 3, 'letters', '8f75360173f9', 'hello', 'email:hello', 'email', 'marketing', 'news', 50, 'any', 0, 'skip', 1772442000, 1773046800, 1772442000, 'sending', NULL, '{"outcome":"send","send_at":"2026-03-02T09:00:00Z","reason":null,"rule":null,"timezone":"UTC","timezone_source":"profile"}', 1, 1772442060, 'worker-3:17', NULL, NULL),
(6, 3, 'letters', '8f75360173f9', 'hello', 'sms:hello', 'sms', 'marketing', 'news', 50, 'any', 3600, 'skip', 1772442000, 1773046800, 1772445600, 'planned', NULL, '{"outcome":"send","send_at":"2026-03-02T10:00:00Z","reason":null,"rule":null,"timezone":"UTC","timezone_source":"profile"}', 0, NULL, NULL, NULL, NULL),
(2, 4, 'letters', '8f75360173f9', 'hello', 'email:hello', 'email', 'marketing', 'news', 50, 'any', 0, 'skip', 1772443800, 1773048600, 1772443800, 'sent', NULL, '{"outcome":"send","send_at":"2026-03-02T09:30:00Z","reason":null,"rule":null,"timezone":"UTC","timezone_source":"profile"}', 1, NULL, NULL, NULL, NULL),
(2, 4, 'letters', '8f75360173f9', 'hello', 'sms:hello', 'sms', 'marketing', 'news', 50, 'any', 3600, 'skip', 1772443800, 1773048600, 1772447400, 'planned', NULL, '{"outcome":"send","send_at":"2026-03-02T10:30:00Z","reason":null,"rule":null,"timezone":"UTC","timezone_source":"profile"}', 0, NULL, NULL, NULL, NULL);

INSERT INTO journey_control (journey, state, changed_at) VALUES
('old-news', 'paused', 1772272800);

INSERT INTO launch (id, journey, version, audience, people, started_at) VALUES
('spring', 'letters', '8f75360173f9', 'everyone', NULL, 1772272800);

INSERT INTO channel_pace (channel, second, used) VALUES
('email', 1772443800, 1);

INSERT INTO signed_call (signature, received_at) VALUES
('5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef', 1772445500);
