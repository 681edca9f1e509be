//! Parameters whose types the client does not say, and results that are computed: drivers get from Mainstay the rows that they
//! get from PostgreSQL. Every expectation here is what PostgreSQL 15 answered to the same driver.

mod support;

use std::process::Command;

use support::programs::{node_modules, python};
use support::{Running, connect, piped, run, runtime};
use tokio_postgres::types::{ToSql, Type};

const TABLE: &str = "CREATE TABLE nd (id int PRIMARY KEY, i int, n numeric, r double precision, b boolean, t text, d date, at timestamp);
     INSERT INTO nd VALUES (1, 1, 1, 1.5, true, 'one', '2026-01-01', '2026-01-01 10:00:00'),
                           (2, 3, 2.5, 2, false, 'two', '2026-01-02', '2026-01-02 10:00:00'),
                           (3, 4, 10, 0.5, true, 'three', '2026-01-03', '2026-01-03 10:00:00'),
                           (4, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
     CREATE VIEW totals AS SELECT count(*) AS c, sum(i) AS s, max(n) AS m, min(d) AS d, count(*) > 3 AS many FROM nd";

fn node() -> (tempfile::TempDir, Running) {
    let directory = tempfile::tempdir().unwrap();
    let node = Running::start(&directory.path().join("data"), &[]);
    node.rows(TABLE);
    (directory, node)
}

/// node-postgres sends every parameter as text of no type.
#[test]
fn node_postgres_finds_what_it_looks_for() {
    let Some(modules) = node_modules() else {
        println!("SKIPPED: node, or its package pg, is not there: tools/bootstrap.sh test says why");
        return;
    };
    let (_directory, node) = node();
    let text = r#"
const { Client } = require('pg');
const assert = require('assert');
const at = (day, hour) => new Date(Date.UTC(2026, 0, day, hour));
const cases = [
  ['select id from nd where length(t) = $1', [3], '1 2'],
  ['select id from nd where $1 < length(t)', [3], '3'],
  ['select b from nd group by b having count(*) >= $1', [2], 'true'],
  ['select b from nd group by b having sum(i) >= $1 and min(n) < $2', [5, 1.5], 'true'],
  ['select id from nd where i % 3 = $1', [1], '1 3'],
  ['select id from nd where i + 1 = $1', [4], '2'],
  ['select id from nd where i + $1 = $2', [1, 4], '2'],
  ['select id from nd where coalesce(i, 0) = $1', [0], '4'],
  ['select id from nd where coalesce(i, $1) = $2', [7, 7], '4'],
  ['select id from nd where (select max(i) from nd) = $1 and id = $2', [4, 1], '1'],
  ['select id from (select id, row_number() over (order by id desc) as rn from nd) as q where rn = $1', [2], '3'],
  ['select id from nd where at between $1 and $2', [at(1, 12), at(2, 12)], '2'],
  ['select id from nd where at > $1', [at(2, 0)], '2 3'],
  ['select id from nd where d in ($1, $2)', ['2026-01-01', '2026-01-03'], '1 3'],
  ['select id from nd where b in ($1)', [true], '1 3'],
  ['select id from nd where not b = $1', [true], '2'],
  ['select id from nd where i > 3 or $1', [false], '3'],
  ['select id from nd where (i > 2) = $1', [false], '1'],
  ['select id from nd where i in ($1, $2)', [1, 4], '1 3'],
  ['select id from nd where i not in ($1, $2)', [1, 4], '2'],
  ['select id from nd where i between $1 and $2', [2, 10], '2 3'],
  ['select id from nd where i is distinct from $1', [3], '1 3 4'],
  ['select id from nd where i is not distinct from $1', [null], '4'],
  ['select id from nd where (i, t) = ($1, $2)', [3, 'two'], '2'],
  ['select id from nd where n * 2 > $1', [3.5], '2 3'],
  ['select id from nd where -n < $1', [-5], '3'],
  ['select id from nd where abs(n) = $1', ['10.0'], '3'],
  ['select id from nd where r * 2 >= $1', [3], '1 2'],
  ['select id from nd where case when b then i else $1 end = $2', [3, 3], '2 4'],
  ['select id from nd where case i when $1 then 1 else 0 end = 1', [4], '3'],
  ['select id from nd where nullif(i, $1) is null', [1], '1 4'],
  ['select id from nd as o where exists (select 1 from nd where nd.id = o.id and o.i + nd.i = $1)', [8], '3'],
  ['select id from nd where i in (select u.i from nd as u where u.i * u.i > $1)', [8], '2 3'],
  ['select id from nd where id in (select $1 union select $2 + 1)', [1, 2], '1 3'],
  ['with recursive s (k) as (select 1 union all select k + 1 from s where k < $1) select count(*) from s', [5], '5'],
  ['with w as (select i * 2 as x, id from nd) select id from w where x = $1', [6], '2'],
  ['select id from nd left join (select 3 as k) as u on nd.i = k + $1 where k = $2', [1, 3], '3'],
  ['select id from nd order by id limit $1 offset $2', [1, 2], '3'],
  ['select c from totals where c >= $1 and s > $2', [4, 7], '4'],
  ['select substr(t, $1, $2) from nd where id = 3', [2, 3], 'hre'],
  ['update nd set b = coalesce($1, b) where id = 1 returning b', [false], 'false'],
  ['update nd set i = i + $1 where i - $2 = 0 returning i', [10, 4], '14'],
  ['update nd set (i, t) = ($1, $2) where id = 4 returning i', [9, 'four'], '9'],
  ['insert into nd (id, b) select $1, $2 returning b', [5, true], 'true'],
  ['select id from nd where b and id = $1', [5], '5'],
  ['insert into nd (id, n) values ($1, $2) on conflict (id) do update set i = excluded.id + $3 returning i',
   [5, 1, 2], '7'],
  ['insert into nd (id) values ($1) returning id > 5 as great', [6], 'true'],
  ['update nd set n = n + 1 where id = $1 returning n > 2 as great', [1], 'false'],
  ['delete from nd where id in ($1, $2) returning id = 5 as five', [5, 7], 'true'],
];
(async () => {
  const client = new Client({ host: '127.0.0.1', port: PORT, user: 'postgres', database: 'postgres' });
  await client.connect();
  for (const [text, values, expected] of cases) {
    try {
      const { rows } = await client.query({ text, values, rowMode: 'array' });
      assert.strictEqual(rows.map((row) => String(row[0])).sort().join(' '), expected);
    } catch (error) {
      throw new Error(text + ': ' + error.message);
    }
  }
  // Numbers are numbers to PostgreSQL, and so they are here.
  for (const [text, value] of [['select id from nd where length(t) = $1', 'x'], ['select id from nd where b in ($1)', 2.5]]) {
    await assert.rejects(client.query(text, [value]), (error) => error.code === '22P02', text);
  }
  await client.end();
  console.log('done');
})().catch((error) => { console.error(error); process.exit(1); });
"#;
    let mut command = Command::new("node");
    piped(&mut command);
    command.args(["-e", &text.replace("PORT", &node.port())]).env("NODE_PATH", modules).env("TZ", "UTC");
    let output = run(&mut command);
    assert!(output.code == Some(0) && output.stdout == "done\n", "{}\n{}", output.stdout, output.stderr);
}

/// psycopg sends Decimal as `numeric`, and str as text of no type.
#[test]
fn psycopg_counts_with_decimals_and_gets_the_types_of_what_is_computed() {
    let (_directory, node) = node();
    python(
        &node,
        r#"
import datetime
from decimal import Decimal
def found(connection, sql, parameters, binary=False):
    return connection.cursor(binary=binary).execute(sql, parameters).fetchall()
with psycopg.connect(dsn, autocommit=True) as connection:
    for mark in ("%s", "%t", "%b"):
        for sql, parameters, expected in (
            ("SELECT id FROM nd WHERE n * 2 > {} ORDER BY id", [Decimal("3.5")], [(2,), (3,)]),
            ("SELECT id FROM nd WHERE n = {}", [Decimal("2.50")], [(2,)]),
            ("SELECT id FROM nd WHERE i + 0 = {}", [Decimal("3.0")], [(2,)]),
            ("SELECT b FROM nd GROUP BY b HAVING sum(n) > {} ORDER BY b", [Decimal("3")], [(True,)]),
            ("SELECT {} > 2", [Decimal("1.5")], [(False,)]),
            ("SELECT id FROM nd WHERE r < {}", [Decimal("1e-3") + 1], [(3,)]),
        ):
            assert found(connection, sql.format(mark), parameters) == expected, (mark, sql)
    for sql, parameters, expected in (
        ("SELECT id FROM nd WHERE length(t) = %s ORDER BY id", ["3"], [(1,), (2,)]),
        ("SELECT id FROM nd WHERE i BETWEEN %s AND %s", ["2", "3"], [(2,)]),
        ("SELECT id FROM nd WHERE d > %s::date AND coalesce(b, %s)", ["2026-01-02", "f"], [(3,)]),
    ):
        assert found(connection, sql, parameters) == expected, sql
    for binary in (False, True):
        for sql, expected in (
            ("sum(n)", Decimal("13.5")), ("max(n) * 2", Decimal(20)), ("max(n) / 4.0", 2.5), ("abs(max(n))", Decimal(10)),
            ("-max(n)", Decimal(-10)), ("coalesce(max(n), 0)", Decimal(10)), ("CAST(max(i) AS numeric)", Decimal(4)),
            ("CASE WHEN count(*) > 1 THEN max(n) ELSE 0 END", Decimal(10)), ("max(r) * max(n)", 20.0), ("~max(i)", -5),
            ("max(i) << 1", 8), ("max(i) >= 4", True), ("max(d)", datetime.date(2026, 1, 3)), ("date(max(at))", datetime.date(2026, 1, 3)),
            ("coalesce(max(r), 0)", 2.0), ("max(i) IS DISTINCT FROM 4", False),
        ):
            [[value]] = found(connection, f"SELECT {sql} FROM nd", [], binary)
            assert (value, type(value)) == (expected, type(expected)), (binary, sql, value)
        [(now, today)] = found(connection, "SELECT current_timestamp, current_date", [], binary)
        assert abs(now - datetime.datetime.now(datetime.timezone.utc)) < datetime.timedelta(minutes=5), now
        assert abs(today - now.date()) < datetime.timedelta(days=2), today
        rows = found(connection, "SELECT c, s, m, d, many, c + 1 FROM totals", [], binary)
        assert rows == [(4, 8, Decimal(10), datetime.date(2026, 1, 1), True, 5)], rows
        for sql, expected in (
            ("INSERT INTO nd (id, i, n) VALUES (10, 5, 1.5) RETURNING i > 0 AS pos, n * 2, id, i + 1, t", (True, Decimal(3), 10, 6, None)),
            ("UPDATE nd SET i = 6 WHERE id = 10 RETURNING nd.i - 1, coalesce(b, false)", (5, False)),
            ("WITH w AS (SELECT 10 AS k) DELETE FROM nd WHERE id IN (SELECT k FROM w) RETURNING id = 10, n + 1", (True, Decimal("2.5"))),
        ):
            [row] = found(connection, sql, [], binary)
            assert row == expected and [type(v) for v in row] == [type(v) for v in expected], (sql, row)
"#,
    );
}

#[test]
fn sqlalchemy_sums_decimals() {
    let (_directory, node) = node();
    python(
        &node,
        r#"
import warnings
from decimal import Decimal
from sqlalchemy import Boolean, Column, Integer, MetaData, Numeric, Table, create_engine, func, select
warnings.simplefilter("error")
engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))
nd = Table("nd", MetaData(), Column("id", Integer, primary_key=True), Column("n", Numeric), Column("b", Boolean))
with engine.connect() as connection:
    row = connection.execute(select(func.sum(nd.c.n), func.max(nd.c.n * 2), func.coalesce(func.min(nd.c.n), 0))).one()
    assert tuple(row) == (Decimal("13.5"), Decimal(20), Decimal(1)) and all(type(value) is Decimal for value in row), row
    rows = connection.execute(select(nd.c.id).where(nd.c.n * 2 > Decimal("3.5"), nd.c.b.in_([True]))).all()
    assert rows == [(3,)], rows
"#,
    );
}

/// A statement, the types of its parameters, their values, and the first column of what it returns.
type Case<'a> = (&'a str, Vec<&'a Type>, Vec<&'a (dyn ToSql + Sync)>, Vec<i64>);

/// tokio-postgres encodes parameters by the types that it is told, and refuses to encode what does not fit them.
#[test]
fn tokio_postgres_is_told_the_types_of_what_parameters_stand_beside() {
    let (_directory, node) = node();
    runtime().block_on(async {
        let client = connect(&node.address).await;
        let (int, real, text, truth) = (Type::INT8, Type::FLOAT8, Type::TEXT, Type::BOOL);
        let (three, four, ten): (&(dyn ToSql + Sync), &(dyn ToSql + Sync), &(dyn ToSql + Sync)) =
            (&3_i64, &4_i64, &10_i64);
        let cases: Vec<Case<'_>> = vec![
            ("SELECT id FROM nd WHERE i IN ($1, $2) ORDER BY id", vec![&int, &int], vec![three, four], vec![2, 3]),
            ("SELECT id FROM nd WHERE i BETWEEN $1 AND $2 ORDER BY id", vec![&int, &int], vec![three, ten], vec![2, 3]),
            ("SELECT id FROM nd WHERE i IS DISTINCT FROM $1 AND i > 0 ORDER BY id", vec![&int], vec![four], vec![1, 2]),
            ("SELECT id FROM nd WHERE rowid = $1", vec![&int], vec![three], vec![3]),
            (
                "SELECT id FROM nd WHERE r / 2 < $1 AND (i > 1) = $2",
                vec![&real, &truth],
                vec![&0.5_f64, &true],
                vec![3],
            ),
            ("SELECT id FROM nd WHERE (i, t) = ($1, $2)", vec![&int, &text], vec![three, &"two"], vec![2]),
            ("UPDATE nd SET i = i + $1 WHERE id = $2 RETURNING i", vec![&int, &int], vec![ten, three], vec![14]),
            (
                "UPDATE nd SET (i, r) = ($1, $2) WHERE id = 3 RETURNING i",
                vec![&int, &real],
                vec![four, &1.0_f64],
                vec![4],
            ),
            ("INSERT INTO nd (id, b) SELECT $1, $2 RETURNING id", vec![&int, &truth], vec![ten, &false], vec![10]),
        ];
        for (sql, types, values, expected) in cases {
            let statement = client.prepare(sql).await.unwrap();
            assert_eq!(statement.params().iter().collect::<Vec<_>>(), types, "{sql}");
            let rows = client.query(&statement, &values).await.unwrap();
            assert_eq!(rows.iter().map(|row| row.get::<_, i64>(0)).collect::<Vec<_>>(), expected, "{sql}");
        }
        // As many as SQLite takes are taken.
        let many: Vec<String> = (1..=33_000).map(|number| format!("${number}")).collect();
        let refused = client.prepare(&format!("SELECT 1 WHERE 1 IN ({})", many.join(", "))).await.err().unwrap();
        assert_eq!(refused.code().map(|code| code.code()), Some("54000"), "{refused:?}");
    });
}
