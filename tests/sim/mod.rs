//! The simulator: clusters of the pure group on virtual time, on a disk that loses what is not synced and a network
//! that loses anything, all from one seed.
//!
//! | file | what it holds |
//! |---|---|
//! | `world` | virtual time: the queue of events |
//! | `scenario` | what a seed means |
//! | `troubles` | what goes wrong |
//! | `network`, `disk` | what is lost |
//! | `members` | who takes part changes |
//! | `mirror` | what a group does to its log |
//! | `snapshots` | states on their way |
//! | `node` | the driver: carries out effects, applies, crashes |
//! | `clients`, `oracle` | who writes and reads, and whether what they saw is possible |
//! | `hibernation` | who sleeps, and on whose word |
//! | `watch` | Raft's invariants and ours, after every step |
//! | `seen` | what happened, so that no test passes because nothing did |
//! | `runs` | the tests: many seeds |
//! | `mutations` | each known bug is put back and caught |
//! | `hostile` | messages that no honest replica sends |
//!
//! A failure prints its seed and the end of its trace. `SIM_SEED=7 cargo nextest run one_seed --no-capture` replays
//! seed 7; `SIM_SEEDS=10000` sets how many seeds each test of many runs.

mod clients;
mod disk;
mod hibernation;
mod hostile;
mod members;
mod mirror;
mod mutations;
mod network;
mod node;
mod oracle;
mod rng;
mod runs;
mod scenario;
mod seen;
mod snapshots;
mod troubles;
mod watch;
mod world;
