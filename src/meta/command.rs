//! Commands as they stand in the log, and answers as they come back. Pure.
//!
//! ```text
//!  offset  bytes
//!       0      2  version, little-endian
//!       2      n  a protobuf message of proto/meta.proto: Command, or Answer
//! ```
//!
//! **A command says the least version that knows it**, so that a newer build does not shut out older ones before the cluster
//! is raised; its answer says the same on every replica, whatever build that is.
//!
//! **Nothing that is not known is skipped.** A command of a version above what this build knows stops the replica, and so
//! does one with a field that this build has no name for: protobuf drops such fields, so a command that would come out
//! shorter than it came in was not understood. Which version may be proposed is a fact of the cluster
//! ([`ClusterHeader::version`](super::proto::ClusterHeader)), raised when all members know it.

use prost::Message;

use super::proto::action::Kind;
use super::proto::{Action, Answer, Command};

/// The newest version of commands that this build knows. Every change of `proto/meta.proto`, or of what a command does,
/// raises it.
pub const VERSION: u16 = 1;
/// Largest command: smaller than what a Raft group takes by default.
pub const MAX_COMMAND_BYTES: usize = 4 << 20;
/// Most actions of a command.
pub const MAX_ACTIONS: usize = 128;
const HEADER_BYTES: usize = 2;

/// Why bytes of the log are no command: the replica has to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unknown {
    /// It comes from a newer version.
    #[error("it is of version {found}; this build knows {VERSION}")]
    Newer {
        /// The version that it says.
        found: u16,
    },
    /// No version so far writes it.
    #[error("it holds what this build does not know")]
    Unknown,
}

/// A command of one or more actions.
pub fn encode(command: &Command) -> Vec<u8> {
    framed(needed(command), command)
}

/// The least version that knows a command.
fn needed(command: &Command) -> u16 {
    let needed = command.actions.iter().filter_map(|action| action.kind.as_ref()).map(since);
    needed.max().unwrap_or(1)
}

/// The version from which on there is a kind of action. Whoever adds one, or a field of one, says so here.
fn since(kind: &Kind) -> u16 {
    match kind {
        Kind::Init(_)
        | Kind::AddMember(_)
        | Kind::UpdateMember(_)
        | Kind::StartMember(_)
        | Kind::SetMemberState(_)
        | Kind::RemoveMember(_)
        | Kind::RaiseVersion(_)
        | Kind::ForceNew(_)
        | Kind::SetMemberVote(_)
        | Kind::SetSetting(_)
        | Kind::ResetSetting(_)
        | Kind::CreateToken(_)
        | Kind::RevokeToken(_)
        | Kind::Put(_)
        | Kind::Delete(_)
        | Kind::Txn(_)
        | Kind::Compact(_)
        | Kind::GrantLease(_)
        | Kind::KeepAlive(_)
        | Kind::RevokeLease(_)
        | Kind::Expire(_) => 1,
    }
}

/// The version and the command of these bytes.
///
/// # Errors
/// The replica must stop: see [`Unknown`].
pub fn decode(bytes: &[u8]) -> Result<(u16, Command), Unknown> {
    let (version, command) = unframed(bytes)?;
    if version < needed(&command) { Err(Unknown::Unknown) } else { Ok((version, command)) }
}

/// The bytes of an answer to a command of this version.
pub fn encode_answer(version: u16, answer: &Answer) -> Vec<u8> {
    framed(version, answer)
}

/// The answer of these bytes.
///
/// # Errors
/// It comes from a newer version.
pub fn decode_answer(bytes: &[u8]) -> Result<Answer, Unknown> {
    unframed(bytes).map(|(_, answer)| answer)
}

/// An action of a command.
pub fn action(kind: Kind) -> Action {
    Action { kind: Some(kind) }
}

fn framed(version: u16, message: &impl Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + message.encoded_len());
    bytes.extend(version.to_le_bytes());
    // An encoder of prost fails only for want of room, and a vector grows.
    let _ = message.encode(&mut bytes);
    bytes
}

fn unframed<M: Message + Default>(bytes: &[u8]) -> Result<(u16, M), Unknown> {
    let (version, body) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(Unknown::Unknown)?;
    let version = u16::from_le_bytes(*version);
    if version > VERSION {
        return Err(Unknown::Newer { found: version });
    }
    let message = M::decode(body).map_err(|_| Unknown::Unknown)?;
    if version == 0 || message.encoded_len() != body.len() {
        return Err(Unknown::Unknown);
    }
    Ok((version, message))
}

#[cfg(test)]
mod tests {
    use super::super::proto::{Put, SetMemberVote, SetSetting};
    use super::*;
    use proptest::prelude::*;

    fn put() -> Command {
        let put = Put { key: b"k".to_vec(), value: b"v".to_vec(), lease: 7 };
        Command { actor: "ann".into(), reason: String::new(), unix_ms: 300, actions: vec![action(Kind::Put(put))] }
    }

    #[test]
    fn golden_bytes() {
        let bytes = [
            1, 0, // version
            0x0a, 3, b'a', b'n', b'n', // actor
            0x18, 0xac, 0x02, // unix_ms
            0x22, 11, // action
            0xa2, 0x01, 8, // put
            0x0a, 1, b'k', 0x12, 1, b'v', 0x18, 7,
        ];
        assert_eq!(encode(&put()), bytes);
        assert_eq!(decode(&bytes), Ok((1, put())));
        let set = SetSetting { name: "a".into(), value: "b".into() };
        let set = Command { actions: vec![action(Kind::SetSetting(set))], ..Command::default() };
        assert_eq!(encode(&set), [1, 0, 0x22, 8, 0x52, 6, 0x0a, 1, b'a', 0x12, 1, b'b']);
        let vote = action(Kind::SetMemberVote(SetMemberVote { id: 3, votes: true }));
        let vote = Command { actions: vec![vote], ..Command::default() };
        assert_eq!(encode(&vote), [1, 0, 0x22, 6, 0x4a, 4, 8, 3, 16, 1]);
    }

    #[test]
    fn what_is_newer_or_unknown_is_not_skipped() {
        let bytes = encode(&put());
        let newer = [&[2, 0][..], &bytes[2..]].concat();
        assert_eq!(decode(&newer), Err(Unknown::Newer { found: 2 }));
        // A field 100 with the number 1, in the command and in the action.
        let field = [0xa0, 0x06, 1];
        assert_eq!(decode(&[&bytes[..], &field].concat()), Err(Unknown::Unknown));
        assert_eq!(decode(&[1, 0, 0x22, 3, 0xa0, 0x06, 1]), Err(Unknown::Unknown));
        assert_eq!(decode(&[]), Err(Unknown::Unknown));
        assert_eq!(decode(&[1]), Err(Unknown::Unknown));
        assert_eq!(decode(&[0, 0]), Err(Unknown::Unknown));
        assert_eq!(decode(&bytes[..bytes.len() - 1]), Err(Unknown::Unknown));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_panic(mut bytes: Vec<u8>) {
            let _ = decode(&bytes);
            bytes.splice(0..0, [1, 0]);
            let _ = decode(&bytes);
            let _ = decode_answer(&bytes);
        }
    }
}
