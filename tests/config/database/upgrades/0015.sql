-- A journey was paused and resumed.

UPDATE change_counter SET changes = 2 WHERE id = 1;
