-- A conversion has the time of its event: Cyd ordered a day before her order was received.

INSERT INTO event (profile_id, name, occurred_at, received_at, properties, dedupe_key, worked_at, identifier_kind, identifier_value, bucket) VALUES
(3, 'order_completed', 1772272900, 1772359300, '{"total":3}', 'test-24', 1772359300, 'user_id', 'cyd', 218);
INSERT INTO enrollment (profile_id, journey, version, entry_key, launch_id, context, entry_event_id, entered_at, since, step, arrived_at, phase, due_at, attempts, ended_at, end_reason, converted_at, bucket) VALUES
(3, 'letters', '8f75360173f9', 'z', NULL, '{"list":"z"}', NULL, 1772272800, 1772272800, 'hello', 1772272800, 0, NULL, 0, 1772272850, 'completed', 1772272900, 218);
