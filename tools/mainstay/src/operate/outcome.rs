//! What a command came to, and the exit status that says it to scripts.

use std::io;
use std::process::ExitCode;

use mainstay::meta::proto::Refusal;
use mainstay::meta::service::MetaError;
use mainstay::meta::watch::WatchError;

/// What help says of it.
pub const EXIT_STATUS: &str = "\
Exit status: 0 done; 1 failed: no node could be reached, or none leads; 2 wrong usage; 3 not found, or the comparison of a
transaction did not hold; 4 refused by the cluster; 5 it is not known whether the change took effect.";

/// Nobody could be reached, or it went wrong.
pub const EXIT_FAILED: u8 = 1;
/// What was typed makes no sense.
pub const EXIT_USAGE: u8 = 2;
/// There is nothing of the kind.
pub const EXIT_NOT_FOUND: u8 = 3;
/// The cluster refused it.
pub const EXIT_REFUSED: u8 = 4;
/// Nobody knows whether it took effect.
pub const EXIT_UNKNOWN: u8 = 5;

/// How a command ended that did what it was to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As wished.
    Done,
    /// It was shown, but all is not well.
    Unwell,
    /// There is nothing of the kind.
    NotFound,
}

/// Why a command did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    #[error(transparent)]
    Meta(#[from] MetaError),
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// What was typed makes no sense.
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// How it went, for the shell.
pub fn exit(ended: Result<Outcome, Failed>) -> ExitCode {
    let error = match ended {
        Ok(Outcome::Done) => return ExitCode::SUCCESS,
        Ok(Outcome::Unwell) => return ExitCode::from(EXIT_FAILED),
        Ok(Outcome::NotFound) => return ExitCode::from(EXIT_NOT_FOUND),
        // Whoever reads has gone.
        Err(Failed::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
        Err(error) => error,
    };
    eprintln!("mainstay: {}", super::show::printable(error.to_string().as_bytes()));
    ExitCode::from(code(&error))
}

fn code(error: &Failed) -> u8 {
    match error {
        Failed::Usage(_) => EXIT_USAGE,
        Failed::Io(_) | Failed::Json(_) => EXIT_FAILED,
        Failed::Watch(WatchError::Compacted { .. } | WatchError::Refused { .. }) => EXIT_REFUSED,
        Failed::Watch(_) => EXIT_FAILED,
        Failed::Meta(error) => match error {
            MetaError::Refused(refused) => match refused.why() {
                Refusal::NoSuchSetting | Refusal::NoSuchMember | Refusal::NoSuchLease => EXIT_NOT_FOUND,
                _ => EXIT_REFUSED,
            },
            MetaError::TooLarge { .. } | MetaError::Watch(_) => EXIT_REFUSED,
            MetaError::Unknown { .. } => EXIT_UNKNOWN,
            _ => EXIT_FAILED,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay::meta::proto::Refused;

    #[test]
    fn each_end_has_its_status() {
        let refused =
            |why: Refusal| Failed::Meta(MetaError::Refused(Refused { why: why.into(), ..Refused::default() }));
        assert_eq!(code(&refused(Refusal::NoSuchSetting)), 3);
        assert_eq!(code(&refused(Refusal::OutOfRange)), 4);
        assert_eq!(code(&Failed::Meta(MetaError::Unknown { why: String::new() })), 5);
        assert_eq!(code(&Failed::Meta(MetaError::Unavailable { leader: None, why: String::new() })), 1);
        assert_eq!(code(&Failed::Usage(String::new())), 2);
    }
}
