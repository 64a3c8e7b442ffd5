-- Eve had never agreed to texts: after her START nothing is said of them any more.

DELETE FROM consent WHERE profile_id = 5 AND channel = 'sms';

INSERT INTO consent_record (profile_id, channel, topic, granted, occurred_at, recorded_at, source) VALUES
(5, 'sms', '*', false, 1772445000, 1772445000, 'twilio STOP'),
(5, 'sms', '*', NULL, 1772445060, 1772445060, 'twilio START');
