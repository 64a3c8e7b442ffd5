-- A worker that was on.

INSERT INTO attendance (worker, seen_at) VALUES
('host:17', 1772445000);
