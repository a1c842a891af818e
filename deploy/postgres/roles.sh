#!/bin/sh
# Makes the database mxfleet and its two roles, or sets their passwords anew. Run by a superuser: PostgreSQL's image does
# at its first start, elsewhere: sudo -u postgres env MXFLEET_OWNER_PASSWORD_FILE=... MXFLEET_APP_PASSWORD_FILE=... FILE
#
# mxfleet owns the tables and migrates (deploy.prepare, which also grants); mxfleet_app is what the service connects as.
# It may make nothing, not even temporary tables: a trigger that looks into a table would find that one instead.
set -eu
: "${MXFLEET_OWNER_PASSWORD_FILE:?names the file with the password of mxfleet}"
: "${MXFLEET_APP_PASSWORD_FILE:?names the file with the password of mxfleet_app}"
as_superuser() { psql -X -q -v ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname "$1"; }

as_superuser postgres <<'SQL'
\set owner_password `cat "$MXFLEET_OWNER_PASSWORD_FILE"`
\set app_password `cat "$MXFLEET_APP_PASSWORD_FILE"`
SELECT 'CREATE ROLE mxfleet' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'mxfleet') \gexec
SELECT 'CREATE ROLE mxfleet_app' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'mxfleet_app') \gexec
ALTER ROLE mxfleet LOGIN PASSWORD :'owner_password';
ALTER ROLE mxfleet_app LOGIN PASSWORD :'app_password';
SELECT 'CREATE DATABASE mxfleet OWNER mxfleet'
    WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'mxfleet') \gexec
REVOKE ALL ON DATABASE mxfleet FROM PUBLIC;
GRANT CONNECT ON DATABASE mxfleet TO mxfleet_app;
SQL

as_superuser mxfleet <<'SQL'
ALTER SCHEMA public OWNER TO mxfleet;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO mxfleet_app;
SQL
