use std::collections::HashSet;

use super::model::{Constraint, Database, Demand, Index, IndexKey, Role, Setting, Table, TableColumn, Trigger};
use super::*;

/// A database with one of everything.
struct Everything;

impl Source for Everything {
    fn schema(&self) -> Result<Arc<Schema>, SqlError> {
        let column = |name: &str, generated| TableColumn {
            name: name.into(),
            pg_type: PgType::TEXT,
            not_null: true,
            default: Some("1".into()),
            generated,
        };
        let key = |column, expression: &str| IndexKey { column, expression: expression.into(), descending: true };
        let demand = |oid, demand| Constraint { oid, name: format!("c{oid}"), table: 1, demand };
        let references = Demand::References {
            columns: vec!["A b".into()],
            target: "t".into(),
            target_oid: Some(1),
            target_columns: vec!["g".into()],
            on_update: "NO ACTION".into(),
            on_delete: "SET NULL".into(),
        };
        Ok(Arc::new(Schema {
            tables: vec![
                Table {
                    oid: 1,
                    name: "t".into(),
                    temporary: false,
                    view: None,
                    columns: vec![column("A b", false), column("g", true)],
                },
                Table {
                    oid: 2,
                    name: "v".into(),
                    temporary: true,
                    view: Some("SELECT 1".into()),
                    columns: vec![column("x", false)],
                },
            ],
            indexes: vec![Index {
                oid: 3,
                name: "i".into(),
                table: 1,
                keys: vec![key(Some(1), "A b"), key(None, "(g || 'x')")],
                unique: true,
                primary: true,
                predicate: Some("g > 1".into()),
            }],
            constraints: vec![
                demand(1, Demand::Primary { index: 3 }),
                demand(2, Demand::Unique { index: 3 }),
                demand(3, references),
                demand(4, Demand::Check { expression: "g > 0".into() }),
            ],
            triggers: vec![Trigger { oid: 4, name: "x".into(), table: 1, definition: "CREATE TRIGGER".into() }],
        }))
    }

    fn schema_name(&self) -> &str {
        "main"
    }

    fn database(&self) -> &str {
        "d"
    }

    fn databases(&self) -> Result<Vec<Database>, SqlError> {
        Ok(vec![Database { oid: 5, name: "d".into(), size_bytes: None }])
    }

    fn roles(&self) -> Arc<[Role]> {
        Arc::new([Role { oid: 10, name: "r".into(), superuser: true, can_login: true }])
    }

    fn settings(&self) -> Vec<Setting> {
        vec![Setting { name: "s".into(), value: "1".into(), meaning: "m".into(), settable: true }]
    }

    fn activity(&self) -> Vec<Seen> {
        vec![Seen {
            process_id: 1,
            user: "r".into(),
            database: "d".into(),
            application_name: String::new(),
            address: None,
            since: std::time::UNIX_EPOCH,
            transaction_since: None,
            query_since: None,
            state_since: std::time::UNIX_EPOCH,
            state: "idle",
            wait: None,
            query: String::new(),
        }]
    }
}

fn rows(name: &str) -> Vec<Vec<OwnedValue>> {
    let mut rows = Vec::new();
    let relation = find(None, name).unwrap();
    relation
        .rows(&Everything, &mut |row| {
            rows.push(row);
            Ok(())
        })
        .unwrap();
    rows
}

#[test]
fn every_row_has_a_value_of_the_right_kind_for_each_column() {
    let mut filled = HashSet::new();
    for relation in relations() {
        let check = |row: Vec<OwnedValue>| {
            assert_eq!(row.len(), relation.columns.len(), "{}", relation.name);
            for ((column, pg_type), value) in relation.columns.iter().zip(row) {
                let number = matches!(pg_type.0, 16 | 20 | 21 | 23 | 26);
                let fits = match value {
                    OwnedValue::Null => true,
                    OwnedValue::Integer(_) => number || *pg_type == PgType::FLOAT4,
                    OwnedValue::Text(_) => !number,
                    OwnedValue::Real(_) | OwnedValue::Blob(_) => false,
                };
                assert!(fits, "{}.{column}: {value:?}", relation.name);
            }
            filled.insert(relation.name);
            Ok(())
        };
        let mut check = check;
        relation.rows(&Everything, &mut check).unwrap();
    }
    for name in ["pg_class", "pg_constraint", "pg_trigger", "pg_stat_activity", "key_column_usage", "views"] {
        assert!(filled.contains(name), "{name}");
    }
}

#[test]
fn every_object_and_name_is_there_once() {
    let mut names = HashSet::new();
    for relation in relations() {
        assert!(names.insert((relation.schema, relation.name)), "{}", relation.name);
        let columns: HashSet<_> = relation.columns.iter().map(|(name, _)| name).collect();
        assert_eq!(columns.len(), relation.columns.len(), "{}", relation.name);
        assert!(std::ptr::eq(find(Some(relation.schema), &relation.name.to_uppercase()).unwrap(), relation));
    }
    let oids: HashSet<String> = rows("pg_class").iter().map(|row| format!("{:?}", row[0])).collect();
    assert_eq!(oids.len(), rows("pg_class").len());
    assert!(find(None, "tables").is_none());
    let types: HashSet<u32> = type_names::TYPES.iter().map(|known| known.pg_type.0).collect();
    assert_eq!(types.len(), type_names::TYPES.len());
}

#[test]
fn definitions_are_the_sql_that_would_make_the_object() {
    let schema = Everything.schema().unwrap();
    assert_eq!(
        definition::index(&schema, "main", 3, 0).unwrap(),
        "CREATE UNIQUE INDEX i ON main.t USING btree (\"A b\" DESC, (g || 'x') DESC) WHERE g > 1"
    );
    assert_eq!(definition::index(&schema, "main", 3, 2).unwrap(), "(g || 'x')");
    let constraints: Vec<_> = (1..=5).map(|oid| definition::constraint(&schema, oid)).collect();
    let expected = [
        Some("PRIMARY KEY (\"A b\", (g || 'x'))"),
        Some("UNIQUE (\"A b\", (g || 'x'))"),
        Some("FOREIGN KEY (\"A b\") REFERENCES t(g) ON DELETE SET NULL"),
        Some("CHECK (g > 0)"),
        None,
    ];
    assert_eq!(constraints.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
}

#[test]
fn types_are_found_by_their_names() {
    for (name, oid) in [("int", 23), ("INTEGER", 23), ("varchar", 1043), ("character varying", 1043), ("_text", 1009)] {
        assert_eq!(type_names::named(name).map(|known| known.pg_type.0), Some(oid), "{name}");
    }
    assert_eq!(type_names::format_type(20), "bigint");
    assert_eq!(type_names::format_type(999_999), "???");
}
