//! The simulator: clusters of the pure group on virtual time, on a disk that loses what is not synced and a network
//! that loses anything, all from one seed. A cluster has one group, or several that share their nodes: the disk with its
//! one sequence of writes, the clock, the words that nodes say to each other. Then replicas are destroyed, too, and made
//! anew under other numbers.
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
//! | `installs` | machines with a store of their own take them over |
//! | `host` | a node: what its replicas share, crashes |
//! | `tables` | what a machine's tables hold |
//! | `replica` | the driver: carries out effects, applies |
//! | `lives` | replicas are made, destroyed, made again |
//! | `clients`, `oracle` | who writes and reads, and whether what they saw is possible |
//! | `checks` | states are damaged, compared, repaired |
//! | `stalls` | the watchdog over a node's disk |
//! | `hibernation` | who sleeps, and on whose word |
//! | `watch` | Raft's invariants and ours, of each group, after every step |
//! | `seen` | what happened, so that no test passes because nothing did |
//! | `runs` | the tests: many seeds |
//! | `proof` | how known bugs are put back, and caught |
//! | `mutations` | those of Raft |
//! | `metadata` | the metadata's machine in place of registers, and what is promised of it |
//! | `hostile` | messages that no honest replica sends |
//!
//! A failure prints its seed and the end of its trace. `SIM_SEED=7 cargo nextest run one_seed --no-capture` replays
//! seed 7; `SIM_SEEDS=10000` sets how many seeds each test of many runs.

mod checks;
mod clients;
mod disk;
mod hibernation;
mod host;
mod hostile;
mod installs;
mod lives;
mod members;
mod metadata;
mod mirror;
mod mutations;
mod network;
mod oracle;
mod proof;
mod replica;
mod rng;
mod runs;
mod scenario;
mod seen;
mod snapshots;
mod stalls;
mod tables;
mod troubles;
mod watch;
mod world;
