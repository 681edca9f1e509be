//! Small files of an operator's that are read again when they change: certificates, keys, users.
//!
//! What is read is kept until something else can be read whole: files in the midst of being replaced, or broken ones, leave
//! what was in use, and an error in the log. The order of replacing several does not matter.

use std::fmt::Display;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The files are looked at no more often than this.
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Largest file that is read.
pub(super) const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// Reads a file whole, with what is known of the very file that was read.
///
/// # Errors
/// It cannot be read, or is larger than 1 MiB.
pub(crate) fn read(path: &Path) -> io::Result<(Vec<u8>, Metadata)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_LIMIT_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("is larger than {FILE_LIMIT_BYTES} bytes")));
    }
    Ok((bytes, metadata))
}

/// The permissions of a file, in octal, if they let others read it: anybody but its owner, or beside root, its group. This is
/// what PostgreSQL asks of a private key.
#[cfg(unix)]
pub(crate) fn open_to_others(metadata: &Metadata) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    let mode = metadata.mode() & 0o777;
    (mode & forbidden != 0).then(|| format!("{mode:o}"))
}

/// Nothing is known of permissions here.
#[cfg(not(unix))]
pub(crate) fn open_to_others(_metadata: &Metadata) -> Option<String> {
    None
}

/// What was made of files, and is made again when they change.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    /// What they are called in the log and in metrics.
    name: &'static str,
    files: Vec<PathBuf>,
    pub(super) state: Mutex<State<T>>,
}

#[derive(Debug)]
pub(super) struct State<T> {
    current: Arc<T>,
    /// The files as they were when they were last tried.
    tried: Stamps,
    pub(super) looked_at: Instant,
}

impl<T> Watched<T> {
    /// Makes it for the first time.
    ///
    /// # Errors
    /// Those of `load`.
    pub(crate) fn load<E>(
        name: &'static str,
        files: Vec<PathBuf>,
        load: impl FnOnce() -> Result<T, E>,
    ) -> Result<Watched<T>, E> {
        // The stamps come first: what changes while it is read has a later stamp, and is read again.
        let tried = Stamps::of(&files);
        let current = Arc::new(load()?);
        Ok(Watched { name, files, state: Mutex::new(State { current, tried, looked_at: Instant::now() }) })
    }

    /// What is in use now, made again by `load` if the files changed. Looks at them at most once a second.
    pub(crate) fn current<E: Display>(&self, load: impl FnOnce() -> Result<T, E>) -> Arc<T> {
        let mut state = self.state.lock();
        let now = Instant::now();
        if now.duration_since(state.looked_at) < POLL_INTERVAL {
            return Arc::clone(&state.current);
        }
        state.looked_at = now;
        let stamps = Stamps::of(&self.files);
        if stamps != state.tried {
            state.tried = stamps;
            let outcome = match load() {
                Ok(made) => {
                    state.current = Arc::new(made);
                    tracing::info!(files = self.name, "changed files were read again");
                    "ok"
                }
                Err(error) => {
                    tracing::error!(files = self.name, %error, "changed files cannot be used; the old ones stay in use");
                    "failed"
                }
            };
            metrics::counter!("mainstay_file_reloads_total", "files" => self.name, "outcome" => outcome).increment(1);
        }
        Arc::clone(&state.current)
    }
}

/// What tells a file from the one that was there before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamps(Vec<Option<[i128; 4]>>);

impl Stamps {
    fn of(files: &[PathBuf]) -> Stamps {
        Stamps(files.iter().map(|path| std::fs::metadata(path).ok().map(|found| stamp(&found))).collect())
    }
}

#[cfg(unix)]
fn stamp(metadata: &Metadata) -> [i128; 4] {
    use std::os::unix::fs::MetadataExt;
    // The change time moves also for who keeps the modification time, as cp -p does.
    let time = |seconds: i64, nanoseconds: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    [
        metadata.ino().into(),
        metadata.size().into(),
        time(metadata.mtime(), metadata.mtime_nsec()),
        time(metadata.ctime(), metadata.ctime_nsec()),
    ]
}

#[cfg(not(unix))]
fn stamp(metadata: &Metadata) -> [i128; 4] {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let modified = modified.and_then(|since| i128::try_from(since.as_nanos()).ok()).unwrap_or(0);
    [0, metadata.len().into(), modified, 0]
}
