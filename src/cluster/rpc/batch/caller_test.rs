//! Callers of one stream, and a connection and a node that are the test itself.

use std::io;

use futures_util::{FutureExt, StreamExt};
use prost::Message;
use tokio::task::JoinHandle;

use super::super::super::proto::{ExecuteRequest, ExecuteResponse, NumberedResponse, ReadRequest, ReadResponse};
use super::*;
use crate::meta::proto::{Command, Done};
use crate::meta::query::proto::{self as query, Query};

/// A command that says in its revision who asked.
fn execute(revision: u64) -> Call {
    Call::Execute(ExecuteRequest { sequence: revision, ..ExecuteRequest::default() })
}

fn sized(bytes: usize) -> Call {
    let command = Command { reason: "x".repeat(bytes), ..Command::default() };
    Call::Execute(ExecuteRequest { command: Some(command), ..ExecuteRequest::default() })
}

fn done(revision: u64) -> Outcome {
    Outcome::Execute(ExecuteResponse { done: Some(Done { revision, ..Done::default() }) })
}

struct Stand {
    caller: Arc<Caller>,
    outgoing: Outgoing,
}

impl Stand {
    fn new() -> Stand {
        let (caller, outgoing) = Caller::new();
        Stand { caller: Arc::new(caller), outgoing }
    }

    /// Asks from a task of its own, and waits until it stands in the line.
    async fn ask(&self, call: Call) -> JoinHandle<Answer> {
        let (caller, before) = (Arc::clone(&self.caller), self.waiting());
        let asking = tokio::spawn(async move { caller.call(call).await });
        let is_seen = || self.waiting() > before || self.caller.places.available_permits() == 0 || asking.is_finished();
        while !is_seen() {
            tokio::task::yield_now().await;
        }
        asking
    }

    fn waiting(&self) -> usize {
        self.caller.shared.0.lock().line.len()
    }

    fn unanswered(&self) -> usize {
        self.caller.shared.0.lock().unanswered.len()
    }

    /// What the connection is given to send, if there is something now.
    fn sent(&mut self) -> Vec<NumberedRequest> {
        let message = self.outgoing.next().now_or_never();
        message.map_or(Vec::new(), |message| message.unwrap().messages)
    }

    fn answer(&self, answers: impl IntoIterator<Item = (u64, Outcome)>) {
        let numbered = |(number, outcome)| NumberedResponse { number, outcome: Some(outcome) };
        self.caller.shared.answer(BatchResponse { answers: answers.into_iter().map(numbered).collect() });
    }
}

fn numbers(sent: &[NumberedRequest]) -> Vec<u64> {
    sent.iter().map(|request| request.number).collect()
}

#[tokio::test]
async fn a_lone_request_goes_at_once_and_what_comes_meanwhile_goes_together() {
    let mut stand = Stand::new();
    let first = stand.ask(execute(1)).await;
    assert_eq!(numbers(&stand.sent()), [1]);
    // The connection is busy with it.
    let mut others = Vec::new();
    for number in 2..=5 {
        others.push(stand.ask(execute(number)).await);
    }
    assert_eq!(numbers(&stand.sent()), [2, 3, 4, 5]);
    stand.answer((1..=5).map(|number| (number, done(number))));
    assert_eq!(first.await.unwrap().unwrap(), done(1));
    for (other, number) in others.into_iter().zip(2..) {
        assert_eq!(other.await.unwrap().unwrap(), done(number));
    }
}

#[tokio::test]
async fn answers_reach_who_asked_in_whatever_order_they_come() {
    let mut stand = Stand::new();
    let mut asking = Vec::new();
    for number in 1..=3 {
        asking.push(stand.ask(execute(number)).await);
    }
    let query = Query { kind: Some(query::query::Kind::Cluster(query::Everything {})) };
    asking.push(stand.ask(Call::Read(ReadRequest { query: Some(query), ..ReadRequest::default() })).await);
    assert_eq!(numbers(&stand.sent()), [1, 2, 3, 4]);
    let refused = Status::failed_precondition("not so");
    // What nobody asked, and what was answered before, goes nowhere.
    stand.answer([(9, done(9)), (4, Outcome::Read(ReadResponse::default()))]);
    stand.answer([(3, done(3)), (2, Outcome::Failed(failure::failed(&refused))), (1, done(1)), (1, done(7))]);
    let mut heard = Vec::new();
    for asking in asking {
        heard.push(asking.await.unwrap());
    }
    assert_eq!(heard[0].as_ref().unwrap(), &done(1));
    let failed = heard[1].as_ref().unwrap_err();
    assert_eq!((failed.code(), failed.message()), (Code::FailedPrecondition, "not so"));
    assert_eq!(heard[2].as_ref().unwrap(), &done(3));
    assert_eq!(heard[3].as_ref().unwrap(), &Outcome::Read(ReadResponse::default()));
}

#[tokio::test]
async fn an_answer_of_a_later_version_is_said_to_be_one() {
    let mut stand = Stand::new();
    let asking = stand.ask(execute(1)).await;
    stand.sent();
    stand.caller.shared.answer(BatchResponse { answers: vec![NumberedResponse { number: 1, outcome: None }] });
    assert_eq!(asking.await.unwrap().unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn of_what_has_no_answer_when_the_stream_breaks_nobody_knows_what_it_did() {
    // Whatever the stream ended with: that the node says "unavailable" means nothing of what it took before.
    for ended in [Status::unavailable("going away"), Status::invalid_argument("of another one"), Status::ok("")] {
        let mut stand = Stand::new();
        let (sent, answered) = (stand.ask(execute(1)).await, stand.ask(execute(2)).await);
        stand.sent();
        stand.answer([(2, done(2))]);
        let waits = stand.ask(execute(3)).await;
        stand.caller.shared.end(&broken(ended));
        assert_eq!(sent.await.unwrap().unwrap_err().code(), Code::Cancelled);
        assert_eq!(waits.await.unwrap().unwrap_err().code(), Code::Cancelled);
        assert_eq!(answered.await.unwrap().unwrap(), done(2));
        // Nothing more goes over it.
        assert!(stand.caller.has_ended() && stand.outgoing.next().await.is_none());
        let late = stand.caller.call(execute(4)).now_or_never().expect("it is heard at once");
        assert_eq!(late.unwrap_err().code(), Code::Cancelled);
    }
    // What came from the connection says so to everybody, as it does to a call of its own.
    let mut lost = Status::unavailable("connection reset");
    lost.set_source(Arc::new(io::Error::from(io::ErrorKind::ConnectionReset)));
    let stand = Stand::new();
    let asking = [stand.ask(execute(1)).await, stand.ask(execute(2)).await];
    stand.caller.shared.end(&broken(lost));
    for asking in asking {
        let heard = asking.await.unwrap().unwrap_err();
        assert!(std::error::Error::source(&heard).is_some(), "{heard}");
    }
}

#[tokio::test]
async fn the_nodes_word_before_it_took_anything_is_heard_by_each() {
    let stand = Stand::new();
    let asking = [stand.ask(execute(1)).await, stand.ask(execute(2)).await];
    // As `receive` does with what opening the stream came to.
    stand.caller.shared.end(&Status::unavailable("too many streams"));
    for asking in asking {
        assert_eq!(asking.await.unwrap().unwrap_err().code(), Code::Unavailable);
    }
}

#[tokio::test]
async fn a_task_that_ends_leaves_nobody_waiting() {
    let mut stand = Stand::new();
    let asking = stand.ask(execute(1)).await;
    stand.sent();
    drop(Receiving(Arc::clone(&stand.caller.shared)));
    assert_eq!(asking.await.unwrap().unwrap_err().code(), Code::Cancelled);
    // And when nobody asks any more, the stream ends.
    let Stand { caller, mut outgoing } = Stand::new();
    drop(caller);
    assert!(outgoing.next().await.is_none());
}

#[tokio::test]
async fn no_more_are_under_way_than_may_be_and_who_comes_beyond_waits() {
    const MORE: usize = 44;
    let mut stand = Stand::new();
    let mut asking = Vec::new();
    for number in 0..MAX_UNDER_WAY + MORE {
        asking.push(stand.ask(execute(number as u64)).await);
    }
    assert_eq!(stand.sent().len(), MAX_UNDER_WAY);
    assert!(stand.sent().is_empty());
    // An answer makes room for one.
    stand.answer([(5, done(5)), (6, done(6))]);
    while stand.waiting() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(stand.sent().len(), 2);
    assert_eq!(stand.unanswered(), MAX_UNDER_WAY);
}

#[tokio::test]
async fn messages_are_filled_up_to_a_size_and_what_is_larger_travels_alone() {
    let mut stand = Stand::new();
    let mut asking = Vec::new();
    for bytes in [MESSAGE_BYTES / 3, MESSAGE_BYTES / 3, MESSAGE_BYTES / 3, 3 * MESSAGE_BYTES, 10] {
        asking.push(stand.ask(sized(bytes)).await);
    }
    // Three thirds and what is around them are more than a whole.
    let mut places = Vec::new();
    loop {
        let message = stand.sent();
        if message.is_empty() {
            break;
        }
        let bytes = BatchRequest::of(message.clone()).encoded_len();
        assert!(bytes <= MESSAGE_BYTES || message.len() == 1, "{bytes}");
        places.push(message.len());
    }
    assert_eq!(places, [2, 1, 1, 1]);
    // What no message can take is the mistake of who asks, and of nobody else.
    let large = stand.caller.call(sized(MAX_REQUEST_BYTES)).now_or_never().expect("it is heard at once");
    assert_eq!(large.unwrap_err().code(), Code::OutOfRange);
    assert!(!stand.caller.has_ended());
    let largest = sized(MAX_REQUEST_BYTES - 100);
    let asking = stand.ask(largest).await;
    let message = BatchRequest::of(stand.sent());
    assert!(message.messages.len() == 1 && message.encoded_len() <= MAX_REQUEST_BYTES);
    drop(asking);
}

#[tokio::test]
async fn who_gives_up_disturbs_nobody() {
    let mut stand = Stand::new();
    let (early, late) = (stand.ask(execute(1)).await, stand.ask(execute(2)).await);
    let stays = stand.ask(execute(3)).await;
    early.abort();
    assert!(early.await.unwrap_err().is_cancelled());
    // Of what was not sent nothing is left; what was sent is under way until the node answers.
    assert_eq!(stand.sent().len(), 2);
    late.abort();
    assert!(late.await.unwrap_err().is_cancelled());
    assert_eq!((stand.unanswered(), stand.caller.places.available_permits()), (2, MAX_UNDER_WAY - 2));
    stand.answer([(1, done(2)), (2, done(3))]);
    assert_eq!(stays.await.unwrap().unwrap(), done(3));
    assert_eq!((stand.unanswered(), stand.caller.places.available_permits()), (0, MAX_UNDER_WAY));
}
