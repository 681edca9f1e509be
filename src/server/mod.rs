//! Floor 6: what people and drivers connect to.
//!
//! [`pg`] speaks the PostgreSQL protocol, [`http`] tells health and metrics. They know nothing of any engine or node: an
//! engine's tool implements [`pg::Backend`] and [`http::Probe`]. Nothing in the library imports this floor.

#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "pg")]
pub mod pg;
