//! Floor 6: what people and drivers connect to.
//!
//! [`pg`] speaks the PostgreSQL protocol. It knows nothing of any engine: an engine's tool implements
//! [`pg::Backend`]. Nothing in the library imports this floor.

#[cfg(feature = "pg")]
pub mod pg;
