-- Dan has chosen a zone and a language on his own page.

UPDATE preference SET timezone = 'UTC', language = 'de' WHERE profile_id = 4;
