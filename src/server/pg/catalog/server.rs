//! The catalogs of the server: databases, roles, settings, and what its connections are doing.

use super::objects::OWNER_OID;
use super::{Emit, NONE, PG_CATALOG, Relation, Source, columns, row};
use crate::server::pg::activity::timestamp;
use crate::server::pg::error::SqlError;

/// PostgreSQL's number for UTF8.
const UTF8: i64 = 6;
/// The tablespace that everything is in, in `pg_tablespace`.
pub(super) const DEFAULT_TABLESPACE: u32 = 1663;

pub(super) const RELATIONS: &[Relation] = &[
    Relation {
        schema: PG_CATALOG,
        name: "pg_database",
        columns: columns![
            oid: OID, datname: NAME, datdba: OID, encoding: INT4, datlocprovider: CHAR, datistemplate: BOOL,
            datallowconn: BOOL, datconnlimit: INT4, datfrozenxid: INT8, datminmxid: INT8, dattablespace: OID,
            datcollate: TEXT, datctype: TEXT, daticulocale: TEXT, datcollversion: TEXT, datacl: ACL_ARRAY,
        ],
        rows: database,
    },
    Relation {
        schema: PG_CATALOG,
        name: "pg_roles",
        columns: columns![
            rolname: NAME, rolsuper: BOOL, rolinherit: BOOL, rolcreaterole: BOOL, rolcreatedb: BOOL, rolcanlogin: BOOL,
            rolreplication: BOOL, rolconnlimit: INT4, rolpassword: TEXT, rolvaliduntil: TIMESTAMPTZ, rolbypassrls: BOOL,
            rolconfig: TEXT_ARRAY, oid: OID,
        ],
        rows: roles,
    },
    Relation {
        schema: PG_CATALOG,
        name: "pg_user",
        columns: columns![
            usename: NAME, usesysid: OID, usecreatedb: BOOL, usesuper: BOOL, userepl: BOOL, usebypassrls: BOOL,
            passwd: TEXT, valuntil: TIMESTAMPTZ, useconfig: TEXT_ARRAY,
        ],
        rows: users,
    },
    Relation {
        schema: PG_CATALOG,
        name: "pg_settings",
        columns: columns![
            name: TEXT, setting: TEXT, unit: TEXT, category: TEXT, short_desc: TEXT, extra_desc: TEXT, context: TEXT,
            vartype: TEXT, source: TEXT, min_val: TEXT, max_val: TEXT, enumvals: TEXT_ARRAY, boot_val: TEXT,
            reset_val: TEXT, sourcefile: TEXT, sourceline: INT4, pending_restart: BOOL,
        ],
        rows: settings,
    },
    Relation {
        schema: PG_CATALOG,
        name: "pg_stat_activity",
        columns: columns![
            datid: OID, datname: NAME, pid: INT4, leader_pid: INT4, usesysid: OID, usename: NAME,
            application_name: TEXT, client_addr: INET, client_hostname: TEXT, client_port: INT4,
            backend_start: TIMESTAMPTZ, xact_start: TIMESTAMPTZ, query_start: TIMESTAMPTZ, state_change: TIMESTAMPTZ,
            wait_event_type: TEXT, wait_event: TEXT, state: TEXT, backend_xid: INT8, backend_xmin: INT8, query_id: INT8,
            query: TEXT, backend_type: TEXT,
        ],
        rows: activity,
    },
];

fn database(source: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    for database in source.databases()? {
        emit(row! {
            database.oid, database.name, OWNER_OID, UTF8, "c", false, true, -1i64, 0i64, 0i64, DEFAULT_TABLESPACE, "C",
            "C", NONE, NONE, NONE,
        })?;
    }
    Ok(())
}

fn roles(source: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    for role in source.roles().iter() {
        let (all, can_login) = (role.superuser, role.can_login);
        emit(
            row! { role.name.as_str(), all, true, all, all, can_login, all, -1i64, "********", NONE, all, NONE, role.oid },
        )?;
    }
    Ok(())
}

fn users(source: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    for role in source.roles().iter().filter(|role| role.can_login) {
        let all = role.superuser;
        emit(row! { role.name.as_str(), role.oid, all, all, all, all, "********", NONE, NONE })?;
    }
    Ok(())
}

fn settings(source: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    for setting in source.settings() {
        let context = if setting.settable { "user" } else { "internal" };
        emit(row! {
            setting.name, setting.value.as_str(), NONE, "", setting.meaning, NONE, context, "string", "default", NONE,
            NONE, NONE, NONE, setting.value.as_str(), NONE, NONE, false,
        })?;
    }
    Ok(())
}

fn activity(source: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    let (databases, roles) = (source.databases()?, source.roles());
    for seen in source.activity() {
        let database = databases.iter().find(|database| database.name == seen.database).map(|database| database.oid);
        let role = roles.iter().find(|role| role.name == seen.user).map(|role| role.oid);
        emit(row! {
            database, seen.database, i64::from(seen.process_id), NONE, role, seen.user, seen.application_name,
            seen.address.map(|address| address.ip().to_string()), NONE,
            seen.address.map(|address| i64::from(address.port())), timestamp(seen.since),
            seen.transaction_since.map(timestamp), seen.query_since.map(timestamp), timestamp(seen.state_since),
            seen.wait.map(|(kind, _)| kind), seen.wait.map(|(_, event)| event), seen.state, NONE, NONE, NONE, seen.query,
            "client backend",
        })?;
    }
    Ok(())
}
