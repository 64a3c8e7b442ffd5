-- Ann is a champion, and two customers became champions in March.

UPDATE profile SET persona = 'champions' WHERE id = 1;
INSERT INTO persona_move (month, from_persona, to_persona, people) VALUES ('2026-03', 'others', 'champions', 2);
