//! The bounds that are not settings: equal on every replica because every replica is of a version that has them.

/// Longest key of the small KV.
pub const MAX_KEY_BYTES: usize = 4 << 10;
/// Most compares, and most operations of each branch, of a transaction.
pub const MAX_TXN_OPS: usize = 128;
/// Most keys that one command deletes, and most that one lease holds.
pub const MAX_DELETED_KEYS: usize = 10_000;
/// Most bytes of pairs in one answer. What does not fit is asked for again, from where the answer ends.
pub const MAX_ANSWER_BYTES: usize = 2 << 20;
/// Most pairs in one answer.
pub const MAX_ANSWER_PAIRS: usize = 10_000;
/// What a key counts for beside its own bytes and those of its value.
pub const PAIR_OVERHEAD_BYTES: u64 = 64;
/// Changes that each command removes of what was compacted, beside twice as many as it makes itself.
pub const SWEPT_PER_COMMAND: usize = 32;
/// Largest number of a lease.
pub const MAX_LEASE_ID: u64 = 1 << 62;
/// Longest time to live of a lease or a token: a year.
pub const MAX_TTL_MS: u64 = 365 * 24 * 60 * 60 * 1000;
/// Shortest time to live of a token.
pub const MIN_TOKEN_TTL_MS: u64 = 1000;
/// Leases or tokens in one command that lets them expire.
pub const MAX_EXPIRED: usize = 1000;
/// Members, whatever their state.
pub const MAX_MEMBERS: u64 = 1000;
/// Addresses of a member.
pub const MAX_ADDRESSES: usize = 8;
/// Attributes of a member, and tiers of its locality.
pub const MAX_ATTRIBUTES: usize = 32;
/// Longest name of a member, as of anything in PostgreSQL.
pub const MAX_NAME_BYTES: usize = 63;
/// Longest address, attribute, actor or value of a setting.
pub const MAX_TEXT_BYTES: usize = 256;
/// Longest reason.
pub const MAX_REASON_BYTES: usize = 1024;
/// Length of the hash of a secret.
pub const HASH_BYTES: usize = 32;
/// Changes of each setting that are remembered.
pub const SETTING_HISTORY: u64 = 64;
/// Tokens that were used, revoked or expired are remembered until so many newer ones were made.
pub const REMEMBERED_TOKENS: u64 = 1000;
/// Events that each new one removes at most, when there are more than there may be.
pub const EVENTS_REMOVED_AT_ONCE: u64 = 16;
