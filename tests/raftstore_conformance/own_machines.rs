//! Machines that keep their own position against their suite: one on a real file, and small ones with the usual mistakes.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use mainstay::ident::LogIndex;
use mainstay::raftstore::conformance::{Failure, check_own_machine};
use mainstay::raftstore::log_store::{KeyValue, StoreError, Table};
use mainstay::raftstore::state_machine::{
    ApplyBatch, ApplyError, Command, MachineSnapshots, MachineState, StateMachine,
};
use tempfile::TempDir;

use crate::ledger::{Held, Ledger, Map};

fn commands() -> Vec<Vec<u8>> {
    ["a=1", "b=2", "a=3", "c=4", "d", "b=5", "e=6", "a=7", "f=8"].map(|command| command.as_bytes().to_vec()).to_vec()
}

#[test]
fn a_machine_on_a_file() -> Result<(), Failure> {
    let directories = Mutex::new(Vec::new());
    let make = || {
        let directory = TempDir::new().expect("a directory");
        let ledger = Ledger::open(directory.path()).expect("a ledger");
        directories.lock().expect("a list").push(directory);
        ledger
    };
    let reopen = |ledger: Ledger| Ledger::open(ledger.directory()).expect("a ledger");
    check_own_machine(make, reopen, &commands())
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Mistake {
    #[default]
    None,
    /// Says that it made durable what it did not.
    FlushesNothing,
    /// Says that it is further than it is.
    SaysMore,
    /// Writes into the tables, too.
    WritesIntoTables,
    /// What it captured goes on changing.
    CapturesLive,
    /// Gives its pairs backwards.
    ReadsBackwards,
    /// Keeps what was there before.
    InstallsBeside,
    /// Keeps what it installed in memory alone.
    InstallsInMemory,
    /// Takes a snapshot as of its own entry for one that it has.
    SkipsItsOwn,
    /// Says that it is beyond what it is installing, before it has it.
    InstallsPositionFirst,
    /// Forgets how many commands there were.
    ForgetsTheCount,
}

/// A machine and its disk.
#[derive(Default)]
struct Small {
    mistake: Mistake,
    held: Held,
    live: Arc<Mutex<Map>>,
    durable: Held,
}

const COUNT: &[u8] = b"#count";

impl StateMachine for Small {
    fn own_applied(&self) -> Result<Option<LogIndex>, ApplyError> {
        Ok(Some(LogIndex::new(self.held.applied)))
    }

    fn apply(&mut self, commands: &[Command<'_>], batch: &mut ApplyBatch<'_>) -> Result<Vec<Bytes>, ApplyError> {
        let map = Arc::make_mut(&mut self.held.map);
        let mut responses = Vec::new();
        for command in commands {
            let count = map.get(COUNT).map_or(0, |count| count[0]) + 1;
            map.insert(COUNT.to_vec(), vec![count]);
            map.insert(command.data[..1].to_vec(), command.data[1..].to_vec());
            if self.mistake == Mistake::WritesIntoTables {
                batch.put(Table::Kv, command.data, "");
            }
            self.held.applied = command.index.get();
            responses.push(vec![count].into());
        }
        *self.live.lock().expect("a map") = map.clone();
        Ok(responses)
    }

    fn flush(&mut self) -> Result<LogIndex, ApplyError> {
        if self.mistake != Mistake::FlushesNothing {
            self.durable = self.held.clone();
        }
        let more = u64::from(self.mistake == Mistake::SaysMore);
        Ok(LogIndex::new(self.held.applied + more))
    }

    fn snapshots(&mut self) -> Option<&mut dyn MachineSnapshots> {
        Some(self)
    }
}

impl MachineSnapshots for Small {
    fn capture(&mut self) -> Result<Box<dyn MachineState>, ApplyError> {
        let map = match self.mistake {
            Mistake::CapturesLive => Arc::clone(&self.live),
            _ => Arc::new(Mutex::new(Map::clone(&self.held.map))),
        };
        Ok(Box::new(Captured { map, mistake: self.mistake }))
    }

    fn install(&mut self, index: LogIndex, state: &dyn MachineState) -> Result<(), ApplyError> {
        if self.mistake == Mistake::SkipsItsOwn && self.held.applied == index.get() {
            return Ok(());
        }
        if self.mistake == Mistake::InstallsPositionFirst {
            self.durable.applied = index.get() + 1;
        }
        let mut map = match self.mistake {
            Mistake::InstallsBeside => Map::clone(&self.held.map),
            _ => Map::new(),
        };
        let mut last: Option<Vec<u8>> = None;
        loop {
            let page = state.read(last.as_deref(), 10)?;
            let Some((key, _)) = page.last() else { break };
            last = Some(key.clone());
            map.extend(page);
        }
        if self.mistake == Mistake::ForgetsTheCount {
            map.remove(COUNT);
        }
        *self.live.lock().expect("a map") = map.clone();
        self.held = Held { applied: index.get(), map: Arc::new(map) };
        if self.mistake != Mistake::InstallsInMemory {
            self.durable = self.held.clone();
        }
        Ok(())
    }
}

struct Captured {
    map: Arc<Mutex<Map>>,
    mistake: Mistake,
}

impl MachineState for Captured {
    fn read(&self, after: Option<&[u8]>, limit_bytes: usize) -> Result<Vec<KeyValue>, StoreError> {
        let map = self.map.lock().expect("a map");
        let is_behind = |key: &[u8]| match self.mistake {
            Mistake::ReadsBackwards => after.is_none_or(|after| key < after),
            _ => after.is_none_or(|after| key > after),
        };
        let found = map.iter().filter(|(key, _)| is_behind(key)).map(|(key, value)| (key.clone(), value.clone()));
        let mut found: Vec<KeyValue> = found.collect();
        if self.mistake == Mistake::ReadsBackwards {
            found.reverse();
        }
        found.truncate((limit_bytes / 4).max(1));
        Ok(found)
    }
}

fn check(mistake: Mistake) -> Result<(), Failure> {
    let make = || Small { mistake, ..Small::default() };
    let reopen = |small: Small| {
        let held = small.durable.clone();
        let live = Arc::new(Mutex::new(Map::clone(&held.map)));
        Small { held, live, ..small }
    };
    check_own_machine(make, reopen, &commands())
}

#[test]
fn a_sound_machine_passes_and_others_do_not() {
    assert_eq!(check(Mistake::None), Ok(()));
    let case = |mistake| check(mistake).expect_err(&format!("{mistake:?}")).case;
    assert_eq!(case(Mistake::FlushesNothing), "a_machine_says_where_it_is");
    assert_eq!(case(Mistake::SaysMore), "a_machine_says_where_it_is");
    assert_eq!(case(Mistake::WritesIntoTables), "a_machine_says_where_it_is");
    assert_eq!(case(Mistake::CapturesLive), "a_captured_state_does_not_change");
    assert_eq!(case(Mistake::ReadsBackwards), "a_captured_state_is_read_in_pages");
    assert_eq!(case(Mistake::InstallsBeside), "an_installed_state_replaces_everything");
    assert_eq!(case(Mistake::InstallsInMemory), "an_installed_state_replaces_everything");
    assert_eq!(case(Mistake::ForgetsTheCount), "an_installed_state_replaces_everything");
    assert_eq!(case(Mistake::SkipsItsOwn), "a_state_may_be_installed_twice");
    assert_eq!(case(Mistake::InstallsPositionFirst), "an_install_that_breaks_off_is_begun_again");
}
