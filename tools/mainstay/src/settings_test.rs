//! Tests of the settings.

use std::collections::BTreeMap;

use super::*;

/// Gathers from flags, variables and the text of a file.
fn gathered(flags: &[(&str, &str)], variables: &[(&str, &str)], file: Option<&str>) -> Result<Settings, Vec<Problem>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node.toml");
    std::fs::write(&path, file.unwrap_or_default()).unwrap();
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    gather(&Sources {
        flags: flags.iter().map(|(key, value)| (Setting::find(key).unwrap(), (*value).to_owned())).collect(),
        variable: &|name| variables.get(name).map(OsString::from),
        file: file.is_some().then_some(path.as_path()),
    })
}

/// The problems without the name of the directory.
fn problems(result: Result<Settings, Vec<Problem>>) -> Vec<String> {
    let texts = result.unwrap_err().into_iter().map(|problem| problem.to_string());
    texts
        .map(|text| text.split_once("node.toml").map_or(text.clone(), |(_, rest)| format!("node.toml{rest}")))
        .collect()
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let file = Some("[wal]\nkeep_bytes = 1\nreserve_bytes = 1\nmax_unsynced_bytes = 100_000\n");
    let variables = [("MAINSTAY_WAL_KEEP_BYTES", "2"), ("MAINSTAY_WAL_RESERVE_BYTES", "2")];
    let settings = gathered(&[("wal.keep_bytes", "3")], &variables, file).unwrap();
    let found = (settings.wal.keep_bytes, settings.wal.reserve_bytes, settings.wal.max_unsynced_bytes);
    assert_eq!(found, (3, 2, 100_000));
    assert_eq!(settings.wal.segment_size_bytes, WalConfig::default().segment_size_bytes);
}

#[test]
fn all_problems_of_all_sources_are_reported_at_once() {
    let file = "data_dir = 7\ncolour = 1\n[wal]\nsegment_size_bytes = 3\nkeep = 1\n\n[sql]\nlisten = \"0.0.0.0\"\n[nope]\na=1\n";
    let found = problems(gathered(
        &[("checkpoint.interval_s", "soon"), ("log.format", "xml")],
        &[("MAINSTAY_SQL_CONNECTION_LIMIT", "0")],
        Some(file),
    ));
    let expected = [
        "node.toml:1: data_dir: 7 is a number; must be text",
        "node.toml:2: colour: no such setting",
        "node.toml:4: wal.segment_size_bytes: 3B is not a power of two from 1MiB to 1GiB",
        "node.toml:5: wal.keep: no such setting",
        "node.toml:8: sql.listen: \"0.0.0.0\" is not an ADDRESS:PORT such as 127.0.0.1:5440",
        "node.toml:9: nope: no such section",
        "MAINSTAY_SQL_CONNECTION_LIMIT: 0 is not from 1 to 10000",
        "--checkpoint-interval-s: \"soon\" is not a whole number of seconds, or with s, min, h, d",
        "--log-format: \"xml\" is not text or json",
    ];
    assert_eq!(found, expected);
}

#[test]
fn syntax_errors_name_their_line_and_other_types_are_refused() {
    assert!(problems(gathered(&[], &[], Some("\n\n[wal\n")))[0].starts_with("node.toml:3: not TOML: "));
    assert!(problems(gathered(&[], &[], Some("data_dir = \"a\"\ndata_dir = \"b\"\n")))[0].starts_with("node.toml:2: "));
    let found = problems(gathered(&[], &[], Some("sql = 3\n[log]\nlevel = true\n")));
    let expected = [
        "node.toml:1: sql: is a section, not a setting",
        "node.toml:3: log.level: is of type boolean; must be a number or text",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem() {
    let directory = tempfile::tempdir().unwrap();
    let missing = check_file(&directory.path().join("node.toml")).unwrap_err();
    assert!(missing[0].to_string().contains("cannot be read"), "{}", missing[0]);
    let huge = directory.path().join("huge.toml");
    std::fs::write(&huge, "#".repeat((1 << 20) + 1)).unwrap();
    assert!(check_file(&huge).unwrap_err()[0].to_string().contains("larger than"));
}

#[test]
fn sizes_and_times_take_units() {
    let setting = |key: &str, value: &str| gathered(&[(key, value)], &[], None);
    for (value, bytes) in [("65536", 65_536), ("64KiB", 65_536), ("64 kib", 65_536), ("1GiB", GIB), ("70000B", 70_000)]
    {
        assert_eq!(setting("wal.max_unsynced_bytes", value).unwrap().wal.max_unsynced_bytes, bytes, "{value}");
    }
    for (value, seconds) in [("90", 90), ("5s", 5), ("5min", 300), ("2h", 7200), ("1d", 86_400)] {
        let interval = setting("checkpoint.interval_s", value).unwrap().checkpoint.interval;
        assert_eq!(interval, Duration::from_secs(seconds), "{value}");
    }
    for value in ["", "MiB", "1.5GiB", "-1", "1 MB", "1MiBs", "99999999999999999999", "9999999999PiB"] {
        setting("wal.max_unsynced_bytes", value).unwrap_err();
    }
    for value in ["5ms", "0", "2d"] {
        setting("checkpoint.interval_s", value).unwrap_err();
    }
}

#[test]
fn listening_beyond_loopback_needs_passwords_and_tls_or_to_be_allowed() {
    let (users, tls) = (("sql.users_file", "/u"), [("sql.tls_certificate", "/c"), ("sql.tls_key", "/k")]);
    let no_password = ("sql.allow_remote_without_password", "true");
    let plaintext = ("sql.allow_remote_plaintext", "true");
    for address in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "[::ffff:192.0.2.1]:1"] {
        let listen = ("sql.listen", address);
        for (flags, missing) in [
            (vec![listen], &["passwords", "TLS"][..]),
            (vec![listen, users], &["TLS"]),
            (vec![listen, tls[0], tls[1]], &["passwords"]),
            (vec![listen, no_password], &["TLS"]),
            (vec![listen, plaintext], &["passwords"]),
            (vec![listen, users, tls[0], tls[1]], &[]),
            (vec![listen, users, plaintext], &[]),
            (vec![listen, no_password, plaintext], &[]),
        ] {
            let found = gathered(&flags, &[], None).err().map_or(String::new(), |found| found[0].to_string());
            assert_eq!(found.is_empty(), missing.is_empty(), "{flags:?}: {found}");
            for word in ["passwords", "TLS"] {
                assert_eq!(found.contains(&format!("{word} (")), missing.contains(&word), "{flags:?}: {found}");
            }
        }
    }
    for alone in [tls[0], tls[1], ("sql.tls_client_authorities", "/a")] {
        gathered(&[alone], &[], None).unwrap_err();
    }
    assert!(!gathered(&[], &[], Some("[sql]\nallow_remote_plaintext = false\n")).unwrap().sql.allow_remote_plaintext);
    gathered(&[], &[], Some("[sql]\nallow_remote_plaintext = 1\n")).unwrap_err();
}

#[test]
fn certificates_that_name_users_need_an_authority_and_the_users() {
    let tls = [("sql.tls_certificate", "/c"), ("sql.tls_key", "/k")];
    let (authorities, users) = (("sql.tls_client_authorities", "/a"), ("sql.users_file", "/u"));
    for value in ["verify-full", "cert"] {
        let certificates = ("sql.tls_client_certificates", value);
        let all = [tls[0], tls[1], authorities, users, certificates];
        assert_eq!(gathered(&all, &[], None).unwrap().sql.tls_client_certificates.name(), value);
        for missing in [authorities, users] {
            let some: Vec<_> = all.into_iter().filter(|flag| *flag != missing).collect();
            let found = gathered(&some, &[], None).unwrap_err()[0].to_string();
            assert!(found.contains(&format!("= {value} needs {}", missing.0.trim_start_matches("sql."))), "{found}");
        }
    }
    let found = gathered(&[("sql.tls_client_certificates", "trust")], &[], None).unwrap_err()[0].to_string();
    assert!(found.ends_with("\"trust\" is not verify-ca, verify-full, cert"), "{found}");
}

#[test]
fn a_file_is_checked_with_those_that_it_names() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
    let named = |name: &str| path(name).display().to_string();
    write("users", "# people\n\"ann\" hunter2\n");
    write(
        "server.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n\n-----BEGIN CERTIFICATE-----\n?\n",
    );
    let settings = format!(
        "[sql]\nusers_file = {:?}\ntls_certificate = {:?}\ntls_key = {:?}\n",
        named("users"),
        named("server.pem"),
        named("server.key")
    );
    write("node.toml", &settings);
    let found: Vec<String> = check_file(&path("node.toml")).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with(&format!("{}:2: is not \"NAME\"", named("users"))), "{found:?}");
    assert!(!found[0].contains("hunter2"), "{found:?}");
    assert!(found[1].starts_with(&format!("{}: line 5: ", named("server.pem"))), "{found:?}");
    std::fs::remove_file(path("users")).unwrap();
    let found = check_file(&path("node.toml")).unwrap_err()[0].to_string();
    assert!(found.starts_with(&format!("{}: cannot be read", named("users"))), "{found}");
    // What is wrong with the file itself comes first.
    write("node.toml", &format!("{settings}nonsense = 1\n"));
    let found = check_file(&path("node.toml")).unwrap_err();
    assert!(found.len() == 1 && found[0].to_string().contains(":5: sql.nonsense"), "{found:?}");
}

#[test]
fn what_may_be_off_can_be_turned_off() {
    let set = |key, value| gathered(&[(key, value)], &[], None);
    assert_eq!(set("http.listen", "OFF").unwrap().http.listen, None);
    assert_eq!(set("http.listen", "localhost:80").unwrap().http.listen, Some(([127, 0, 0, 1], 80).into()));
    set("http.listen", "0.0.0.0:80").unwrap_err();
    for (value, milliseconds) in [("off", None), ("0", Some(0)), ("250", Some(250)), ("2s", Some(2000))] {
        let at_least = set("log.min_duration_statement_ms", value).unwrap().log.slow.at_least;
        assert_eq!(at_least, milliseconds.map(Duration::from_millis), "{value}");
    }
    for value in ["-1", "2d", "never", ""] {
        set("log.min_duration_statement_ms", value).unwrap_err();
    }
    for value in ["yes", "1", ""] {
        set("http.allow_remote", value).unwrap_err();
    }
}

#[test]
fn log_filters_are_checked() {
    for filter in ["info", "DEBUG", "info,mainstay::wal=debug"] {
        gathered(&[("log.level", filter)], &[], None).unwrap();
    }
    for filter in ["", "verbose", "info,", "mainstay=loud"] {
        gathered(&[("log.level", filter)], &[], None).unwrap_err();
    }
}

#[test]
fn what_is_printed_passes_the_check_and_says_the_defaults() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node.toml");
    std::fs::write(&path, print_defaults()).unwrap();
    let sources = Sources { flags: Vec::new(), variable: &|_| None, file: Some(&path) };
    assert_eq!(gather(&sources).unwrap(), Settings::default());
    // It names each of them, so this also holds when the defaults are not what the code falls back to.
    let text = print_defaults();
    for setting in TABLE {
        assert!(
            text.contains(&format!("{} = ", setting.name)) && text.contains(&setting.variable()),
            "{}",
            setting.key()
        );
    }
}

#[test]
fn a_printed_value_is_read_back_for_every_setting() {
    let mut settings = Settings::default();
    for (setting, value) in TABLE.iter().zip(OTHER_VALUES) {
        setting.set(&mut settings, Raw::Text((*value).to_owned())).unwrap();
    }
    let mut again = Settings::default();
    for setting in TABLE {
        match setting.plain_value(&settings) {
            Some(plain) => setting.set(&mut again, Raw::Text(plain)).unwrap(),
            None => assert!(matches!(setting.kind, Kind::Token(_)), "{}: only secrets are not shown", setting.key()),
        }
    }
    settings.cluster.token = None;
    assert_eq!(again, settings);
}

/// For each row of the table a value that is not the default.
const OTHER_VALUES: &[&str] = &[
    "/x",
    "h:1,i:2",
    "mainstay-join-1-abababababababababababababababababababababababababababababababab",
    "/t",
    "127.0.0.1:7",
    "db1.example.com:7",
    "one",
    "/cc",
    "/ck",
    "/ca",
    "true",
    "true",
    "[::1]:9",
    "7",
    "5",
    "/u",
    "/c",
    "/k",
    "/a",
    "cert",
    "true",
    "true",
    "3s",
    "3MiB",
    "4s",
    "6s",
    "8s",
    "9s",
    "5s",
    "1.2.3.4:5",
    "true",
    "9",
    "/d",
    "1MiB",
    "2KiB",
    "65KiB",
    "0",
    "2GiB",
    "1025",
    "11s",
    "5MiB",
    "1TiB",
    "7min",
    "json",
    "debug",
    "250ms",
    "64B",
];

/// Names every field, so that a new one does not compile until somebody comes here; and each must have its row.
#[test]
fn every_field_has_its_row() {
    assert_eq!(TABLE.len(), OTHER_VALUES.len());
    let mut changed = Settings::default();
    for (setting, value) in TABLE.iter().zip(OTHER_VALUES) {
        setting.set(&mut changed, Raw::Text((*value).to_owned())).unwrap();
    }
    let default = Settings::default();
    let NodeConfig { data_dir, wal, checkpoint } = changed.node_config().unwrap();
    let WalConfig {
        segment_size_bytes,
        max_record_bytes,
        max_unsynced_bytes,
        keep_bytes,
        max_retained_bytes,
        reserve_bytes,
        sync_limit,
        scrub_bytes_per_second,
    } = wal;
    let CheckpointConfig { wal_bytes, interval } = checkpoint;
    let PgConfig {
        listen,
        connection_limit,
        superuser_reserved_connections,
        users_file,
        tls_certificate,
        tls_key,
        tls_client_authorities,
        tls_client_certificates,
        allow_remote_without_password,
        allow_remote_plaintext,
        startup_timeout,
        message_limit_bytes,
        send_timeout,
        statement_timeout,
        lock_timeout,
        idle_in_transaction_timeout,
        idle_session_timeout,
    } = changed.sql;
    let ClusterSettings {
        listen: cluster_listen,
        advertise,
        name,
        join,
        token,
        token_file,
        tls_certificate: cluster_certificate,
        tls_key: cluster_key,
        tls_authorities,
        tls_require_node_names,
        allow_plaintext,
    } = changed.cluster;
    assert_eq!(join.iter().map(ToString::to_string).collect::<Vec<_>>(), ["h:1", "i:2"]);
    assert_eq!(advertise.unwrap().as_str(), "db1.example.com:7");
    assert_eq!((cluster_listen.unwrap().port(), name.as_deref()), (7, Some("one")));
    assert!(token.is_some() && tls_require_node_names && allow_plaintext);
    for (found, expected) in
        [(token_file, "/t"), (cluster_certificate, "/cc"), (cluster_key, "/ck"), (tls_authorities, "/ca")]
    {
        assert_eq!(found.as_deref(), Some(Path::new(expected)));
    }
    let HttpConfig { listen: http_listen, allow_remote, connection_limit: http_connection_limit, drain_token_file } =
        changed.http;
    let LogSettings { format, level, slow } = changed.log;
    let SlowLog { at_least, parameter_bytes } = slow;
    assert_eq!(data_dir, Path::new("/x"));
    assert_ne!(segment_size_bytes, default.wal.segment_size_bytes);
    assert_ne!(max_record_bytes, default.wal.max_record_bytes);
    assert_ne!(max_unsynced_bytes, default.wal.max_unsynced_bytes);
    assert_ne!(keep_bytes, default.wal.keep_bytes);
    assert_ne!(max_retained_bytes, default.wal.max_retained_bytes);
    assert_ne!(reserve_bytes, default.wal.reserve_bytes);
    assert_ne!(sync_limit, default.wal.sync_limit);
    assert_ne!(scrub_bytes_per_second, default.wal.scrub_bytes_per_second);
    assert_ne!(wal_bytes, default.checkpoint.wal_bytes);
    assert_ne!(interval, default.checkpoint.interval);
    assert_ne!(listen, default.sql.listen);
    assert_ne!(connection_limit, default.sql.connection_limit);
    assert_ne!(superuser_reserved_connections, default.sql.superuser_reserved_connections);
    assert_eq!(users_file.as_deref(), Some(Path::new("/u")));
    assert_eq!(tls_certificate.as_deref(), Some(Path::new("/c")));
    assert_eq!(tls_key.as_deref(), Some(Path::new("/k")));
    assert_eq!(tls_client_authorities.as_deref(), Some(Path::new("/a")));
    assert_eq!(tls_client_certificates, ClientCertificates::Cert);
    assert!(allow_remote_without_password && allow_remote_plaintext);
    assert_ne!(startup_timeout, default.sql.startup_timeout);
    assert_ne!(message_limit_bytes, default.sql.message_limit_bytes);
    assert_ne!(send_timeout, default.sql.send_timeout);
    assert_ne!(statement_timeout, default.sql.statement_timeout);
    assert_ne!(lock_timeout, default.sql.lock_timeout);
    assert_ne!(idle_session_timeout, default.sql.idle_session_timeout);
    assert_ne!(idle_in_transaction_timeout, default.sql.idle_in_transaction_timeout);
    assert_ne!(http_listen, default.http.listen);
    assert_ne!(allow_remote, default.http.allow_remote);
    assert_ne!(http_connection_limit, default.http.connection_limit);
    assert_eq!(drain_token_file.as_deref(), Some(Path::new("/d")));
    assert_ne!(at_least, default.log.slow.at_least);
    assert_ne!(parameter_bytes, default.log.slow.parameter_bytes);
    assert_ne!(format, default.log.format);
    assert_ne!(level, default.log.level);
}

/// Settings to which only the table gives a largest value.
const UNLIMITED_IN_LIBRARY: &[&str] = &[
    "sql.startup_timeout_s",
    "sql.send_timeout_s",
    "sql.statement_timeout_s",
    "sql.lock_timeout_s",
    "sql.idle_session_timeout_s",
    "sql.idle_in_transaction_timeout_s",
];

type Put = Box<dyn Fn(&mut Settings, u64)>;

/// The library checks its own ranges; ours must say the same.
#[test]
fn ranges_agree_with_the_library() {
    let valid = |settings: &Settings| {
        settings.node_config().unwrap().validate().is_ok()
            && settings.sql.validate().is_ok()
            && settings.http.validate().is_ok()
    };
    let defaults = Settings { data_dir: Some("/x".into()), ..Settings::default() };
    for setting in TABLE.iter().filter(|setting| !["", "log"].contains(&setting.section)) {
        let (low, high, put): (u64, u64, Put) = match &setting.kind {
            Kind::Bytes { low, high, field, .. } => (*low, *high, Box::new(move |all, value| *field(all) = value)),
            Kind::Seconds { low, high, field } => {
                (*low, *high, Box::new(move |all, value| *field(all) = Duration::from_secs(value)))
            }
            Kind::Count { low, high, field } | Kind::Memory { low, high, field } => {
                (*low, *high, Box::new(move |all, value| *field(all) = usize::try_from(value).unwrap()))
            }
            _ => continue,
        };
        let above = Some(high + 1).filter(|_| !UNLIMITED_IN_LIBRARY.contains(&setting.key().as_str()));
        let values = [(Some(low), true), (Some(high), true), (low.checked_sub(1), false), (above, false)];
        for (value, expected) in values {
            let Some(value) = value else { continue };
            let mut settings = defaults.clone();
            put(&mut settings, value);
            assert_eq!(valid(&settings), expected, "{} = {value}", setting.key());
        }
    }
}

#[test]
fn settings_of_the_cluster_that_do_not_go_together_are_refused() {
    let token = "mainstay-join-1-abababababababababababababababababababababababababababababababab";
    let found =
        problems(gathered(&[("join_token", token), ("join_token_file", "/t"), ("cluster.tls_key", "/k")], &[], None));
    assert!(found[0].contains("both given") && found[1].contains("tls_certificate is missing"), "{found:?}");
    let found = problems(gathered(&[("cluster.listen", "0.0.0.0:1"), ("join", "a:1")], &[], None));
    assert!(found.iter().any(|what| what.starts_with("cluster.advertise must be given")), "{found:?}");
    let found = problems(gathered(&[("join_token_file", "/t")], &[], None));
    assert!(found.iter().any(|what| what.starts_with("join must be given with")), "{found:?}");
    // A token with a slip in it is still a secret.
    let found = problems(gathered(&[("join_token", &token[..70])], &[], None));
    assert!(found[0].contains("a join token is") && !found[0].contains("abab"), "{found:?}");
    assert!(!print_defaults().contains("\njoin_token = "));
}

#[test]
fn variables_that_nothing_reads_are_named() {
    let names =
        ["PATH", "MAINSTAY_SQL_LISTN", "MAINSTAY_SQL_LISTEN", "MAINSTAY_CONFIG", "MAINSTAY_ADDR", "MAINSTAY_TIMEOUT"];
    assert_eq!(unknown_variables(names.into_iter().map(OsString::from)), ["MAINSTAY_SQL_LISTN"]);
}

#[test]
fn what_listens_at_the_same_place_is_refused() {
    let same = |one: &str, other: &str| is_same_port(one.parse().unwrap(), other.parse().unwrap());
    for (one, other) in [
        ("127.0.0.1:7", "127.0.0.1:7"),
        ("0.0.0.0:7", "127.0.0.1:7"),
        ("[::]:7", "127.0.0.1:7"),
        ("[::]:7", "[::1]:7"),
        ("0.0.0.0:7", "[::]:7"),
    ] {
        assert!(same(one, other) && same(other, one), "{one} {other}");
    }
    for (one, other) in
        [("127.0.0.1:7", "127.0.0.1:8"), ("127.0.0.1:7", "127.0.0.2:7"), ("0.0.0.0:7", "[::1]:7"), ("[::]:0", "[::]:0")]
    {
        assert!(!same(one, other) && !same(other, one), "{one} {other}");
    }
}
