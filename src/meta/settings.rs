//! The cluster's settings: which there are, and what their values may be. Pure.
//!
//! The registry is a part of the machine: whether a value is accepted must be the same on every replica. So a setting
//! says since which version of the cluster there is one, and a range never changes without a new version.

use std::fmt;

use super::proto;

/// What the number of a setting counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Written as a number.
    Count,
    /// Written as a number of bytes, or with B, KiB, MiB or GiB.
    Bytes,
    /// Written as a number of milliseconds, or with ms, s, min, h or d.
    Milliseconds,
}

/// A setting that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name.
    pub name: &'static str,
    /// What its number counts.
    pub unit: Unit,
    /// What it is if nobody has set it.
    pub default: u64,
    /// The least that it may be.
    pub min: u64,
    /// The most that it may be.
    pub max: u64,
    /// The version of the cluster from which on there is one.
    pub since: u16,
    /// What it does.
    pub description: &'static str,
}

/// Which setting; its place in [`DEFINITIONS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// `events.max_count`
    EventsMaxCount,
    /// `kv.history_bytes`
    KvHistoryBytes,
    /// `kv.lease_min_ttl`
    KvLeaseMinTtl,
    /// `kv.max_leases`
    KvMaxLeases,
    /// `kv.max_value_bytes`
    KvMaxValueBytes,
    /// `kv.quota_bytes`
    KvQuotaBytes,
    /// `token.default_ttl`
    TokenDefaultTtl,
    /// `token.max_open`
    TokenMaxOpen,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const COUNT: usize = 8;

/// All settings, by name.
pub const DEFINITIONS: [Definition; COUNT] = [
    Definition {
        name: "events.max_count",
        unit: Unit::Count,
        default: 10_000,
        min: 100,
        max: 1_000_000,
        since: 1,
        description: "Events that the event log keeps; the oldest go first.",
    },
    Definition {
        name: "kv.history_bytes",
        unit: Unit::Bytes,
        default: 64 * MIB,
        min: 16 * MIB,
        max: 4 * GIB,
        since: 1,
        description: "What the history of keys and values may take. Beyond it the oldest revisions are compacted, and \
                      watches can no longer resume there.",
    },
    Definition {
        name: "kv.lease_min_ttl",
        unit: Unit::Milliseconds,
        default: SECOND,
        min: 100,
        max: MINUTE,
        since: 1,
        description: "The shortest time to live that a lease may be granted with.",
    },
    Definition {
        name: "kv.max_leases",
        unit: Unit::Count,
        default: 100_000,
        min: 1,
        max: 1_000_000,
        since: 1,
        description: "Leases at a time.",
    },
    Definition {
        name: "kv.max_value_bytes",
        unit: Unit::Bytes,
        default: MIB,
        min: KIB,
        max: MIB,
        since: 1,
        description: "Largest value of a key.",
    },
    Definition {
        name: "kv.quota_bytes",
        unit: Unit::Bytes,
        default: 256 * MIB,
        min: MIB,
        max: 8 * GIB,
        since: 1,
        description: "What all keys and their present values may take. Beyond it puts are refused until something is \
                      deleted.",
    },
    Definition {
        name: "token.default_ttl",
        unit: Unit::Milliseconds,
        default: DAY,
        min: MINUTE,
        max: 30 * DAY,
        since: 1,
        description: "How long a join token is good for if nothing else was asked for.",
    },
    Definition {
        name: "token.max_open",
        unit: Unit::Count,
        default: 100,
        min: 1,
        max: 10_000,
        since: 1,
        description: "Join tokens at a time that are neither used nor expired.",
    },
];

/// Suffixes of each unit, the largest first.
const BYTE_SUFFIXES: [(&str, u64); 4] = [("GiB", GIB), ("MiB", MIB), ("KiB", KIB), ("B", 1)];
const TIME_SUFFIXES: [(&str, u64); 5] = [("d", DAY), ("h", HOUR), ("min", MINUTE), ("s", SECOND), ("ms", 1)];

/// The setting of a name, if a cluster of this version has it.
pub fn find(name: &str, version: u32) -> Option<&'static Definition> {
    DEFINITIONS.iter().find(|definition| definition.name == name && u32::from(definition.since) <= version)
}

impl Unit {
    fn suffixes(self) -> &'static [(&'static str, u64)] {
        match self {
            Unit::Count => &[],
            Unit::Bytes => &BYTE_SUFFIXES,
            Unit::Milliseconds => &TIME_SUFFIXES,
        }
    }
}

impl Definition {
    /// The number that a text stands for.
    ///
    /// # Errors
    /// It is none, or not in the range; in words that name the range.
    pub fn parse(&self, text: &str) -> Result<u64, String> {
        let digits = text.trim().trim_end_matches(|character: char| !character.is_ascii_digit());
        let suffix = text.trim().get(digits.len()..).unwrap_or_default().trim_start();
        let factor = match suffix {
            "" => Some(1),
            _ => self.unit.suffixes().iter().find(|(name, _)| *name == suffix).map(|(_, factor)| *factor),
        };
        let only_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.parse::<u64>().ok().filter(|_| only_digits);
        let number = number.zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
        match number {
            Some(number) if (self.min..=self.max).contains(&number) => Ok(number),
            _ => Err(format!(
                "{} is {text:?}; it must be {} to {}",
                self.name,
                self.display(self.min),
                self.display(self.max)
            )),
        }
    }

    /// A number as people read it: exact, in the largest unit that is.
    pub fn display(&self, number: u64) -> String {
        let exact = self.unit.suffixes().iter().find(|(_, factor)| number >= *factor && number.is_multiple_of(*factor));
        match exact {
            Some((suffix, factor)) => format!("{} {suffix}", number / factor),
            None => number.to_string(),
        }
    }
}

/// The settings as they are in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Values([u64; COUNT]);

impl Default for Values {
    fn default() -> Values {
        Values(DEFINITIONS.map(|definition| definition.default))
    }
}

impl Values {
    /// The number of a setting.
    pub fn get(&self, name: Name) -> u64 {
        self.0[name as usize]
    }

    /// Sets the number of a setting of this name; `None`, its default.
    pub(super) fn set(&mut self, name: &str, number: Option<u64>) {
        for (value, definition) in self.0.iter_mut().zip(&DEFINITIONS) {
            if definition.name == name {
                *value = number.unwrap_or(definition.default);
            }
        }
    }
}

/// A setting that nobody has set, as it is shown.
pub(super) fn default_setting(definition: &Definition) -> proto::Setting {
    proto::Setting {
        name: definition.name.to_owned(),
        value: definition.display(definition.default),
        number: definition.default,
        is_default: true,
        ..proto::Setting::default()
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unit::Count => "count",
            Unit::Bytes => "bytes",
            Unit::Milliseconds => "milliseconds",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_in_order_and_its_defaults_are_in_range() {
        let names: Vec<_> = DEFINITIONS.iter().map(|definition| definition.name).collect();
        assert!(names.is_sorted(), "{names:?}");
        for definition in &DEFINITIONS {
            assert_eq!(definition.parse(&definition.display(definition.default)), Ok(definition.default));
            assert!(definition.parse(&definition.default.to_string()).is_ok());
            assert!(!definition.description.is_empty());
            assert_eq!(find(definition.name, definition.since.into()), Some(definition));
            assert_eq!(find(definition.name, u32::from(definition.since) - 1), None);
        }
        let values = Values::default();
        assert_eq!(values.get(Name::KvQuotaBytes), 256 * MIB);
        assert_eq!(values.get(Name::TokenMaxOpen), 100);
        assert_eq!(DEFINITIONS[Name::KvLeaseMinTtl as usize].name, "kv.lease_min_ttl");
        assert_eq!(DEFINITIONS[Name::KvMaxValueBytes as usize].name, "kv.max_value_bytes");
    }

    #[test]
    fn the_documentation_says_the_same() {
        let page = include_str!("../../docs/metadata.md");
        for definition in &DEFINITIONS {
            let Definition { name, default, min, max, description, .. } = *definition;
            let [default, min, max] = [default, min, max].map(|number| definition.display(number));
            let row = format!("| `{name}` | {default} | {min} to {max} | {description} |\n");
            assert!(page.contains(&row), "docs/metadata.md must have the row:\n{row}");
        }
    }

    #[test]
    fn values_are_read_with_units_and_refused_with_the_range() {
        let quota = find("kv.quota_bytes", 1).unwrap();
        for (text, bytes) in [("1 MiB", MIB), ("2GiB", 2 * GIB), (" 1048576 ", MIB), ("1024 KiB", MIB)] {
            assert_eq!(quota.parse(text), Ok(bytes), "{text}");
        }
        let ttl = find("token.default_ttl", 1).unwrap();
        assert_eq!(ttl.parse("90 s"), Ok(90_000));
        assert_eq!(ttl.parse("2 d"), Ok(2 * DAY));
        for text in
            ["", "MiB", "-1", "1.5 GiB", "1 s", "1 MB", "+1048576", "99999999999999999999", "9 GiB", "1", "1 MiB x"]
        {
            let refused = quota.parse(text).unwrap_err();
            assert!(refused.contains("1 MiB to 8 GiB"), "{text}: {refused}");
        }
        assert_eq!(find("kv.nothing", 1), None);
    }
}
