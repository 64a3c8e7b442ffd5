-- Ann said yes in a form, with its proof. Bob has not confirmed his yes yet.

INSERT INTO consent_record (profile_id, channel, topic, granted, occurred_at, recorded_at, source, wording, evidence) VALUES
(1, 'email', 'news', true, 1772445000, 1772445000, 'footer form', 'Send me news', '{"ip": "203.0.113.7"}');

INSERT INTO email_confirmation (address, topic, profile_id, said_at, asked_at, source, wording, evidence) VALUES
('bob@example.com', 'news', 2, 1772445000, 1772445000, 'footer form', 'Send me news', '{"ip": "203.0.113.8"}');
