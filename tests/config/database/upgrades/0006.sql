-- What happened in a journey and was not told yet.

INSERT INTO journey_news (journey, counts, told_at) VALUES
('letters', '[["entered", 1], ["messages", "email", "sent", 1]]', 1772445000);
