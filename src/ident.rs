//! Who is who: typed identifiers, so that none is passed where another is meant.

use std::fmt;

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
