#!/bin/sh
# At the first start of PostgreSQL: a role with its own database for Segue and for Prefect.
set -eu
for name in segue prefect; do
    # psql reads the password itself: an argument would be visible to other processes.
    psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --set name="$name" \
        --username postgres --dbname postgres <<SQL
\\set password \`cat /run/secrets/${name}_database_password\`
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE CONNECT, TEMPORARY ON DATABASE :"name" FROM PUBLIC;
SQL
done
