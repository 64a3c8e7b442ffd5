-- Audiences count the events of one name from an index.

INSERT INTO event (profile_id, name, occurred_at, received_at, properties, dedupe_key, worked_at, identifier_kind, identifier_value, bucket) VALUES
(1, 'cart_viewed', 1772272860, 1772272860, '{}', 'test-22', 1772272860, 'user_id', 'ann', 158);
