-- Ann has ordered three times, which puts her into the fifth group of customers.

UPDATE profile SET computed = '{"orders": 3, "frequency": 5}' WHERE id = 1;
INSERT INTO trait_state (trait, digest, day, cuts) VALUES ('orders', '0a0b0c0d0e0f', '2026-03-02', NULL);
INSERT INTO trait_state (trait, digest, day, cuts) VALUES ('frequency', '1a1b1c1d1e1f', '2026-03-02', '[0, 1, 1, 2]');
