-- Ann and Bob look like one person, and were refused.

INSERT INTO duplicate (left_id, right_id, bucket, weight, bars, found_at, state, decided_at, decided_by) VALUES (1, 2, 158, 4.5, '[["two random profiles", "", -20.5], ["surname", "equal", 25.0]]', 1772445900, 'refused', 1772446000, 'yan');
