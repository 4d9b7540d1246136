-- Who may do what. For psql, as an administrator of the server, before the changelogs; may be run again:
--
--   OWNER_PASSWORD=... APP_PASSWORD=... psql --file=liquibase/roles.sql
--
-- walletsvc_owner owns the database and runs Liquibase. walletsvc_app is the service: what it may do with
-- each table is granted by the changelog that creates the table.
\set ON_ERROR_STOP on
\set database walletsvc
\getenv database DATABASE_NAME
\getenv owner_password OWNER_PASSWORD
\getenv app_password APP_PASSWORD
\if :{?owner_password}
\else
DO $$ BEGIN RAISE EXCEPTION 'OWNER_PASSWORD is not set'; END $$;
\endif
\if :{?app_password}
\else
DO $$ BEGIN RAISE EXCEPTION 'APP_PASSWORD is not set'; END $$;
\endif

SELECT format('CREATE ROLE %I', role)
  FROM unnest(ARRAY['walletsvc_owner', 'walletsvc_app']) AS role
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role)
\gexec
-- The attributes not named keep the defaults of CREATE ROLE, which are the least; naming them takes a superuser.
ALTER ROLE walletsvc_owner LOGIN PASSWORD :'owner_password';
ALTER ROLE walletsvc_app LOGIN PASSWORD :'app_password';

-- On a managed server the administrator is no superuser and has to join a role to give it a database.
SELECT 'GRANT walletsvc_owner TO CURRENT_USER'
 WHERE NOT pg_has_role('walletsvc_owner', 'SET')
\gexec
SELECT format('CREATE DATABASE %I', :'database')
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database')
\gexec
ALTER DATABASE :"database" OWNER TO walletsvc_owner;
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO walletsvc_app;

\connect :"database"
ALTER SCHEMA public OWNER TO walletsvc_owner;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO walletsvc_app;
