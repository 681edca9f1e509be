//! The rows of the table of settings.

use super::{GIB, Kind, MIB, PIB, Setting, TIB};

/// All settings, in the order in which they are printed.
pub const TABLE: &[Setting] = &[
    Setting {
        section: "",
        name: "data_dir",
        meaning: "The data directory. Made if it does not exist; its parent must.",
        kind: Kind::Directory(|settings| &mut settings.data_dir),
    },
    Setting {
        section: "",
        name: "join",
        meaning: "Members of a cluster to ask, one after the other, to be let in; with commas between them. Needs cluster.listen, \
                  an empty data directory and a join token. A node that is a member already does not need it.",
        kind: Kind::NodeAddresses(|settings| &mut settings.cluster.join),
    },
    Setting {
        section: "",
        name: "join_token",
        meaning: "What the members are shown: `mainstay cluster token create` makes one, for one node. On a command line others \
                  can see it: better give it as the variable, or in a file.",
        kind: Kind::Token(|settings| &mut settings.cluster.token),
    },
    Setting {
        section: "",
        name: "join_token_file",
        meaning: "A file that holds the join token. It need not be there yet: the node waits for it.",
        kind: Kind::File(|settings| &mut settings.cluster.token_file),
    },
    Setting {
        section: "cluster",
        name: "listen",
        meaning: "Where the node listens for other nodes and for operators. Port 0 takes any free port. A node that is no member \
                  of a cluster yet then waits until `mainstay cluster init` forms one with it, or joins one. Off means that the \
                  node is alone, or, if it was a member before, listens where it did. Addresses beyond loopback need TLS, or \
                  that plaintext is allowed.",
        kind: Kind::OptionalAddress(|settings| &mut settings.cluster.listen),
    },
    Setting {
        section: "cluster",
        name: "advertise",
        meaning: "Where other nodes reach this one, as HOST:PORT, if that is not where it listens.",
        kind: Kind::NodeAddress(|settings| &mut settings.cluster.advertise),
    },
    Setting {
        section: "cluster",
        name: "name",
        meaning: "What people call the node: up to 63 letters, digits, dots, dashes and underscores. Without it, it is called \
                  node and its number. It is told to the cluster when the node becomes a member, and not changed later.",
        kind: Kind::Name(|settings| &mut settings.cluster.name),
    },
    Setting {
        section: "cluster",
        name: "tls_certificate",
        meaning: "The node's certificate towards other nodes and operators, and what leads from it to its authority, in PEM. \
                  Read again when it changes. With it go cluster.tls_key and cluster.tls_authorities.",
        kind: Kind::File(|settings| &mut settings.cluster.tls_certificate),
    },
    Setting {
        section: "cluster",
        name: "tls_key",
        meaning: "The key of that certificate, in PEM. Nobody else may be able to read it.",
        kind: Kind::File(|settings| &mut settings.cluster.tls_key),
    },
    Setting {
        section: "cluster",
        name: "tls_authorities",
        meaning: "The authorities, in PEM, of which every other node, and every operator, must show a certificate.",
        kind: Kind::File(|settings| &mut settings.cluster.tls_authorities),
    },
    Setting {
        section: "cluster",
        name: "tls_require_node_names",
        meaning: "Whether the certificate of a node must name it, as node-N.CLUSTER.mainstay. Otherwise whoever has one of the \
                  authority may pass for any node that its certificate does not exclude.",
        kind: Kind::Switch(|settings| &mut settings.cluster.tls_require_node_names),
    },
    Setting {
        section: "cluster",
        name: "allow_plaintext",
        meaning: "Lets nodes speak without TLS beyond loopback. Whoever reaches the port can then read and change everything, \
                  and pass for any node.",
        kind: Kind::Switch(|settings| &mut settings.cluster.allow_plaintext),
    },
    Setting {
        section: "sql",
        name: "listen",
        meaning: "Where PostgreSQL clients connect. Port 0 takes any free port. Addresses beyond loopback need a users file and \
                  TLS, or that what is missing is allowed to be.",
        kind: Kind::Address(|settings| &mut settings.sql.listen),
    },
    Setting {
        section: "sql",
        name: "connection_limit",
        meaning: "How many clients may be connected at once; more are told so and turned away.",
        kind: Kind::Count { low: 1, high: 10_000, field: |settings| &mut settings.sql.connection_limit },
    },
    Setting {
        section: "sql",
        name: "superuser_reserved_connections",
        meaning: "How many of the connections are kept for superusers, so that one of them can look when all others are taken. \
                  Never all.",
        kind: Kind::Count { low: 0, high: 100, field: |settings| &mut settings.sql.superuser_reserved_connections },
    },
    Setting {
        section: "sql",
        name: "users_file",
        meaning: "Who may connect: a line per user as `mainstay user` makes it, \"NAME\" \"VERIFIER\" [superuser]. Instead of a \
                  verifier it may hold the password itself, if nobody else can read the file. Read again when it changes. \
                  Without it everybody who reaches the server is let in.",
        kind: Kind::File(|settings| &mut settings.sql.users_file),
    },
    Setting {
        section: "sql",
        name: "tls_certificate",
        meaning: "The server's certificate and what leads from it to its authority, in PEM. Read again when it changes. Then \
                  clients on other machines must use TLS.",
        kind: Kind::File(|settings| &mut settings.sql.tls_certificate),
    },
    Setting {
        section: "sql",
        name: "tls_key",
        meaning: "The key of the certificate, in PEM. Nobody else may be able to read it.",
        kind: Kind::File(|settings| &mut settings.sql.tls_key),
    },
    Setting {
        section: "sql",
        name: "tls_client_authorities",
        meaning: "Authorities, in PEM, of which every client must show a certificate.",
        kind: Kind::File(|settings| &mut settings.sql.tls_client_authorities),
    },
    Setting {
        section: "sql",
        name: "tls_client_certificates",
        meaning: "What the certificate of a client proves. verify-ca: that an authority knows it. verify-full: also that it is \
                  the user, by its common name. cert: the same, and no password is asked for.",
        kind: Kind::Certificates(|settings| &mut settings.sql.tls_client_certificates),
    },
    Setting {
        section: "sql",
        name: "allow_remote_without_password",
        meaning: "Lets everybody in who reaches the server from another machine, and do everything.",
        kind: Kind::Switch(|settings| &mut settings.sql.allow_remote_without_password),
    },
    Setting {
        section: "sql",
        name: "allow_remote_plaintext",
        meaning: "Lets clients on other machines speak without TLS. Whoever is on the way can read and change everything.",
        kind: Kind::Switch(|settings| &mut settings.sql.allow_remote_plaintext),
    },
    Setting {
        section: "sql",
        name: "startup_timeout_s",
        meaning: "How long a client may take from connecting to the end of its authentication.",
        kind: Kind::Seconds { low: 1, high: 3600, field: |settings| &mut settings.sql.startup_timeout },
    },
    Setting {
        section: "sql",
        name: "message_limit_bytes",
        meaning: "Largest message that a client may send; a larger one ends its connection. A connection takes about twice \
                  as much memory while it receives one.",
        kind: Kind::Memory { low: 1 << 10, high: GIB - 1, field: |settings| &mut settings.sql.message_limit_bytes },
    },
    Setting {
        section: "sql",
        name: "send_timeout_s",
        meaning: "How long a client may leave untaken what it asked for. Then it is disconnected and its transaction rolled \
                  back: a statement waits for its client, and other writers for the statement.",
        kind: Kind::Seconds { low: 1, high: 86_400, field: |settings| &mut settings.sql.send_timeout },
    },
    Setting {
        section: "sql",
        name: "statement_timeout_s",
        meaning: "How long a statement may take before it is cancelled. 0 means any time. Sessions may SET statement_timeout.",
        kind: Kind::Seconds { low: 0, high: 86_400, field: |settings| &mut settings.sql.statement_timeout },
    },
    Setting {
        section: "sql",
        name: "lock_timeout_s",
        meaning: "How long a statement may wait for its turn to write before it fails. 0 means any time. Sessions may SET \
                  lock_timeout.",
        kind: Kind::Seconds { low: 0, high: 86_400, field: |settings| &mut settings.sql.lock_timeout },
    },
    Setting {
        section: "sql",
        name: "idle_session_timeout_s",
        meaning: "How long a client may be silent outside of a transaction before it is disconnected. 0 means any time. \
                  Sessions may SET idle_session_timeout.",
        kind: Kind::Seconds { low: 0, high: 86_400, field: |settings| &mut settings.sql.idle_session_timeout },
    },
    Setting {
        section: "sql",
        name: "idle_in_transaction_timeout_s",
        meaning: "How long a client may leave a transaction open without sending anything. Then it is disconnected and the \
                  transaction rolled back: one that wrote keeps all other writers waiting. Sessions may SET \
                  idle_in_transaction_session_timeout.",
        kind: Kind::Seconds { low: 1, high: 86_400, field: |settings| &mut settings.sql.idle_in_transaction_timeout },
    },
    Setting {
        section: "http",
        name: "listen",
        meaning: "Where health (/livez, /readyz, /healthz) and metrics (/metrics) are told. Nobody is asked who he is. Port 0 \
                  takes any free port.",
        kind: Kind::OptionalAddress(|settings| &mut settings.http.listen),
    },
    Setting {
        section: "http",
        name: "allow_remote",
        meaning: "Lets http.listen be an address that other machines reach: whoever does can read what is measured.",
        kind: Kind::Switch(|settings| &mut settings.http.allow_remote),
    },
    Setting {
        section: "http",
        name: "connection_limit",
        meaning: "How many HTTP connections there may be at once; more are closed.",
        kind: Kind::Count { low: 1, high: 1024, field: |settings| &mut settings.http.connection_limit },
    },
    Setting {
        section: "http",
        name: "drain_token_file",
        meaning: "A file with a token of 16 to 1024 characters, which nobody else may read. Who shows it at POST \
                  /health/drain (Authorization: Bearer TOKEN) makes the node not ready, so that no new clients are sent to it.",
        kind: Kind::File(|settings| &mut settings.http.drain_token_file),
    },
    Setting {
        section: "wal",
        name: "segment_size_bytes",
        meaning: "Size of a segment file. Fixed when the data directory is made; one made with another size is refused.",
        kind: Kind::Bytes {
            low: MIB,
            high: GIB,
            power_of_two: true,
            field: |settings| &mut settings.wal.segment_size_bytes,
        },
    },
    Setting {
        section: "wal",
        name: "max_record_bytes",
        meaning: "Largest record, and so the largest transaction. A larger one is refused.",
        kind: Kind::Bytes {
            low: 1 << 10,
            high: GIB,
            power_of_two: false,
            field: |settings| &mut settings.wal.max_record_bytes,
        },
    },
    Setting {
        section: "wal",
        name: "max_unsynced_bytes",
        meaning: "How much may be written and not yet synced; writers beyond it wait.",
        kind: Kind::Bytes {
            low: 64 << 10,
            high: GIB,
            power_of_two: false,
            field: |settings| &mut settings.wal.max_unsynced_bytes,
        },
    },
    Setting {
        section: "wal",
        name: "keep_bytes",
        meaning: "How much WAL is kept behind the last checkpoint. While it reaches back to its start, the engine's files \
                  can be rebuilt from it.",
        kind: Kind::Bytes { low: 0, high: PIB, power_of_two: false, field: |settings| &mut settings.wal.keep_bytes },
    },
    Setting {
        section: "wal",
        name: "max_retained_bytes",
        meaning: "How much WAL slots, readers and the archive may keep before its end. Who keeps more is told why and left \
                  without it, so that it does not fill the disk. 0 means any amount; else not less than keep_bytes.",
        kind: Kind::Bytes {
            low: 0,
            high: PIB,
            power_of_two: false,
            field: |settings| &mut settings.wal.max_retained_bytes,
        },
    },
    Setting {
        section: "wal",
        name: "reserve_bytes",
        meaning: "Free space below which writes are refused, plus two segments, so that what was accepted can finish.",
        kind: Kind::Bytes { low: 0, high: TIB, power_of_two: false, field: |settings| &mut settings.wal.reserve_bytes },
    },
    Setting {
        section: "wal",
        name: "sync_limit_s",
        meaning: "How long a sync may take before the device counts as hanging: the log says so, and the node's health is bad.",
        kind: Kind::Seconds { low: 1, high: 3600, field: |settings| &mut settings.wal.sync_limit },
    },
    Setting {
        section: "wal",
        name: "scrub_bytes_per_second",
        meaning: "How fast old segments are read, again and again, to find damage early; the node's log and health say what \
                  was found. 0 means never.",
        kind: Kind::Bytes {
            low: 0,
            high: GIB,
            power_of_two: false,
            field: |settings| &mut settings.wal.scrub_bytes_per_second,
        },
    },
    Setting {
        section: "checkpoint",
        name: "wal_bytes",
        meaning: "How much WAL is written before a checkpoint. A restart replays at most about this much.",
        kind: Kind::Bytes {
            low: MIB,
            high: TIB,
            power_of_two: false,
            field: |settings| &mut settings.checkpoint.wal_bytes,
        },
    },
    Setting {
        section: "checkpoint",
        name: "interval_s",
        meaning: "How long after a checkpoint the next one follows, if anything was written.",
        kind: Kind::Seconds { low: 1, high: 86_400, field: |settings| &mut settings.checkpoint.interval },
    },
    Setting {
        section: "log",
        name: "format",
        meaning: "How the log on standard error is written: for people or for programs.",
        kind: Kind::Format(|settings| &mut settings.log.format),
    },
    Setting {
        section: "log",
        name: "level",
        meaning: "What is logged: error, warn, info, debug or trace, for all or as in \"info,mainstay::wal=debug\".",
        kind: Kind::Filter(|settings| &mut settings.log.level),
    },
    Setting {
        section: "log",
        name: "min_duration_statement_ms",
        meaning: "From how long on a statement is logged, with its time and text but not with what was bound to its \
                  parameters. Sessions may SET log_min_duration_statement.",
        kind: Kind::OptionalMilliseconds { high: 86_400_000, field: |settings| &mut settings.log.slow.at_least },
    },
    Setting {
        section: "log",
        name: "parameter_max_length_bytes",
        meaning: "How much of each parameter is logged with such a statement. 0 means nothing. Sessions may SET \
                  log_parameter_max_length.",
        kind: Kind::Memory { low: 0, high: MIB, field: |settings| &mut settings.log.slow.parameter_bytes },
    },
];
