//! What the simulator is proven by: known bugs that are put back one by one, each of which has to be caught, and the table
//! of them in the docs.

use std::fmt::{Debug, Write};
use std::panic;

use super::runs::{Mode, run};
use super::scenario::Plan;

/// A bug, and how it is looked for.
pub(super) struct Mutation<F> {
    pub(super) fault: F,
    pub(super) what: &'static str,
    /// What makes it likely; the runs are otherwise the same as everywhere.
    pub(super) adjust: Option<fn(&mut Plan)>,
    /// Whether what follows from it shows as well, not only the broken rule.
    pub(super) follows: bool,
}

/// Bugs of one kind.
pub(super) struct Proof<F: 'static> {
    pub(super) mutations: &'static [Mutation<F>],
    /// Runs with this bug.
    pub(super) with: fn(F) -> Mode,
    pub(super) first_seed: u64,
    /// Seeds until a bug counts as not caught.
    pub(super) seeds: u64,
    /// The file of the table, and what stands before its rows.
    pub(super) table: &'static str,
    pub(super) head: &'static str,
}

/// The first seed that catches a bug, and what it breaks.
struct Catch {
    seeds: u64,
    check: &'static str,
}

impl<F: Copy + Debug + PartialEq> Proof<F> {
    /// Looks for a bug. `black_box`: only by what follows from it, not by the broken rule itself.
    fn search(&self, mutation: &Mutation<F>, black_box: bool) -> Option<Catch> {
        let mode = Mode { black_box, adjust: mutation.adjust, ..(self.with)(mutation.fault) };
        (0..self.seeds).find_map(|seed| {
            let violation = run(self.first_seed + seed, mode).violation?;
            Some(Catch { seeds: seed + 1, check: violation.check })
        })
    }

    /// Fails unless the bug is caught.
    pub(super) fn caught(&self, fault: F) {
        // A panic is what some of them end in: no need to print them all.
        panic::set_hook(Box::new(|_| {}));
        let mutation = self.mutations.iter().find(|mutation| mutation.fault == fault).unwrap();
        let seen = self.search(mutation, false);
        let followed = mutation.follows.then(|| self.search(mutation, true));
        let _ = panic::take_hook();
        for (kind, catch) in [("all checks", Some(seen)), ("what follows", followed)] {
            match catch {
                Some(Some(catch)) => println!("{fault:?}: {kind}: \"{}\" after {} seeds", catch.check, catch.seeds),
                Some(None) => panic!("{fault:?} passes {kind} in {} seeds", self.seeds),
                None => {}
            }
        }
    }

    /// The table of the docs names every bug; with `SIM_TABLE=1` it is written anew.
    pub(super) fn check_table(&self) {
        let path = self.table;
        if std::env::var_os("SIM_TABLE").is_none() {
            let docs = std::fs::read_to_string(path).unwrap();
            let missing = self.mutations.iter().find(|mutation| !docs.contains(mutation.what));
            return assert!(missing.is_none(), "{path} does not know: {}", missing.map_or("", |it| it.what));
        }
        let mut table = String::from(self.head);
        panic::set_hook(Box::new(|_| {}));
        for mutation in self.mutations {
            let search = |black_box: bool| (!black_box || mutation.follows).then(|| self.search(mutation, black_box));
            let cell = |black_box: bool| match search(black_box) {
                None => "— | —".to_owned(),
                Some(Some(catch)) => format!("{} | {}", catch.check, catch.seeds),
                Some(None) => format!("**nothing** | {}", self.seeds),
            };
            let _ = writeln!(table, "| {} | {} | {} |", mutation.what, cell(false), cell(true));
        }
        let _ = panic::take_hook();
        std::fs::write(path, table).unwrap();
    }
}

/// A test for each bug of the caller's `PROOF`, and one that none is left out.
macro_rules! prove {
    ($every:ident; $($name:ident: $fault:ident,)*) => {
        $(
            #[test]
            fn $name() {
                PROOF.caught(Fault::$fault);
            }
        )*

        /// No bug without a test of its own.
        #[test]
        fn $every() {
            let tried = [$(Fault::$fault),*];
            assert_eq!(tried.to_vec(), PROOF.mutations.iter().map(|mutation| mutation.fault).collect::<Vec<_>>());
            assert_eq!(tried.len(), Fault::ALL);
        }
    };
}
pub(super) use prove;
