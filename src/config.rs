//! The settings of a node: each with its default, unit and range.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What a node is opened with. The defaults are safe; only the directory has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// The data directory. Made if it does not exist; its parent must.
    pub data_dir: PathBuf,
    /// The write-ahead log.
    pub wal: WalConfig,
    /// When the engine's files are made durable.
    pub checkpoint: CheckpointConfig,
}

/// Settings of the write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalConfig {
    /// Size of a segment file in bytes: a power of two, 1 MiB to 1 GiB, 64 MiB by default. Fixed when the data
    /// directory is made; a directory made with another size is refused.
    pub segment_size_bytes: u64,
    /// Largest record in bytes, 1 KiB to 1 GiB, 1 GiB by default. A larger one is refused, and so is one
    /// that is longer than 256 segments, because each of them takes an open file.
    pub max_record_bytes: u64,
    /// How many appended bytes may wait for a sync, 64 KiB to 1 GiB, 64 MiB by default. Beyond it `append` answers
    /// busy. A record larger than this is admitted alone. Never more than 256 segments wait. Small records wait in memory: 4 MiB
    /// of it are taken at the start, whatever this says; what finds no room there is written at once.
    pub max_unsynced_bytes: u64,
    /// How many bytes of WAL are kept behind the last checkpoint, 0 to 1 PiB, 1 GiB by default. While the log reaches
    /// back to its start, the engine's files can be rebuilt from it.
    pub keep_bytes: u64,
    /// How many bytes of WAL before its end those who need it beside the checkpoint may keep, 0 to 1 PiB: replication
    /// slots, readers, the archive. Who keeps more, to within a segment, is invalidated: told why, and left without.
    /// Not less than `keep_bytes`; 0, the default, means any number: the disk may then be filled for one who is gone.
    pub max_retained_bytes: u64,
    /// Free space in bytes below which writes are refused, 0 to 1 TiB, 256 MiB by default; two segments are added to
    /// it. What was appended before can then still finish.
    pub reserve_bytes: u64,
    /// How long a sync, or what a flush does before it, may take before the device counts as hanging and the node's
    /// health is bad, 1 s to 1 h, 10 s by default; also one that makes room, while somebody is refused for want of it.
    /// It fails nothing by itself.
    pub sync_limit: Duration,
    /// How many bytes per second of old segments are read to find damage early, 0 to 1 GiB, 1 MiB by default; 0 means
    /// never. One pass follows the other; the node's health says what was found.
    pub scrub_bytes_per_second: u64,
}

/// When checkpoints happen: whichever comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointConfig {
    /// Bytes of WAL since the last checkpoint, 1 MiB to 1 TiB, 256 MiB by default.
    pub wal_bytes: u64,
    /// Time since the last checkpoint if anything was written, 1 s to 1 day, 300 s by default.
    pub interval: Duration,
}

impl Default for WalConfig {
    fn default() -> WalConfig {
        WalConfig {
            segment_size_bytes: 64 * MIB,
            max_record_bytes: GIB,
            max_unsynced_bytes: 64 * MIB,
            keep_bytes: GIB,
            max_retained_bytes: 0,
            reserve_bytes: 256 * MIB,
            sync_limit: Duration::from_secs(10),
            scrub_bytes_per_second: MIB,
        }
    }
}

impl Default for CheckpointConfig {
    fn default() -> CheckpointConfig {
        CheckpointConfig { wal_bytes: 256 * MIB, interval: Duration::from_secs(300) }
    }
}

impl NodeConfig {
    /// The defaults, in this directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> NodeConfig {
        NodeConfig { data_dir: data_dir.into(), wal: WalConfig::default(), checkpoint: CheckpointConfig::default() }
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// All problems at once.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        let segment = self.wal.segment_size_bytes;
        if !is_segment_size(segment) {
            problems.push(Problem {
                setting: "wal.segment_size_bytes",
                what: format!("is {segment}; must be a power of two from {MIB} to {GIB}"),
            });
        }
        let ranges = [
            ("wal.max_record_bytes", self.wal.max_record_bytes, 1 << 10, GIB),
            ("wal.max_unsynced_bytes", self.wal.max_unsynced_bytes, 64 << 10, GIB),
            ("wal.keep_bytes", self.wal.keep_bytes, 0, 1 << 50),
            ("wal.max_retained_bytes", self.wal.max_retained_bytes, 0, 1 << 50),
            ("wal.reserve_bytes", self.wal.reserve_bytes, 0, 1 << 40),
            ("wal.sync_limit_s", self.wal.sync_limit.as_secs(), 1, 3600),
            ("wal.scrub_bytes_per_second", self.wal.scrub_bytes_per_second, 0, GIB),
            ("checkpoint.wal_bytes", self.checkpoint.wal_bytes, MIB, 1 << 40),
            ("checkpoint.interval_s", self.checkpoint.interval.as_secs(), 1, 86_400),
        ];
        for (setting, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                problems.push(Problem { setting, what: format!("is {value}; must be from {low} to {high}") });
            }
        }
        // What is kept for nobody in particular would count against those who need it.
        let (keep, retained) = (self.wal.keep_bytes, self.wal.max_retained_bytes);
        if retained > 0 && retained < keep {
            let what = format!("is {retained}; must be 0 (no bound) or at least wal.keep_bytes, which is {keep}");
            problems.push(Problem { setting: "wal.max_retained_bytes", what });
        }
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }
}

/// Whether a WAL segment may have this size.
pub(crate) fn is_segment_size(bytes: u64) -> bool {
    bytes.is_power_of_two() && (MIB..=GIB).contains(&bytes)
}

/// Settings that cannot be used: *your mistake*, all of them at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// One per setting that is wrong.
    pub problems: Vec<Problem>,
}

/// What is wrong with one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting, as written in a configuration file: `section.name`.
    pub setting: &'static str,
    /// Its value and what it should be.
    pub what: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{} {}", problem.setting, problem.what)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        NodeConfig::new("/somewhere").validate().unwrap();
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let mut config = NodeConfig::new("/somewhere");
        config.wal.segment_size_bytes = 3 * MIB;
        config.wal.max_record_bytes = 1;
        config.wal.max_retained_bytes = config.wal.keep_bytes - 1;
        config.wal.sync_limit = Duration::from_millis(999);
        config.checkpoint.interval = Duration::from_secs(0);
        let problems = config.validate().unwrap_err().problems;
        let settings: Vec<_> = problems.iter().map(|problem| problem.setting).collect();
        let expected = [
            "wal.segment_size_bytes",
            "wal.max_record_bytes",
            "wal.sync_limit_s",
            "checkpoint.interval_s",
            "wal.max_retained_bytes",
        ];
        assert_eq!(settings, expected);
    }
}
