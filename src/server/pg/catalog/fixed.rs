//! The catalogs that say the same of every database, and those that are empty because nothing of their kind exists here.

use super::objects::{BTREE_OID, DEFAULT_COLLATION, HEAP_OID, OWNER_OID};
use super::server::DEFAULT_TABLESPACE;
use super::{
    Emit, INFORMATION_SCHEMA, INFORMATION_SCHEMA_OID, NONE, OWN_SCHEMA_OID, PG_CATALOG, PG_CATALOG_OID, Relation,
    Source, TEMPORARY_SCHEMA, TEMPORARY_SCHEMA_OID, columns, row, type_names,
};
use crate::server::pg::error::SqlError;

/// A relation without rows.
macro_rules! empty {
    ($name:literal, $($columns:tt)*) => {
        Relation { schema: PG_CATALOG, name: $name, columns: columns![$($columns)*], rows: nothing }
    };
}

pub(super) const RELATIONS: &[Relation] = &[
    Relation {
        schema: PG_CATALOG,
        name: "pg_namespace",
        columns: columns![oid: OID, nspname: NAME, nspowner: OID, nspacl: ACL_ARRAY],
        rows: namespace,
    },
    Relation {
        schema: PG_CATALOG,
        name: "pg_am",
        columns: columns![oid: OID, amname: NAME, amhandler: OID, amtype: CHAR],
        rows: access_method,
    },
    Relation {
        schema: PG_CATALOG,
        name: "pg_tablespace",
        columns: columns![oid: OID, spcname: NAME, spcowner: OID, spcacl: ACL_ARRAY, spcoptions: TEXT_ARRAY],
        rows: tablespace,
    },
    Relation {
        schema: PG_CATALOG,
        name: "pg_collation",
        columns: columns![
            oid: OID, collname: NAME, collnamespace: OID, collowner: OID, collprovider: CHAR, collisdeterministic: BOOL,
            collencoding: INT4, collcollate: TEXT, collctype: TEXT, colliculocale: TEXT, collversion: TEXT,
        ],
        rows: collation,
    },
    Relation {
        schema: PG_CATALOG,
        name: "pg_type",
        columns: columns![
            oid: OID, typname: NAME, typnamespace: OID, typowner: OID, typlen: INT2, typbyval: BOOL, typtype: CHAR,
            typcategory: CHAR, typispreferred: BOOL, typisdefined: BOOL, typdelim: CHAR, typrelid: OID, typsubscript: OID,
            typelem: OID, typarray: OID, typinput: OID, typoutput: OID, typreceive: OID, typsend: OID, typmodin: OID,
            typmodout: OID, typanalyze: OID, typalign: CHAR, typstorage: CHAR, typnotnull: BOOL, typbasetype: OID,
            typtypmod: INT4, typndims: INT4, typcollation: OID, typdefaultbin: TEXT, typdefault: TEXT, typacl: ACL_ARRAY,
        ],
        rows: types,
    },
    empty!("pg_aggregate", aggfnoid: OID, aggkind: CHAR, aggnumdirectargs: INT2),
    empty!("pg_auth_members", roleid: OID, member: OID, grantor: OID, admin_option: BOOL),
    empty!("pg_description", objoid: OID, classoid: OID, objsubid: INT4, description: TEXT),
    empty!("pg_shdescription", objoid: OID, classoid: OID, description: TEXT),
    empty!(
        "pg_depend",
        classid: OID, objid: OID, objsubid: INT4, refclassid: OID, refobjid: OID, refobjsubid: INT4, deptype: CHAR,
    ),
    empty!("pg_enum", oid: OID, enumtypid: OID, enumsortorder: FLOAT4, enumlabel: NAME),
    empty!(
        "pg_extension",
        oid: OID, extname: NAME, extowner: OID, extnamespace: OID, extrelocatable: BOOL, extversion: TEXT,
        extconfig: OID_ARRAY, extcondition: TEXT_ARRAY,
    ),
    empty!("pg_amop", oid: OID, amopfamily: OID, amoplefttype: OID, amoprighttype: OID, amopstrategy: INT2,
        amoppurpose: CHAR, amopopr: OID, amopmethod: OID, amopsortfamily: OID),
    empty!("pg_amproc", oid: OID, amprocfamily: OID, amproclefttype: OID, amprocrighttype: OID, amprocnum: INT2,
        amproc: REGPROC),
    empty!("pg_cast", oid: OID, castsource: OID, casttarget: OID, castfunc: OID, castcontext: CHAR, castmethod: CHAR),
    empty!("pg_conversion", oid: OID, conname: NAME, connamespace: OID, conowner: OID, conforencoding: INT4,
        contoencoding: INT4, conproc: REGPROC, condefault: BOOL),
    empty!("pg_db_role_setting", setdatabase: OID, setrole: OID, setconfig: TEXT_ARRAY),
    empty!("pg_default_acl", oid: OID, defaclrole: OID, defaclnamespace: OID, defaclobjtype: CHAR, defaclacl: ACL_ARRAY),
    empty!("pg_event_trigger", oid: OID, evtname: NAME, evtevent: NAME, evtowner: OID, evtfoid: OID, evtenabled: CHAR,
        evttags: TEXT_ARRAY),
    empty!("pg_foreign_data_wrapper", oid: OID, fdwname: NAME, fdwowner: OID, fdwhandler: OID, fdwvalidator: OID,
        fdwacl: ACL_ARRAY, fdwoptions: TEXT_ARRAY),
    empty!("pg_foreign_table", ftrelid: OID, ftserver: OID, ftoptions: TEXT_ARRAY),
    empty!("pg_foreign_server", oid: OID, srvname: NAME, srvowner: OID, srvfdw: OID, srvtype: TEXT, srvversion: TEXT,
        srvacl: ACL_ARRAY, srvoptions: TEXT_ARRAY),
    empty!("pg_inherits", inhrelid: OID, inhparent: OID, inhseqno: INT4, inhdetachpending: BOOL),
    empty!("pg_language", oid: OID, lanname: NAME, lanowner: OID, lanispl: BOOL, lanpltrusted: BOOL, lanplcallfoid: OID,
        laninline: OID, lanvalidator: OID, lanacl: ACL_ARRAY),
    empty!("pg_largeobject_metadata", oid: OID, lomowner: OID, lomacl: ACL_ARRAY),
    empty!("pg_opclass", oid: OID, opcmethod: OID, opcname: NAME, opcnamespace: OID, opcowner: OID, opcfamily: OID,
        opcintype: OID, opcdefault: BOOL, opckeytype: OID),
    empty!("pg_operator", oid: OID, oprname: NAME, oprnamespace: OID, oprowner: OID, oprkind: CHAR, oprcanmerge: BOOL,
        oprcanhash: BOOL, oprleft: OID, oprright: OID, oprresult: OID, oprcom: OID, oprnegate: OID, oprcode: REGPROC,
        oprrest: REGPROC, oprjoin: REGPROC),
    empty!("pg_opfamily", oid: OID, opfmethod: OID, opfname: NAME, opfnamespace: OID, opfowner: OID),
    empty!("pg_parameter_acl", oid: OID, parname: TEXT, paracl: ACL_ARRAY),
    empty!("pg_partitioned_table", partrelid: OID, partstrat: CHAR, partnatts: INT2, partdefid: OID, partattrs: INT2_VECTOR),
    empty!(
        "pg_policy",
        oid: OID, polname: NAME, polrelid: OID, polcmd: CHAR, polpermissive: BOOL, polroles: OID_ARRAY, polqual: TEXT,
        polwithcheck: TEXT,
    ),
    empty!(
        "pg_proc",
        oid: OID, proname: NAME, pronamespace: OID, proowner: OID, prolang: OID, prokind: CHAR, prosecdef: BOOL,
        proleakproof: BOOL, proisstrict: BOOL, proretset: BOOL, provolatile: CHAR, proparallel: CHAR, pronargs: INT2,
        prorettype: OID, proargtypes: OID_VECTOR, prosrc: TEXT, proacl: ACL_ARRAY,
    ),
    empty!(
        "pg_publication",
        oid: OID, pubname: NAME, pubowner: OID, puballtables: BOOL, pubinsert: BOOL, pubupdate: BOOL, pubdelete: BOOL,
        pubtruncate: BOOL, pubviaroot: BOOL,
    ),
    empty!("pg_publication_namespace", oid: OID, pnpubid: OID, pnnspid: OID),
    empty!("pg_publication_rel", oid: OID, prpubid: OID, prrelid: OID, prqual: TEXT, prattrs: INT2_VECTOR),
    empty!("pg_range", rngtypid: OID, rngsubtype: OID, rngmultitypid: OID, rngcollation: OID, rngsubopc: OID),
    empty!("pg_rewrite", oid: OID, rulename: NAME, ev_class: OID, ev_type: CHAR, ev_enabled: CHAR, is_instead: BOOL),
    empty!(
        "pg_sequence",
        seqrelid: OID, seqtypid: OID, seqstart: INT8, seqincrement: INT8, seqmax: INT8, seqmin: INT8, seqcache: INT8,
        seqcycle: BOOL,
    ),
    empty!(
        "pg_statistic_ext",
        oid: OID, stxrelid: OID, stxname: NAME, stxnamespace: OID, stxowner: OID, stxstattarget: INT4,
        stxkeys: INT2_VECTOR, stxkind: CHAR_ARRAY, stxexprs: TEXT,
    ),
    empty!("pg_subscription", oid: OID, subdbid: OID, subskiplsn: TEXT, subname: NAME, subowner: OID, subenabled: BOOL,
        subbinary: BOOL, substream: BOOL, subtwophasestate: CHAR, subdisableonerr: BOOL, subconninfo: TEXT,
        subslotname: NAME, subsynccommit: TEXT, subpublications: TEXT_ARRAY),
    empty!("pg_ts_config", oid: OID, cfgname: NAME, cfgnamespace: OID, cfgowner: OID, cfgparser: OID),
    empty!("pg_ts_dict", oid: OID, dictname: NAME, dictnamespace: OID, dictowner: OID, dicttemplate: OID,
        dictinitoption: TEXT),
    empty!("pg_ts_parser", oid: OID, prsname: NAME, prsnamespace: OID, prsstart: REGPROC, prstoken: REGPROC,
        prsend: REGPROC, prsheadline: REGPROC, prslextype: REGPROC),
    empty!("pg_ts_template", oid: OID, tmplname: NAME, tmplnamespace: OID, tmplinit: REGPROC, tmpllexize: REGPROC),
    empty!("pg_user_mappings", umid: OID, srvid: OID, srvname: NAME, umuser: OID, usename: NAME, umoptions: TEXT_ARRAY),
];

fn nothing(_: &dyn Source, _: &mut Emit<'_>) -> Result<(), SqlError> {
    Ok(())
}

fn namespace(source: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    for (oid, name) in [
        (PG_CATALOG_OID, PG_CATALOG),
        (OWN_SCHEMA_OID, source.schema_name()),
        (INFORMATION_SCHEMA_OID, INFORMATION_SCHEMA),
    ] {
        emit(row! { oid, name, OWNER_OID, NONE })?;
    }
    if source.schema()?.has_temporary() {
        emit(row! { TEMPORARY_SCHEMA_OID, TEMPORARY_SCHEMA, OWNER_OID, NONE })?;
    }
    Ok(())
}

fn access_method(_: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    emit(row! { HEAP_OID, "heap", 0u32, "t" })?;
    emit(row! { BTREE_OID, "btree", 0u32, "i" })
}

fn tablespace(_: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    emit(row! { DEFAULT_TABLESPACE, "pg_default", OWNER_OID, NONE, NONE })
}

fn collation(_: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    emit(row! {
        DEFAULT_COLLATION, "default", PG_CATALOG_OID, OWNER_OID, "d", true, -1i64, NONE, NONE, NONE, NONE,
    })
}

fn types(_: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    for known in type_names::TYPES {
        let element = type_names::TYPES.iter().find(|other| other.array == known.pg_type.0);
        let collation = if known.category == "S" { DEFAULT_COLLATION } else { 0 };
        emit(row! {
            known.pg_type.0, known.name, PG_CATALOG_OID, OWNER_OID, known.length, known.length > 0,
            if known.category == "X" { "p" } else { "b" }, known.category, false, true, ",", 0u32, 0u32,
            element.map_or(0, |element| element.pg_type.0), known.array, 0u32, 0u32, 0u32, 0u32, 0u32, 0u32, 0u32, "i",
            if known.length > 0 { "p" } else { "x" }, false, 0u32, -1i64, 0i64, collation, NONE, NONE, NONE,
        })?;
    }
    Ok(())
}
