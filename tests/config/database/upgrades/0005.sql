-- Somebody who is in the segment of a journey's entry.

INSERT INTO segment_member (journey, profile_id, since) VALUES
('letters', 1, 1772445000);
