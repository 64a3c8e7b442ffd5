-- Yan, who works for the shop, lives elsewhere.

INSERT INTO staff_user (name, role, password, is_one_time, made_at, timezone) VALUES ('yan', 'viewer', 'scrypt$2$1$1$AA==$AA==', false, 1772445700, 'Asia/Shanghai');
