-- Ann has a mailbox whose domain is written with an umlaut, and Bob a phone in Brazil.

INSERT INTO identifier (kind, value, profile_id, state, country, platform, seen_at, retired_at) VALUES
('email', 'ann@xn--bcher-kva.example', 1, 'active', NULL, NULL, 1772445000, 1772445100),
('phone', '+5511987654321', 2, 'active', 'BR', NULL, 1772100000, 1772272800);
