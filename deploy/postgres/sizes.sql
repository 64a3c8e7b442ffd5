-- Bytes for each row of Segue's large tables, with indexes, and what they take in all.
--     psql -f sizes.sql DATABASE
-- The numbers of rows are PostgreSQL's estimates: run ANALYZE first.
WITH parts AS (
    SELECT coalesce(inhparent, pg_class.oid)::regclass AS name, pg_class.oid,
           greatest(reltuples, 0) AS rows
    FROM pg_class LEFT JOIN pg_inherits ON inhrelid = pg_class.oid
    WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace
)
SELECT name, sum(rows)::bigint AS rows,
       pg_size_pretty(sum(pg_table_size(oid))) AS table_size,
       pg_size_pretty(sum(pg_indexes_size(oid))) AS index_size,
       (sum(pg_total_relation_size(oid)) / nullif(sum(rows), 0))::bigint AS bytes_per_row
FROM parts GROUP BY name ORDER BY sum(pg_total_relation_size(oid)) DESC;
