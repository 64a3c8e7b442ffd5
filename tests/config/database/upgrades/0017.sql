-- A page has a key, and Ann's company is known.

INSERT INTO api_key (digest, label, is_public, origins, made_at)
VALUES ('0f0e0d', 'web', true, 'https://shop.example', 1772445600);
INSERT INTO company (id, traits, trait_times, updated_at)
VALUES ('g-5', '{"plan": "premium"}', '{}', 1772445600)
