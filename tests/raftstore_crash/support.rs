//! A store, what it shows, and directories as a crash leaves them.

use super::*;

pub const PAGE: u64 = 4096;
pub const GROUPS: [GroupId; 2] = [GroupId::new(1), GroupId::new(2)];

pub fn storage(directory: &Path) -> Result<Storage, StorageError> {
    Storage::open(directory, 1 << 20)
}

pub fn open(directory: &Path) -> RocksStore {
    RocksStore::open(Arc::new(storage(directory).expect("a data directory"))).expect("a store")
}

/// Everything that a store shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Contents(pub Vec<(Option<StoredGroup>, Vec<Entry>, Vec<KeyValue>)>);

pub fn contents(store: &RocksStore) -> Contents {
    let of = |group| {
        let stored = store.load(group).expect("a group");
        let first = stored.as_ref().map_or(LogIndex::default(), |stored: &StoredGroup| stored.truncated.index).next();
        let log = store.entries(group, first..LogIndex::new(u64::MAX), usize::MAX).expect("a log");
        let table =
            |table| store.scan(group, table, (Bound::Unbounded, Bound::Unbounded), usize::MAX).expect("a table");
        (stored, log, Table::ALL.into_iter().flat_map(table).collect())
    };
    Contents(GROUPS.map(of).into())
}

pub fn assert_consistent(store: &RocksStore) {
    for group in store.groups().expect("groups") {
        assert_eq!(check::check_group(store, group).expect("a group"), []);
    }
}

/// RocksDB's own log; it has one only.
pub fn rocksdb_log(directory: &Path) -> PathBuf {
    let files = fs::read_dir(directory.join("meta")).expect("a directory").map(|entry| entry.expect("a file").path());
    let mut logs: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    assert_eq!(logs.len(), 1, "{logs:?}");
    logs.remove(0)
}

pub fn log_len(directory: &Path) -> u64 {
    rocksdb_log(directory).metadata().expect("a file").len()
}

pub fn copy(from: &Path) -> TempDir {
    fn copy_into(from: &Path, to: &Path) {
        for entry in fs::read_dir(from).expect("a directory") {
            let path = entry.expect("an entry").path();
            let target = to.join(path.file_name().expect("a name"));
            if path.is_dir() {
                fs::create_dir(&target).expect("a directory");
                copy_into(&path, &target);
            } else {
                match fs::copy(&path, &target) {
                    // RocksDB removed it meanwhile: `copy_at_rest` sees that and tries again.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    copied => drop(copied.expect("a copy")),
                }
            }
        }
    }
    let to = TempDir::new().expect("a directory");
    copy_into(from, to.path());
    to
}

/// All files but the lock, which names whoever tried last.
pub fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if !path.ends_with("mainstay.lock") {
            let bytes = fs::read(&path).expect("a file");
            all.push((path, bytes));
        }
    }
    all.sort();
    all
}

pub fn create(group: GroupId) -> LogWrite {
    let voters = [1, 2, 3].map(|id| (ReplicaId::new(id), NodeId::new(id)));
    LogWrite { create: Some((ReplicaId::new(1), Membership::of_voters(voters))), ..LogWrite::new(group) }
}

/// Entries up to `last`, all committed with them.
pub fn append(group: GroupId, from: u64, last: u64, term: u64, bytes: usize) -> LogWrite {
    let entry = |index| Entry::command(Position::new(index, term), vec![index as u8; bytes], vec![]);
    LogWrite {
        hard_state: Some(HardState { term: Term::new(term), vote: None, commit: LogIndex::new(last) }),
        entries: (from..=last).map(entry).collect(),
        ..LogWrite::new(group)
    }
}

pub fn apply(store: &RocksStore, group: GroupId, index: u64) {
    let writes = [TableWrite::Put(Table::Kv, index.to_be_bytes().to_vec(), vec![index as u8; 50])];
    store.apply(group, &writes, &AppliedTo { index: LogIndex::new(index), membership: None }).expect("an apply");
}

/// A directory as a crash left it.
pub struct Crashed {
    pub directory: TempDir,
    /// How long RocksDB's log was after the last synced write.
    pub synced_len: u64,
    /// What was shown then, and after each write that was not synced.
    pub contents: Vec<Contents>,
}

impl Crashed {
    /// Opens a copy whose log was torn, and says after how many of the writes that were not synced it stands.
    pub fn survives(&self, what: &str, tear: impl FnOnce(&File, u64)) -> usize {
        let copy = copy(self.directory.path());
        let file = File::options().read(true).write(true).open(rocksdb_log(copy.path())).expect("the log");
        tear(&file, file.metadata().expect("a file").len());
        let store = open(copy.path());
        assert_consistent(&store);
        let found = contents(&store);
        let place = self.contents.iter().position(|contents| *contents == found);
        let place = place.unwrap_or_else(|| panic!("{what}: it shows what was never there: {found:?}"));
        // It can be written, and what is written then is there after the next start.
        let last = found.0[0].0.as_ref().expect("group 1").last.index.get();
        store.write(&[append(GROUPS[0], last + 1, last + 1, 5, 10)], true).expect("a write");
        let written = contents(&store);
        drop(store);
        assert_eq!(contents(&open(copy.path())), written, "{what}");
        place
    }
}

/// RocksDB's own log that is written to now.
pub fn newest_log(directory: &Path) -> PathBuf {
    let files = fs::read_dir(directory.join("meta")).expect("a directory").map(|entry| entry.expect("a file").path());
    files.filter(|path| path.extension().is_some_and(|end| end == "log")).max().expect("a log")
}

/// A copy that nothing was written to meanwhile: RocksDB writes out in the background.
pub fn copy_at_rest(directory: &Path) -> TempDir {
    for _ in 0..100 {
        let before = sizes(directory);
        let copied = copy(directory);
        if sizes(directory) == before && sizes(copied.path()) == before {
            return copied;
        }
    }
    panic!("RocksDB never comes to rest");
}

pub fn sizes(directory: &Path) -> Vec<u64> {
    let mut files: Vec<_> = fs::read_dir(directory.join("meta"))
        .expect("a directory")
        .map(|entry| entry.expect("a file"))
        .map(|entry| (entry.file_name(), entry.metadata().map_or(0, |metadata| metadata.len())))
        .collect();
    files.sort();
    files.into_iter().map(|(_, len)| len).collect()
}
