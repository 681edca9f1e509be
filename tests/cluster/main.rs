//! Several members in one process: real directories, real sockets on loopback.

mod nodes;

mod forming;
mod joining;
mod leaving;
