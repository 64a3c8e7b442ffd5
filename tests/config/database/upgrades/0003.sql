-- A run in Prefect has shown what had happened by then.

INSERT INTO step_shown (journey, step, until) VALUES
('letters', 'hello', 1772445000);
