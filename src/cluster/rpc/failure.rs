//! Errors as gRPC statuses, and back.
//!
//! A status has a code, which says what a caller may do next, a sentence, and details as every gRPC library knows them: a
//! `google.rpc.Status` that holds a `Failure` of `proto/meta_rpc.proto`.

use prost::Message;
use tonic::{Code, Status};

use super::channel::CallError;
use super::proto::failure::Kind;
use super::proto::{Failed, Failure, Nothing};
use crate::ident::NodeId;
use crate::meta::command::{MAX_COMMAND_BYTES, Unknown};
use crate::meta::proto::Refusal;
use crate::meta::service::MetaError;
use crate::meta::watch::WatchError;
use std::sync::Arc;

const TYPE_URL: &str = "type.googleapis.com/mainstay.meta.rpc.v1.Failure";

/// `google.rpc.Status`, as it travels in the details of a status.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<AnyMessage>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct AnyMessage {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// What a caller hears of an error.
pub fn status(error: &MetaError) -> Status {
    let nothing = Nothing {};
    let (code, kind) = match error {
        MetaError::Refused(refused) => (code(refused.why()), Kind::Refused(refused.clone())),
        MetaError::TooLarge { limit_bytes } => {
            (Code::InvalidArgument, Kind::TooLarge(u64::try_from(*limit_bytes).unwrap_or(u64::MAX)))
        }
        MetaError::Unavailable { leader, .. } => (Code::Unavailable, Kind::Unavailable(leader.map_or(0, NodeId::get))),
        MetaError::Unknown { .. } => (Code::DeadlineExceeded, Kind::Unknown(nothing)),
        MetaError::AnswerLost => (Code::Unknown, Kind::AnswerLost(nothing)),
        MetaError::Watch(error) => return watch_status(error),
        MetaError::Stopped(_) => (Code::Unavailable, Kind::Stopped(nothing)),
        MetaError::Newer(_) => (Code::Unimplemented, Kind::Newer(nothing)),
        // A store that failed may have kept what it was given.
        MetaError::Store(_) => (Code::Internal, Kind::Stopped(nothing)),
        // Of the node, which has no need of others for this.
        MetaError::Net(_) => (Code::Internal, Kind::Stopped(nothing)),
    };
    detailed(code, error.to_string(), kind)
}

/// What a watcher hears when its watch ends.
pub(super) fn watch_status(error: &WatchError) -> Status {
    let (code, kind) = match error {
        WatchError::Compacted { oldest } => (Code::OutOfRange, Kind::Compacted(*oldest)),
        _ => (Code::Unavailable, Kind::Stopped(Nothing {})),
    };
    detailed(code, error.to_string(), kind)
}

fn detailed(code: Code, message: String, kind: Kind) -> Status {
    let value = Failure { kind: Some(kind) }.encode_to_vec();
    let details = vec![AnyMessage { type_url: TYPE_URL.to_owned(), value }];
    let rpc = RpcStatus { code: code.into(), message: message.clone(), details };
    Status::with_details(code, message, rpc.encode_to_vec().into())
}

/// The code that says what kind of refusal it is, as etcd and Google's guide have it.
fn code(why: Refusal) -> Code {
    match why {
        Refusal::Unspecified | Refusal::Invalid | Refusal::TooLarge | Refusal::DuplicateKey => Code::InvalidArgument,
        Refusal::OutOfRange | Refusal::Compacted | Refusal::FutureRevision => Code::OutOfRange,
        Refusal::NoSuchMember | Refusal::NoSuchSetting | Refusal::NoSuchLease | Refusal::NoSuchToken => Code::NotFound,
        Refusal::AlreadyFormed | Refusal::NameTaken | Refusal::AddressTaken | Refusal::LeaseExists => {
            Code::AlreadyExists
        }
        Refusal::TooMany | Refusal::Quota => Code::ResourceExhausted,
        Refusal::WrongSecret | Refusal::TokenUsed | Refusal::TokenExpired => Code::PermissionDenied,
        Refusal::NotFormed
        | Refusal::Version
        | Refusal::StaleIncarnation
        | Refusal::MemberState
        | Refusal::LastMember => Code::FailedPrecondition,
    }
}

/// Why a call failed, as far as its status says.
fn failure(status: &Status) -> Option<Kind> {
    let rpc = RpcStatus::decode(status.details()).ok()?;
    let detail = rpc.details.into_iter().find(|detail| detail.type_url == TYPE_URL)?;
    Failure::decode(&detail.value[..]).ok()?.kind
}

/// Whether a node says that it could not, because it knows of nobody who leads.
pub(super) fn knows_no_leader(status: &Status) -> bool {
    matches!(failure(status), Some(Kind::Unavailable(0)))
}

/// A status as an answer among others.
pub(super) fn failed(status: &Status) -> Failed {
    let failure = failure(status).map(|kind| Failure { kind: Some(kind) });
    Failed { code: status.code().into(), message: status.message().to_owned(), failure }
}

/// The status that an answer among others stands for.
pub(super) fn from_failed(failed: Failed) -> Status {
    let code = Code::from_i32(failed.code);
    match failed.failure.and_then(|failure| failure.kind) {
        Some(kind) => detailed(code, failed.message, kind),
        None => Status::new(code, failed.message),
    }
}

/// What a status means to who proposed or asked.
pub fn error(status: &Status) -> MetaError {
    let why = status.message().to_owned();
    match failure(status) {
        Some(Kind::Refused(refused)) => MetaError::Refused(refused),
        Some(Kind::TooLarge(limit)) => {
            MetaError::TooLarge { limit_bytes: usize::try_from(limit).unwrap_or(usize::MAX) }
        }
        Some(Kind::Unavailable(leader)) => {
            MetaError::Unavailable { leader: (leader != 0).then(|| NodeId::new(leader)), why }
        }
        Some(Kind::Unknown(_)) => MetaError::Unknown { why },
        Some(Kind::AnswerLost(_)) => MetaError::AnswerLost,
        Some(Kind::Compacted(oldest)) => MetaError::Watch(WatchError::Compacted { oldest }),
        Some(Kind::Newer(_)) => MetaError::Newer(Unknown::Unknown),
        Some(Kind::Stopped(_)) => MetaError::Unavailable { leader: None, why },
        None => match status.code() {
            Code::Unavailable => MetaError::Unavailable { leader: None, why },
            // What the transport says of a message that is beyond its bounds.
            Code::OutOfRange | Code::ResourceExhausted => MetaError::TooLarge { limit_bytes: MAX_COMMAND_BYTES },
            Code::Unimplemented => MetaError::Newer(Unknown::Unknown),
            _ => MetaError::Unknown { why: format!("{}: {why}", status.code()) },
        },
    }
}

/// What a status means to a watch: nothing if it is to go on elsewhere.
pub(super) fn watch_error(status: &Status) -> Option<WatchError> {
    match (failure(status), status.code()) {
        (Some(Kind::Compacted(oldest)), _) => Some(WatchError::Compacted { oldest }),
        (Some(Kind::Refused(_)), _) | (None, Code::InvalidArgument | Code::Unimplemented | Code::PermissionDenied) => {
            Some(WatchError::Refused { why: status.message().to_owned() })
        }
        _ => None,
    }
}

/// What became of a call that named what it asked for.
pub(super) fn call_error(error_: CallError) -> MetaError {
    match error_ {
        CallError::Net(net) => MetaError::Net(Arc::new(net)),
        CallError::Refused(status) => error(&status),
        CallError::Unavailable { why } => MetaError::Unavailable { leader: None, why },
        CallError::Unknown { why } => MetaError::Unknown { why },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::proto::Refused;

    #[test]
    fn what_is_told_is_understood() {
        let refused = Refused { why: Refusal::OutOfRange.into(), message: "1 to 2".into(), ..Refused::default() };
        let (leader, why) = (Some(NodeId::new(3)), "no quorum".to_owned());
        let errors = [
            MetaError::Refused(refused),
            MetaError::TooLarge { limit_bytes: 7 },
            MetaError::Unavailable { leader, why: why.clone() },
            MetaError::Unknown { why },
            MetaError::AnswerLost,
            MetaError::Watch(WatchError::Compacted { oldest: 9 }),
            MetaError::Newer(Unknown::Unknown),
        ];
        for told in errors {
            let heard = error(&status(&told));
            assert_eq!(std::mem::discriminant(&heard), std::mem::discriminant(&told), "{told}: {heard}");
            assert!(heard.to_string().contains(&told.to_string()), "{told}: {heard}");
            assert_eq!(heard.refusal(), told.refusal());
            // Among the answers of a stream it is the same.
            let (alone, among) = (status(&told), from_failed(failed(&status(&told))));
            assert_eq!((among.code(), among.message()), (alone.code(), alone.message()));
            assert_eq!(among.details(), alone.details());
        }
        let compacted = watch_error(&watch_status(&WatchError::Compacted { oldest: 5 }));
        assert_eq!(compacted, Some(WatchError::Compacted { oldest: 5 }));
        assert_eq!(watch_error(&watch_status(&WatchError::Stopped)), None);
    }

    #[test]
    fn details_are_those_of_google_rpc_status() {
        let status = status(&MetaError::TooLarge { limit_bytes: 5 });
        assert_eq!(status.code(), Code::InvalidArgument);
        let rpc = RpcStatus::decode(status.details()).unwrap();
        assert_eq!((rpc.code, rpc.details[0].type_url.as_str()), (3, TYPE_URL));
        assert_eq!(rpc.details[0].value, [0x10, 5]);
    }

    #[test]
    fn foreign_statuses_are_understood_as_far_as_they_go() {
        assert!(matches!(error(&Status::unavailable("x")), MetaError::Unavailable { .. }));
        assert!(matches!(error(&Status::internal("x")), MetaError::Unknown { .. }));
        let among = from_failed(failed(&Status::out_of_range("x")));
        assert_eq!((among.code(), among.message(), among.details()), (Code::OutOfRange, "x", &[][..]));
        let garbage = Status::with_details(Code::Unavailable, "x", vec![1, 2, 3].into());
        assert!(matches!(error(&garbage), MetaError::Unavailable { .. }));
    }
}
