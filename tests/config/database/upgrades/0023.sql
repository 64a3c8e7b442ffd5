-- A worker has counted the report of a large journey.

INSERT INTO kept_report (journey, question, counted_at, took, rows) VALUES ('old-news', '0a0b', 1772445600, 3, '{"0c0d": [["news", 1]]}');
