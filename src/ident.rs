//! Who is who: typed identifiers, so that none is passed where another is meant.

use std::fmt;

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($inner);

        impl $name {
            /// The identifier with this number.
            pub const fn new(value: $inner) -> $name {
                $name(value)
            }

            /// Its number.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

identifier! {
    /// The lineage of a WAL. Drawn at random at the first start of a system; adopted by every node that joins;
    /// never changes.
    SystemId(u64)
}

identifier! {
    /// A node of a cluster: given once, stable. The node of a cluster of one is 1.
    NodeId(u64)
}

identifier! {
    /// A database within a system. The first is 1.
    DatabaseId(u32)
}

identifier! {
    /// A Raft cluster: drawn when it is formed; changes only when an operator forces a new one out of a lost majority.
    ClusterId(u64)
}

identifier! {
    /// Which life of a node: counts its starts, so that what an earlier life left behind is told from what is now.
    Incarnation(u64)
}

identifier! {
    /// A Raft group. Group 0 holds the cluster's metadata.
    GroupId(u64)
}

identifier! {
    /// One replica's life in one group. Never 0, never used again.
    ReplicaId(u64)
}

identifier! {
    /// A term of a Raft group: at most one leader each. 0 means "none yet".
    Term(u64)
}

identifier! {
    /// A position in a Raft group's log. The first entry is 1; 0 means "none".
    LogIndex(u64)
}

impl LogIndex {
    /// The one after it.
    pub const fn next(self) -> LogIndex {
        LogIndex(self.0.saturating_add(1))
    }

    /// The one before it; of 0, 0.
    pub const fn previous(self) -> LogIndex {
        LogIndex(self.0.saturating_sub(1))
    }
}
