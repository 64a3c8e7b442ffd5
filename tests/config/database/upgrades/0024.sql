-- Zoe, who works for the shop, has looked at Ann.

INSERT INTO staff_user (name, role, password, is_one_time, made_at) VALUES ('zoe', 'editor', 'scrypt$2$1$1$AA==$AA==', false, 1772445600);
INSERT INTO staff_session (digest, name, made_at, ends_at) VALUES ('0a0b0c', 'zoe', 1772445600, 1772488800);
INSERT INTO staff_act (at, name, act, profile_id, about) VALUES (1772445610, 'zoe', 'looked at a customer', 1, '');
