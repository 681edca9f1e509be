//! Many requests over one stream, as TiKV's `BatchCommands`: what a call of its own costs, HTTP/2 streams and headers and
//! wakes at both ends, is shared by all that are under way at the same time.
//!
//! ```text
//!  callers ──▶ caller ══ BatchRequest: 1 Execute, 2 Read, 3 Execute ══▶ answerer ──▶ the metadata group
//!          ◀──        ══ BatchResponse: 2 …, 1 …                    ══          ◀──
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `caller` | the end of who asks: one stream of a connection, and who waits for which answer |
//! | `answerer` | the end of the node |
//!
//! Nobody waits so that more may come: a message takes what is there when the connection takes a message. So a lone request
//! goes at once, and what comes while a message is being sent goes together in the next one.
//!
//! **Invariants.** An answer goes to who asked, whatever the order. A request that had no answer when its stream broke is
//! one of which nobody knows what it did. What a stream may hold is bounded at both ends, in number and in bytes: who comes
//! beyond waits, and a node does not read on. Who gives up, or takes no answers, is in nobody else's way.

pub(super) mod answerer;
pub(super) mod caller;

use super::proto::NumberedRequest;
use crate::net::batch;

/// Requests of one stream that are under way at a time: as many as the calls that a node allows of a connection, if nothing
/// else is said.
pub const MAX_UNDER_WAY: usize = 256;
/// Requests in a message.
pub const MAX_REQUESTS: usize = MAX_UNDER_WAY;
/// Messages are filled up to this size. What is larger by itself travels alone.
pub const MESSAGE_BYTES: usize = 1 << 20;
/// What surrounds a request, or an answer, in a message: its tag and length, twice, and its number.
const OVERHEAD_BYTES: usize = 32;

/// Requests that travel together.
pub type BatchRequest = batch::Batch<NumberedRequest, MAX_REQUESTS>;

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::proto::numbered_request::Call;
    use super::super::proto::numbered_response::Outcome;
    use super::super::proto::{BatchResponse, ExecuteRequest, Failed, NumberedResponse, ReadRequest};
    use super::*;

    #[test]
    fn golden_bytes() {
        let execute = ExecuteRequest { command: None, timeout_ms: 5, client: 1, sequence: 2 };
        let read = ReadRequest { query: None, is_local: true, timeout_ms: 0 };
        let requests = vec![
            NumberedRequest { number: 7, call: Some(Call::Execute(execute)) },
            NumberedRequest { number: 300, call: Some(Call::Read(read)) },
        ];
        let golden = [
            &[0x0A, 17, 0x08, 7, 0x12, 13, 0x10, 5, 0x19, 1, 0, 0, 0, 0, 0, 0, 0, 0x20, 2][..],
            &[0x0A, 7, 0x08, 0xAC, 2, 0x1A, 2, 0x10, 1],
        ]
        .concat();
        let request = BatchRequest::of(requests);
        assert_eq!(request.encode_to_vec(), golden);
        assert_eq!(BatchRequest::decode(&golden[..]).unwrap(), request);

        let failed = Failed { code: 14, message: "x".into(), failure: None };
        let answers = vec![NumberedResponse { number: 7, outcome: Some(Outcome::Failed(failed)) }];
        assert_eq!(BatchResponse { answers }.encode_to_vec(), [0x0A, 9, 0x08, 7, 0x22, 5, 0x08, 14, 0x12, 1, b'x']);
    }

    #[test]
    fn no_more_is_kept_than_a_message_may_have() {
        let decoded = BatchRequest::decode(&[0x0A, 0].repeat(MAX_REQUESTS)[..]).unwrap();
        assert_eq!((decoded.messages.len(), decoded.is_cut), (MAX_REQUESTS, false));
        let decoded = BatchRequest::decode(&[0x0A, 0].repeat(100_000)[..]).unwrap();
        assert_eq!((decoded.messages.len(), decoded.is_cut), (MAX_REQUESTS, true));
    }
}
