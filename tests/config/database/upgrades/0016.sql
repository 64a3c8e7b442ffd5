-- A worker is at work, and a run moves the people of a journey.

INSERT INTO bucket_holder (journey, holder, until) VALUES ('', 'shop-1:17', 1772442005);
INSERT INTO bucket_holder (journey, holder, until) VALUES ('welcome', 'shop-1:18', 1772442005);
INSERT INTO bucket_lease (journey, bucket, holder) VALUES ('', 0, 'shop-1:17');
INSERT INTO bucket_lease (journey, bucket, holder) VALUES ('welcome', 255, 'shop-1:18');
