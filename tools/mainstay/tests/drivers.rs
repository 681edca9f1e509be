//! Drivers and tools of other people, unmodified: pgbench making its own tables, SQLAlchemy, node-postgres, what a JDBC driver
//! sends, psql's commands.

mod support;

use std::process::Command;

use support::programs::{node_modules, program, python};
use support::raw::{Raw, message, sqlstate};
use support::{Running, piped, run};

fn node() -> (tempfile::TempDir, Running) {
    let directory = tempfile::tempdir().unwrap();
    let node = Running::start(&directory.path().join("data"), &[]);
    (directory, node)
}

#[test]
fn pgbench_makes_its_tables_and_runs_its_own_script_in_each_protocol() {
    let (_directory, node) = node();
    let output = run(program("pgbench", &node).args(["-i", "-s", "1", "postgres"]));
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(node.rows("SELECT count(*), sum(abalance) FROM pgbench_accounts"), [["100000", "0"]]);
    assert_eq!(node.sqlstate("INSERT INTO pgbench_accounts (aid) VALUES (77)"), "23505");
    // What is cleaned up before a run is accepted too.
    for protocol in ["simple", "extended", "prepared"] {
        let mut command = program("pgbench", &node);
        let output = run(command.args(["-M", protocol, "-c", "4", "-j", "2", "-t", "50", "postgres"]));
        assert_eq!(output.code, Some(0), "{protocol}: {output:?}");
        assert!(output.stdout.contains("actually processed: 200/200"), "{protocol}: {output:?}");
        assert_eq!(node.rows("SELECT count(*) FROM pgbench_history"), [["200"]], "truncated before each run");
        let sums = node.rows(
            "SELECT (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(tbalance) FROM pgbench_tellers),
                    (SELECT sum(abalance) FROM pgbench_accounts)",
        );
        assert!(sums[0][0] == sums[0][1] && sums[0][1] == sums[0][2], "{protocol}: {sums:?}");
    }
    // Again, over what is there.
    let output = run(program("pgbench", &node).args(["-i", "-I", "dtgvp", "-s", "1", "-q", "postgres"]));
    assert_eq!(output.code, Some(0), "{output:?}");
    let output = run(program("pgbench", &node).args(["-i", "-I", "f", "postgres"]));
    assert!(output.code == Some(1) && output.stderr.contains("cannot be added to a table"), "{output:?}");
}

#[test]
fn psql_times_repeats_and_copies() {
    let (directory, node) = node();
    let (rows, copied) = (directory.path().join("rows.csv"), directory.path().join("copied.csv"));
    let script = directory.path().join("script.sql");
    std::fs::write(&rows, "1,one\n2,\"two, too\"\n").unwrap();
    let commands = format!(
        "create table t (id int primary key, name text);\n\\copy t from '{}' csv\n\
         \\timing on\nselect count(*) as n from t \\gset\n\\timing off\n\\echo n is :n\n\
         create table limited (a int check (a < 4));\n\
         insert into limited select count(*) from limited returning 'inserted ' || a \\watch 0.01\n\
         select 'rows: ' || count(*) from limited;\n\
         \\copy (select * from t where id < 3 order by id desc) to '{}' csv header\n\
         select name from t where id = 2 \\gx\n",
        rows.display(),
        copied.display()
    );
    std::fs::write(&script, &commands).unwrap();
    let output = run(program("psql", &node).args(["--no-psqlrc", "-At", "-f"]).arg(&script));
    assert_eq!(output.code, Some(0), "{output:?}");
    // It is repeated until it fails.
    assert!(output.stderr.contains("violates check constraint") && output.stderr.lines().count() <= 2, "{output:?}");
    for part in [
        "COPY 2\nTiming is on.\nTime: ",
        "n is 2\n",
        "inserted 0\n",
        "inserted 3\n",
        "rows: 4\n",
        "COPY 2\nname|two, too\n",
    ] {
        assert!(output.stdout.contains(part), "{part}: {output:?}");
    }
    assert_eq!(std::fs::read_to_string(&copied).unwrap(), "id,name\n2,\"two, too\"\n1,one\n");
}

#[test]
fn sqlalchemy_creates_and_queries_a_model() {
    let (_directory, node) = node();
    python(
        &node,
        r#"
import datetime
from sqlalchemy import ForeignKey, String, create_engine, delete, event, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

class Base(DeclarativeBase):
    pass

class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(30), unique=True)
    age: Mapped[int | None]
    height: Mapped[float | None]
    active: Mapped[bool] = mapped_column(default=True)
    picture: Mapped[bytes | None]
    addresses: Mapped[list["Address"]] = relationship(back_populates="user", cascade="all, delete-orphan")

class Address(Base):
    __tablename__ = "addresses"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    user: Mapped[User] = relationship(back_populates="addresses")

parts = psycopg.conninfo.conninfo_to_dict(dsn)
engine = create_engine(
    f"postgresql+psycopg://postgres@{parts['host']}:{parts['port']}/postgres", use_native_hstore=False
)
Base.metadata.create_all(engine, checkfirst=False)
with Session(engine) as session:
    session.add_all([
        User(name="Ada", age=36, height=1.65, picture=b"\x00\xff", addresses=[Address(email="ada@example.org")]),
        User(name="Grace", age=85, active=False, addresses=[Address(email="g@example.org"), Address(email="h@example.org")]),
        User(name="größer %s"),
    ])
    session.commit()
    ada = session.scalars(select(User).where(User.name == "Ada")).one()
    assert (ada.id, ada.age, ada.height, ada.active, bytes(ada.picture)) == (1, 36, 1.65, True, b"\x00\xff"), vars(ada)
    assert [a.email for a in ada.addresses] == ["ada@example.org"]
    rows = session.execute(
        select(User.name, func.count(Address.id)).join(User.addresses, isouter=True).group_by(User.id).order_by(User.id)
    ).all()
    assert rows == [("Ada", 1), ("Grace", 2), ("größer %s", 0)], rows
    assert session.scalar(select(func.max(User.age))) == 85
    assert session.scalar(select(User.active).where(User.name == "Grace")) is False
    assert session.scalars(select(User.id).where(User.age.in_([36, 85]), User.name.ilike("a%"))).all() == [1]
    ada.age += 1
    session.execute(update(User).where(User.name == "Grace").values(age=User.age + 1))
    session.commit()
    assert session.scalars(select(User.age).order_by(User.id).limit(2)).all() == [37, 86]
    session.add(User(name="Ada"))
    try:
        session.commit()
    except IntegrityError as error:
        assert isinstance(error.orig, errors.UniqueViolation), error
        session.rollback()
    else:
        raise AssertionError("two of one name")
    with session.begin_nested():
        session.execute(delete(Address).where(Address.email == "h@example.org"))
    session.delete(ada)
    session.commit()
    assert session.scalar(select(func.count()).select_from(Address)) == 1
    # Many at once, and their keys in the order in which they were given.
    many = [User(name=f"user {n}", age=n) for n in range(2500)]
    session.add_all(many)
    session.commit()
    assert [user.age for user in session.scalars(select(User).where(User.name.like("user %")).order_by(User.id))] == list(range(2500))
    assert [user.id for user in many] == sorted(user.id for user in many)
with engine.connect() as connection:
    rows = connection.execution_options(stream_results=True, yield_per=100).execute(select(User.id).order_by(User.id))
    assert sum(1 for _ in rows) == 2502
Base.metadata.drop_all(engine, checkfirst=False)
"#,
    );
}

#[test]
fn sqlalchemy_leaves_the_time_to_the_server_and_casts() {
    let (_directory, node) = node();
    python(
        &node,
        r#"
import datetime, uuid
from sqlalchemy import Date, Integer, MetaData, Table, Column, DateTime, Uuid, String, cast, create_engine, func, select, text
parts = psycopg.conninfo.conninfo_to_dict(dsn)
engine = create_engine(
    f"postgresql+psycopg://postgres@{parts['host']}:{parts['port']}/postgres", use_native_hstore=False
)
metadata = MetaData()
events = Table(
    "events", metadata, Column("id", Integer, primary_key=True),
    Column("created", DateTime(timezone=True), server_default=func.now(), nullable=False),
    Column("local", DateTime, server_default=func.now(), onupdate=func.now()),
    Column("key", Uuid, server_default=func.gen_random_uuid()), Column("name", String),
)
metadata.create_all(engine, checkfirst=False)
before = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
with engine.begin() as connection:
    row = connection.execute(events.insert().values(name="5").returning(events.c.created, events.c.key)).one()
    assert before <= row.created <= before + datetime.timedelta(minutes=5), row
    assert isinstance(row.key, uuid.UUID), row
    connection.execute(events.insert().values(name="6", created=func.now()))
    connection.execute(events.update().where(events.c.name == "6").values(name="7"))
    days = connection.execute(select(cast(events.c.created, Date), func.count()).group_by(cast(events.c.created, Date))).all()
    assert sum(count for _, count in days) == 2 and all(type(day) is datetime.date for day, _ in days), days
    today = row.created.date()
    found = select(func.count()).where(cast(events.c.created, Date) >= cast(today, Date), events.c.created <= func.now())
    assert connection.scalar(found) == 2
    assert connection.scalar(select(func.sum(cast(events.c.name, Integer)))) == 12
    hour = connection.scalar(select(func.date_trunc("hour", events.c.created)).limit(1))
    assert hour == row.created.replace(minute=0, second=0), hour
    assert connection.scalar(text("select greatest(floor(2.5), 1.5)")) == 2
    assert connection.scalar(text("select count(*) from events where name <> current_user")) == 2
with psycopg.connect(dsn, application_name="first", autocommit=True) as connection:
    assert connection.execute("SHOW application_name").fetchone() == ("first",)
    connection.execute("SET application_name = 'second'")
    assert connection.info.parameter_status("application_name") == "second"
    names = connection.execute("SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()").fetchall()
    assert names == [("second",)], names
    assert int(connection.execute("SHOW max_connections").fetchone()[0]) > 0
    for statement, state in [("SELECT 'x'::int", "22P02"), ("SELECT '2026-02-30'::date", "22007"), ("LOCK events", "0A000")]:
        try:
            connection.execute(statement)
        except psycopg.Error as error:
            assert error.sqlstate == state, (statement, error)
        else:
            raise AssertionError(statement)
"#,
    );
    let found = node.rows("SELECT created, local, key, name FROM events ORDER BY id");
    assert_eq!(found.len(), 2);
}

#[test]
fn sqlalchemy_reflects_what_is_there() {
    let (_directory, node) = node();
    node.rows(
        "CREATE TABLE parent (id SERIAL PRIMARY KEY, name VARCHAR(30) NOT NULL UNIQUE, born DATE, price NUMERIC(10, 2) DEFAULT 5,
                              ok BOOLEAN DEFAULT true, at TIMESTAMP WITH TIME ZONE, u UUID);
         CREATE TABLE child (a INT NOT NULL, b TEXT NOT NULL, parent_id BIGINT REFERENCES parent (id) ON DELETE CASCADE,
                             PRIMARY KEY (b, a), CONSTRAINT positive CHECK (a > 0));
         CREATE INDEX child_parent ON child (parent_id, a);
         CREATE UNIQUE INDEX child_low ON child (lower(b)) WHERE a > 5;
         CREATE VIEW names AS SELECT name FROM parent",
    );
    python(
        &node,
        r#"
import warnings
from sqlalchemy import MetaData, create_engine, inspect, select
warnings.simplefilter("ignore")
engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))
found = inspect(engine)
assert found.get_schema_names() == ["information_schema", "main"], found.get_schema_names()
assert sorted(found.get_table_names()) == ["child", "parent"] and found.get_view_names() == ["names"]
assert found.has_table("child") and not found.has_table("nobody")
columns = {column["name"]: column for column in found.get_columns("parent")}
assert list(columns) == ["id", "name", "born", "price", "ok", "at", "u"], list(columns)
types = [str(column["type"]) for column in columns.values()]
assert types[0] == "BIGINT" and types[2:5] == ["DATE", "NUMERIC", "BOOLEAN"] and types[6] == "UUID", types
assert [name for name, column in columns.items() if not column["nullable"]] == ["id", "name"], columns
assert columns["price"]["default"] == "5" and columns["born"]["default"] is None, columns
assert [column["name"] for column in found.get_columns("names")] == ["name"]
assert found.get_pk_constraint("child")["constrained_columns"] == ["b", "a"], found.get_pk_constraint("child")
assert found.get_pk_constraint("parent")["constrained_columns"] == ["id"]
[key] = found.get_foreign_keys("child")
assert (key["constrained_columns"], key["referred_table"], key["referred_columns"]) == (["parent_id"], "parent", ["id"])
assert key["options"] == {"ondelete": "CASCADE"}, key
indexes = {index["name"]: index for index in found.get_indexes("child")}
assert set(indexes) == {"child_parent", "child_low"}, indexes
assert indexes["child_parent"]["column_names"] == ["parent_id", "a"] and not indexes["child_parent"]["unique"], indexes
low = indexes["child_low"]
assert low["unique"] and low["column_names"] == [None] and low["expressions"] == ["(lower(b))"], low
assert low["dialect_options"]["postgresql_where"] == "a > 5", low
[unique] = found.get_unique_constraints("parent")
assert unique["column_names"] == ["name"], unique
[check] = found.get_check_constraints("child")
assert (check["name"], check["sqltext"]) == ("positive", "a > 0"), check
assert found.get_table_comment("child") == {"text": None}
assert "SELECT name FROM parent" in found.get_view_definition("names")
metadata = MetaData()
metadata.reflect(engine)
parent, child = metadata.tables["parent"], metadata.tables["child"]
with engine.begin() as connection:
    connection.execute(parent.insert(), [{"name": "one"}, {"name": "two"}])
    connection.execute(child.insert(), [{"a": 1, "b": "x", "parent_id": 2}])
    rows = connection.execute(select(parent.c.name, parent.c.ok, child.c.b).join(child)).all()
    assert rows == [("two", True, "x")], rows
metadata.drop_all(engine, tables=[child])
assert not inspect(engine).has_table("child")
"#,
    );
}

#[test]
fn functions_of_many_rows_are_in_the_list_of_columns() {
    let (_directory, node) = node();
    node.rows("CREATE TABLE t (a INT, b TEXT, c INT, PRIMARY KEY (c, a)); CREATE INDEX i ON t (b)");
    for (sql, expected) in [
        ("SELECT unnest(indkey) FROM pg_index WHERE indexrelid = 'i'::regclass", "2"),
        (
            "SELECT relname, unnest(indkey) AS k, generate_subscripts(indkey, 1) AS s FROM pg_index \
             JOIN pg_class ON pg_class.oid = indexrelid WHERE indisprimary",
            "t_pkey|3|0,t_pkey|1|1",
        ),
        ("SELECT pg_catalog.generate_series(1, 3), unnest(ARRAY['a', 'b'])", "1|a,2|b,3|NULL"),
        (
            "SELECT array_agg(x.n ORDER BY x.n DESC), bool_and(x.n > 1), bool_or(x.n > 1) FROM \
             (SELECT generate_series(1, 3) AS n) AS x",
            "{3,2,1}|f|t",
        ),
        ("SELECT array_agg(relkind = 'r' ORDER BY relname) FROM pg_class WHERE relname IN ('i', 't')", "{f,t}"),
        (
            "SELECT y.t FROM (SELECT array_agg(x.t ORDER BY x.n) AS t FROM \
             (SELECT attnum AS n, attnum = 2 AS t FROM pg_attribute WHERE attrelid = 't'::regclass) AS x) AS y",
            "{f,t,f}",
        ),
        ("SELECT count(*) FROM (SELECT unnest('{}'::text[]) FROM pg_class) AS none", "0"),
    ] {
        let found: Vec<String> = node.rows(sql).into_iter().map(|row| row.join("|")).collect();
        assert_eq!(found.join(","), expected, "{sql}");
    }
}

#[test]
fn node_postgres_queries_prepares_and_pools() {
    let Some(modules) = node_modules() else {
        println!("SKIPPED: node, or its package pg, is not there: tools/bootstrap.sh test says why");
        return;
    };
    let (_directory, node) = node();
    let text = r#"
const { Client, Pool } = require('pg');
const assert = require('assert');
(async () => {
  const settings = { host: '127.0.0.1', port: PORT, user: 'postgres', database: 'postgres' };
  const client = new Client(settings);
  await client.connect();
  await client.query('CREATE TABLE t (id integer primary key, name text, f double precision, b bytea, done boolean)');
  const values = [1, "it's größer", 1.5, Buffer.from([0, 255]), true];
  const inserted = await client.query('INSERT INTO t VALUES ($1, $2, $3, $4, $5) RETURNING id', values);
  assert.strictEqual(inserted.rowCount, 1);
  // node-postgres gives 64-bit integers as text, so that none loses digits.
  assert.deepStrictEqual(inserted.rows, [{ id: '1' }]);
  const found = await client.query('SELECT * FROM t WHERE id = $1 AND name = $2', [1, "it's größer"]);
  assert.deepStrictEqual(found.rows, [{ id: '1', name: "it's größer", f: 1.5, b: Buffer.from([0, 255]), done: true }]);
  assert.strictEqual((await client.query('SELECT count(*) AS n, max(f) AS f FROM t')).rows[0].f, 1.5);
  const nothing = await client.query('INSERT INTO t VALUES (2, $1, $2, $3, $4) RETURNING *', [null, null, null, null]);
  assert.deepStrictEqual(nothing.rows[0], { id: '2', name: null, f: null, b: null, done: null });
  for (let n = 10; n < 15; n++) {
    await client.query({ name: 'insert', text: 'INSERT INTO t (id, name) VALUES ($1, $2)', values: [n, 'n' + n] });
  }
  await client.query('BEGIN');
  await assert.rejects(client.query('INSERT INTO t (id) VALUES (1)'), (error) => error.code === '23505');
  await assert.rejects(client.query('SELECT 1'), (error) => error.code === '25P02');
  await client.query('ROLLBACK');
  const several = await client.query('SELECT 1 AS a; SELECT 2 AS b');
  assert.deepStrictEqual(several.map((result) => Object.keys(result.rows[0])[0]), ['a', 'b']);
  await client.end();
  const pool = new Pool({ ...settings, max: 8 });
  await Promise.all([...Array(200).keys()].map((n) => pool.query('INSERT INTO t (id, name) VALUES ($1, $2)', [100 + n, 'pooled'])));
  assert.strictEqual((await pool.query("SELECT count(*) AS n FROM t WHERE name = 'pooled'")).rows[0].n, '200');
  await pool.end();
  console.log('done');
})().catch((error) => { console.error(error); process.exit(1); });
"#;
    let mut command = Command::new("node");
    piped(&mut command);
    command.args(["-e", &text.replace("PORT", &node.port())]).env("NODE_PATH", modules);
    let output = run(&mut command);
    assert!(output.code == Some(0) && output.stdout == "done\n", "{}\n{}", output.stdout, output.stderr);
}

/// A message of the extended protocol that runs a statement without parameters, fetching so many rows, as PostgreSQL's JDBC
/// driver sends it.
fn execute(sql: &str, rows: i32) -> Vec<u8> {
    [
        message(b'P', &[b"\0", sql.as_bytes(), b"\0\0\0"].concat()),
        message(b'B', b"\0\0\0\0\0\0\0\0"),
        message(b'D', b"P\0"),
        message(b'E', &[b"\0", &rows.to_be_bytes()[..]].concat()),
        message(b'S', b""),
    ]
    .concat()
}

#[test]
fn a_jdbc_drivers_first_words_are_answered() {
    let (_directory, node) = node();
    let mut raw = Raw::connect(&node.address);
    let mut body = 0x0003_0000_u32.to_be_bytes().to_vec();
    for (name, value) in [
        ("user", "postgres"),
        ("database", "postgres"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO"),
        ("TimeZone", "Europe/Berlin"),
        ("extra_float_digits", "2"),
        ("application_name", "a JDBC driver"),
    ] {
        body.extend([name, "\0", value, "\0"].concat().bytes());
    }
    body.push(0);
    raw.send(&[&(body.len() as u32 + 4).to_be_bytes()[..], &body].concat()).unwrap();
    let greeting = raw.until(b'Z');
    let told = |name: &str| greeting.iter().any(|(kind, body)| *kind == b'S' && body.starts_with(name.as_bytes()));
    for name in ["server_version", "client_encoding", "DateStyle", "integer_datetimes", "standard_conforming_strings"] {
        assert!(told(name), "{name} is not told");
    }
    for sql in [
        "SET extra_float_digits = 3",
        "SET application_name = 'PostgreSQL JDBC Driver'",
        "SELECT 1",
        "BEGIN",
        "SHOW TRANSACTION ISOLATION LEVEL",
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "COMMIT",
    ] {
        for rows in [1, 0] {
            raw.send(&execute(sql, rows)).unwrap();
            let messages = raw.until(b'Z');
            assert_eq!(messages.iter().filter_map(sqlstate).collect::<Vec<_>>(), Vec::<String>::new(), "{sql}");
        }
    }
}

#[test]
fn psycopg_gets_back_dates_times_uuids_json_and_decimals() {
    let (_directory, node) = node();
    python(
        &node,
        r#"
import datetime, decimal, uuid
from psycopg.types.json import Json
utc = datetime.timezone.utc
row = (
    datetime.date(2026, 11, 21), datetime.time(1, 2, 3, 450000), datetime.datetime(1999, 12, 31, 23, 59, 59, 999999),
    datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone(datetime.timedelta(hours=5, minutes=30))),
    uuid.UUID("00112233-4455-6677-8899-aabbccddeeff"), {"a": [1, None, "größer"]}, decimal.Decimal("-12345.50"),
)
with psycopg.connect(dsn, autocommit=True) as connection:
    connection.execute(
        "CREATE TABLE kinds (id int PRIMARY KEY, d date, t time, ts timestamp, tz timestamp with time zone, u uuid,"
        " j json, n numeric(12, 2))"
    )
    sent = row[:5] + (Json(row[5]), row[6])
    for key, placeholder in ((1, "%t"), (2, "%b"), (3, "%s")):
        places = ", ".join([placeholder] * 7)
        if placeholder == "%b":
            # psycopg has no binary form of its own for some of these.
            places = "%b, %b, %b, %b, %b, %b, %s"
        connection.execute(f"INSERT INTO kinds VALUES ({key}, {places})", sent)
    for binary in (False, True):
        cursor = connection.cursor(binary=binary)
        for key in (1, 2, 3):
            found = cursor.execute("SELECT d, t, ts, tz, u, j, n FROM kinds WHERE id = %s", [key]).fetchone()
            assert found == row and [type(v) for v in found] == [type(v) for v in row], (binary, key, found)
        assert cursor.execute("SELECT max(d), min(tz), count(u) FROM kinds").fetchone() == (row[0], row[3], 3)
        for column, position in (("d", 0), ("t", 1), ("ts", 2), ("u", 4)):
            sql = f"SELECT count(*) FROM kinds WHERE {column} = %s"
            assert cursor.execute(sql, [row[position]]).fetchone() == (3,), column
    # What SQLite's own functions store.
    connection.execute(
        "INSERT INTO kinds (id, d, t, ts, tz) VALUES (4, date('2026-01-01'), time('10:20'), datetime('2026-01-01'), CURRENT_TIMESTAMP)"
    )
    for binary in (False, True):
        found = connection.cursor(binary=binary).execute("SELECT d, t, ts, tz FROM kinds WHERE id = 4").fetchone()
        assert found[:3] == (datetime.date(2026, 1, 1), datetime.time(10, 20), datetime.datetime(2026, 1, 1)), found
        assert abs(found[3] - datetime.datetime.now(utc)) < datetime.timedelta(minutes=5), found
    # What is none can be read as text only.
    connection.execute("INSERT INTO kinds (id, d) VALUES (5, 'someday')")
    assert connection.execute("SELECT d || '' FROM kinds WHERE id = 5").fetchone() == ("someday",)
    try:
        connection.cursor(binary=True).execute("SELECT d FROM kinds WHERE id = 5")
    except errors.InvalidTextRepresentation as error:
        assert "date" in str(error), error
    else:
        raise AssertionError("someday has a binary form")
"#,
    );
}
