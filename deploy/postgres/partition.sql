-- Partition Segue's large tables by bucket (docs/operate/scale.md). Stop everything that uses the database
-- first, and make a backup. It needs as much free disk as the tables take. Run it as their owner:
--
--     psql -v ON_ERROR_STOP=1 -f partition.sql DATABASE
--
-- Rights that others have on the tables have to be granted again.
DO $$
DECLARE
    partitions CONSTANT int := 16;  -- 2, 4, 8 ... 256
    width CONSTANT int := 256 / partitions;
    name text;
    next_id bigint;
    definitions text[];
    definition text;
BEGIN
    FOR name IN
        SELECT relname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
        WHERE attname = 'bucket' AND relkind = 'r' AND relname <> 'bucket_lease'
          AND relnamespace = current_schema()::regnamespace
    LOOP
        -- Names of indexes and constraints stay, since later upgrades use them.
        SELECT array_agg(format('ALTER TABLE %I ADD CONSTRAINT %I %s', name, conname,
                                pg_get_constraintdef(oid)))
        INTO definitions
        FROM pg_constraint WHERE conrelid = name::regclass AND contype IN ('p', 'u', 'c');
        SELECT definitions || coalesce(array_agg(pg_get_indexdef(indexrelid)), '{}')
        INTO definitions
        FROM pg_index WHERE indrelid = name::regclass AND NOT EXISTS (
            SELECT FROM pg_constraint WHERE conindid = indexrelid);
        next_id := NULL;
        IF EXISTS (SELECT FROM pg_attribute
                   WHERE attrelid = name::regclass AND attidentity <> '') THEN
            next_id := nextval(pg_get_serial_sequence(name, 'id'));
        END IF;
        EXECUTE format('CREATE TABLE partitioned (LIKE %I INCLUDING IDENTITY) '
                       'PARTITION BY RANGE (bucket)', name);
        FOR number IN 0 .. partitions - 1 LOOP
            EXECUTE format('CREATE TABLE %I PARTITION OF partitioned FOR VALUES FROM (%s) TO (%s)',
                           name || '_p' || number, number * width, (number + 1) * width);
        END LOOP;
        EXECUTE format('INSERT INTO partitioned SELECT * FROM %I', name);
        EXECUTE format('DROP TABLE %I', name);
        EXECUTE format('ALTER TABLE partitioned RENAME TO %I', name);
        FOREACH definition IN ARRAY definitions LOOP
            EXECUTE definition;
        END LOOP;
        IF next_id IS NOT NULL THEN
            PERFORM setval(pg_get_serial_sequence(name, 'id'), next_id);
        END IF;
        EXECUTE format('ANALYZE %I', name);
    END LOOP;
END $$;
