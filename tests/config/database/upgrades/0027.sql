-- The segment "lapsed" had 17 people on 2 March 2026.

INSERT INTO segment_count (segment, day, people, counted_at) VALUES ('lapsed', '2026-03-02', 17, 1772445600);
