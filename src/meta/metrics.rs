//! What the metadata group measures, on every node.
//!
//! | name | kind | meaning |
//! |---|---|---|
//! | `mainstay_meta_kv_revision` | gauge | the last revision applied here |
//! | `mainstay_meta_kv_compacted_revision` | gauge | up to here the history is forgotten |
//! | `mainstay_meta_kv_keys` | gauge | keys |
//! | `mainstay_meta_kv_live_bytes` | gauge | what they and their values count for the quota |
//! | `mainstay_meta_kv_history_bytes` | gauge | what the history counts for its bound |
//! | `mainstay_meta_leases` | gauge | leases |
//! | `mainstay_meta_members` | gauge | members, whatever their state |
//! | `mainstay_meta_refused_total{why}` | counter | commands applied here that were refused |
//! | `mainstay_meta_watches_compacted_total` | counter | watches that were too slow for the history |

use metrics::{counter, gauge};

use super::proto::{Answer, ClusterHeader, KvHeader, answer};

/// What a batch led to.
pub(super) fn reached(cluster: &ClusterHeader, kv: &KvHeader) {
    gauge!("mainstay_meta_kv_revision").set(kv.revision as f64);
    gauge!("mainstay_meta_kv_compacted_revision").set(kv.compacted as f64);
    gauge!("mainstay_meta_kv_keys").set(kv.keys as f64);
    gauge!("mainstay_meta_kv_live_bytes").set(kv.live_bytes as f64);
    gauge!("mainstay_meta_kv_history_bytes").set(kv.history_bytes as f64);
    gauge!("mainstay_meta_leases").set(kv.leases as f64);
    gauge!("mainstay_meta_members").set(cluster.members as f64);
}

/// What a command came to.
pub(super) fn answered(answer: &Answer) {
    if let Some(answer::Outcome::Refused(refused)) = &answer.outcome {
        counter!("mainstay_meta_refused_total", "why" => refused.why().as_str_name()).increment(1);
    }
}

/// A watch was told that it came too late.
pub(super) fn watch_compacted() {
    counter!("mainstay_meta_watches_compacted_total").increment(1);
}
