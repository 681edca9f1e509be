//! A stream of requests to a group in memory that keeps what it is told to keep.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tonic::{Code, Extensions};

use super::super::super::proto::{Failed, ReadRequest};
use super::*;
use crate::meta::apply::Reached;
use crate::meta::client::{Meta, ops};
use crate::meta::command::action;
use crate::meta::memory::MemoryMetadata;
use crate::meta::proto::action::Kind;
use crate::meta::proto::{Command, Done as Executed, MemberSpec, Refusal, Txn};
use crate::meta::query::proto::query;
use crate::meta::service::{MetaError, Metadata};
use crate::meta::view::View;
use crate::raftstore::context::Attempt;

const PATIENCE: Duration = Duration::from_secs(30);
/// A command for this reason waits until it is let go.
const KEPT: &str = "kept";

#[derive(Default)]
struct Keeping {
    group: MemoryMetadata,
    /// Commands that are kept now, and how many may go.
    kept: AtomicUsize,
    go: Option<Arc<Semaphore>>,
    barriers: AtomicUsize,
    has_no_leader: AtomicBool,
    looked_at: AtomicUsize,
}

struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tonic::async_trait]
impl Metadata for Keeping {
    async fn execute(&self, command: Command, deadline: Instant) -> Result<Executed, MetaError> {
        if command.reason == KEPT {
            self.kept.fetch_add(1, Ordering::SeqCst);
            let _counted = Counted(&self.kept);
            self.go.as_ref().unwrap().acquire().await.unwrap().forget();
        }
        self.group.execute(command, deadline).await
    }

    async fn execute_named(&self, _: Attempt, command: Command, deadline: Instant) -> Result<Executed, MetaError> {
        self.execute(command, deadline).await
    }

    async fn barrier(&self, deadline: Instant) -> Result<(), MetaError> {
        self.barriers.fetch_add(1, Ordering::SeqCst);
        if self.has_no_leader.load(Ordering::SeqCst) {
            tokio::time::sleep_until(deadline.into()).await;
            return Err(MetaError::Unavailable { leader: None, why: "nobody leads".into() });
        }
        Ok(())
    }

    fn view(&self) -> Arc<dyn View> {
        self.looked_at.fetch_add(1, Ordering::SeqCst);
        self.group.view()
    }

    fn progress(&self) -> watch::Receiver<Reached> {
        self.group.progress()
    }
}

struct Stand {
    metadata: Arc<Keeping>,
    go: Arc<Semaphore>,
    incoming: mpsc::Sender<Result<BatchRequest, Status>>,
    answers: Answers,
}

impl Stand {
    async fn new() -> Stand {
        let go = Arc::new(Semaphore::new(0));
        let metadata = Arc::new(Keeping { go: Some(Arc::clone(&go)), ..Keeping::default() });
        let first = MemberSpec {
            addresses: vec!["10.0.0.1:7000".into()],
            secret_hash: vec![1; 32],
            incarnation: 1,
            version: 1,
            ..MemberSpec::default()
        };
        let meta = Meta::new(Arc::clone(&metadata) as _, "a test");
        meta.members().form(crate::ident::ClusterId::new(7), crate::ident::SystemId::new(8), first).await.unwrap();
        let (incoming, received) = mpsc::channel(64);
        let answers = answer(requests(&metadata), ReceiverStream::new(received), ());
        Stand { metadata, go, incoming, answers }
    }

    async fn send(&self, requests: impl IntoIterator<Item = (u64, Call)>) {
        let numbered = |(number, call)| NumberedRequest { number, call: Some(call) };
        let requests = requests.into_iter().map(numbered).collect();
        self.incoming.send(Ok(BatchRequest::of(requests))).await.unwrap();
    }

    async fn next(&mut self) -> Vec<NumberedResponse> {
        let message = timeout(PATIENCE, self.answers.next()).await.expect("no answer came in time");
        message.unwrap().unwrap().answers
    }

    /// So many answers, by number.
    async fn answers(&mut self, count: usize) -> std::collections::BTreeMap<u64, Outcome> {
        let mut answers = std::collections::BTreeMap::new();
        while answers.len() < count {
            for answer in self.next().await {
                let before = answers.insert(answer.number, answer.outcome.unwrap());
                assert!(before.is_none(), "{} is answered twice", answer.number);
            }
        }
        answers
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Keeping) -> bool) {
        let looking = async {
            while !is_so(&self.metadata) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("not in time: {what}"));
    }

    fn kept(&self) -> usize {
        self.metadata.kept.load(Ordering::SeqCst)
    }
}

fn requests(metadata: &Arc<Keeping>) -> Requests {
    Requests::of(&(Arc::clone(metadata) as Arc<dyn Metadata>), &Extensions::default())
}

fn put(reason: &str, key: &str, value: &[u8]) -> Call {
    let put = crate::meta::proto::Put { key: key.into(), value: value.to_vec(), lease: 0 };
    let command = Command { reason: reason.into(), actions: vec![action(Kind::Put(put))], ..Command::default() };
    Call::Execute(ExecuteRequest { command: Some(command), ..ExecuteRequest::default() })
}

fn get(key: &str, is_local: bool, timeout_ms: u64) -> Call {
    let asked = query::Kind::Get(crate::meta::query::proto::Get { key: key.into() });
    Call::Read(ReadRequest { query: Some(Query { kind: Some(asked) }), is_local, timeout_ms })
}

fn revision(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Execute(response) => response.done.as_ref().unwrap().revision,
        other => panic!("{other:?}"),
    }
}

fn failed_with(outcome: &Outcome) -> &Failed {
    match outcome {
        Outcome::Failed(failed) => failed,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn all_of_a_message_are_under_way_at_once_and_answered_as_they_finish() {
    let mut stand = Stand::new().await;
    let kept = (0..3).map(|number| (number, put(KEPT, "k", b"v")));
    stand.send(kept.chain([(9, put("", "a", b"1")), (8, get("a", true, 0)), (7, get("a", false, 0))])).await;
    // Those that are kept are in nobody's way.
    let quick = stand.answers(3).await;
    assert_eq!(quick.keys().collect::<Vec<_>>(), [&7, &8, &9]);
    assert_eq!(revision(&quick[&9]), 1);
    assert!(matches!(quick[&8], Outcome::Read(_)) && matches!(quick[&7], Outcome::Read(_)));
    stand.until("all are begun", |metadata| metadata.kept.load(Ordering::SeqCst) == 3).await;
    stand.go.add_permits(3);
    let slow = stand.answers(3).await;
    assert_eq!(slow.values().map(revision).collect::<Vec<_>>(), [2, 3, 4], "in the order in which they came");
}

#[tokio::test]
async fn what_is_answered_together_is_sent_together() {
    let mut stand = Stand::new().await;
    stand.send((0..100).map(|number| (number, put("", &number.to_string(), b"v")))).await;
    assert_eq!(stand.next().await.len(), 100);
}

#[tokio::test]
async fn reads_of_a_message_share_a_barrier() {
    let mut stand = Stand::new().await;
    let before = stand.metadata.barriers.load(Ordering::SeqCst);
    stand.send((0..50).map(|number| (number, get("a", false, 0)))).await;
    assert_eq!(stand.answers(50).await.len(), 50);
    assert_eq!(stand.metadata.barriers.load(Ordering::SeqCst), before + 1);
    // Those that only ask here need none.
    stand.send((0..50).map(|number| (number, get("a", true, 0)))).await;
    assert_eq!(stand.answers(50).await.len(), 50);
    assert_eq!(stand.metadata.barriers.load(Ordering::SeqCst), before + 1);
}

#[tokio::test]
async fn each_read_has_its_own_time() {
    let mut stand = Stand::new().await;
    stand.metadata.has_no_leader.store(true, Ordering::SeqCst);
    stand.send([(1, get("a", false, 60_000)), (2, get("a", false, 20)), (3, get("a", false, 50_000))]).await;
    let answers = stand.answers(1).await;
    let failed = failed_with(&answers[&2]);
    assert_eq!((failed.code, failed.message.contains("nobody leads")), (Code::Unavailable.into(), true));
    // The others go on trying.
    stand.until("they try again", |metadata| metadata.barriers.load(Ordering::SeqCst) >= 2).await;
    assert!(timeout(Duration::from_millis(50), stand.answers.next()).await.is_err());
}

#[tokio::test]
async fn a_failure_is_what_a_call_of_its_own_would_hear() {
    let mut stand = Stand::new().await;
    let calls = [
        put("", "", b"no key"),
        put("", "large", &[0; (1 << 20) + 1]),
        Call::Execute(ExecuteRequest::default()),
        Call::Read(ReadRequest::default()),
    ];
    stand.send(calls.clone().into_iter().zip(0..).map(|(call, number)| (number, call))).await;
    let heard = stand.answers(calls.len()).await;
    let alone = requests(&stand.metadata);
    for (call, outcome) in calls.into_iter().zip(heard.values()) {
        let status = match call {
            Call::Execute(request) => alone.execute(request).await.unwrap_err(),
            Call::Read(request) => alone.find(request.query).unwrap_err(),
        };
        let among = failure::from_failed(failed_with(outcome).clone());
        assert_eq!(
            (among.code(), among.message(), among.details()),
            (status.code(), status.message(), status.details())
        );
    }
    let too_large = failure::error(&failure::from_failed(failed_with(&heard[&1]).clone()));
    assert_eq!(too_large.refusal(), Some(Refusal::TooLarge));
    // What a later version may ask.
    let unknown = NumberedRequest { number: 5, call: None };
    stand.incoming.send(Ok(BatchRequest::of(vec![unknown]))).await.unwrap();
    assert_eq!(failed_with(&stand.answers(1).await[&5]).code, i32::from(Code::Unimplemented));
}

#[tokio::test]
async fn a_stream_is_not_read_on_while_as_many_are_under_way_as_may_be() {
    let mut stand = Stand::new().await;
    for first in [0, MAX_UNDER_WAY as u64, 2 * MAX_UNDER_WAY as u64] {
        stand.send((0..MAX_UNDER_WAY as u64).map(|number| (first + number, put(KEPT, "k", b"v")))).await;
    }
    stand.until("the first are begun", |metadata| metadata.kept.load(Ordering::SeqCst) == MAX_UNDER_WAY).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(stand.kept(), MAX_UNDER_WAY);
    // There is room again once an answer is sent.
    stand.go.add_permits(1);
    stand.answers(1).await;
    stand.until("more are begun", |metadata| metadata.kept.load(Ordering::SeqCst) == 2 * MAX_UNDER_WAY - 1).await;
    stand.go.add_permits(3 * MAX_UNDER_WAY);
    assert_eq!(stand.answers(3 * MAX_UNDER_WAY - 1).await.len(), 3 * MAX_UNDER_WAY - 1);
}

#[tokio::test]
async fn nor_while_they_are_as_large_as_they_may_be() {
    let mut stand = Stand::new().await;
    let value = vec![7; 900 << 10];
    let count = (MAX_HELD_BYTES / value.len()) + 1;
    for number in 0..3 * count as u64 {
        stand.send([(number, put(KEPT, "k", &value))]).await;
    }
    stand.until("the first are begun", |metadata| metadata.kept.load(Ordering::SeqCst) == count).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(stand.kept(), count);
    stand.go.add_permits(3 * count);
    assert_eq!(stand.answers(3 * count).await.len(), 3 * count);
}

#[tokio::test]
async fn who_takes_no_answers_has_nothing_looked_up() {
    let mut stand = Stand::new().await;
    let large = Txn { then: vec![ops::put("large", vec![7; 1 << 20])], ..Txn::default() };
    Meta::new(Arc::clone(&stand.metadata) as _, "a test").kv().txn(large).await.unwrap();
    let before = stand.metadata.looked_at.load(Ordering::SeqCst);
    stand.send((0..200).map(|number| (number, get("large", number % 2 == 0, 0)))).await;
    // One message waits, and one finding that did not fit into it.
    stand.until("some are looked up", |metadata| metadata.looked_at.load(Ordering::SeqCst) > before).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let looked_up = stand.metadata.looked_at.load(Ordering::SeqCst) - before;
    assert!(looked_up <= 3, "{looked_up} of 200, a MiB each");
    // Commands go on meanwhile.
    stand.send([(1000, put("", "a", b"1"))]).await;
    let meta = Meta::new(Arc::clone(&stand.metadata) as _, "a test").local();
    let applied = async {
        while meta.kv().get("a").await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, applied).await.unwrap();
    assert_eq!(stand.answers(201).await.len(), 201);
}

#[tokio::test]
async fn a_message_is_filled_up_to_a_size() {
    let mut stand = Stand::new().await;
    let meta = Meta::new(Arc::clone(&stand.metadata) as _, "a test");
    meta.kv().put("half", vec![7; 500 << 10]).await.unwrap();
    stand.send((0..5).map(|number| (number, get("half", true, 0)))).await;
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < 5 {
        sizes.push(stand.next().await.len());
    }
    assert_eq!(sizes, [2, 2, 1]);
    // What was sent is not held any more: answers can go on for ever.
    let txn = Kind::Txn(Txn { then: vec![ops::get("half")], ..Txn::default() });
    let command = Command { actions: vec![action(txn)], ..Command::default() };
    let read = Call::Execute(ExecuteRequest { command: Some(command), ..ExecuteRequest::default() });
    for number in 0..40 {
        stand.send([(number, read.clone())]).await;
        stand.answers(1).await;
    }
}

#[tokio::test]
async fn when_the_client_is_gone_nothing_is_kept_for_it() {
    let stand = Stand::new().await;
    stand.send((0..10).map(|number| (number, put(KEPT, "k", b"v")))).await;
    stand.until("all are begun", |metadata| metadata.kept.load(Ordering::SeqCst) == 10).await;
    let Stand { metadata, go, incoming, answers } = stand;
    drop(answers);
    timeout(PATIENCE, incoming.closed()).await.unwrap();
    assert_eq!(metadata.kept.load(Ordering::SeqCst), 0);
    drop(go);
}

#[tokio::test]
async fn what_is_under_way_is_answered_when_nothing_more_comes() {
    let mut stand = Stand::new().await;
    stand.send([(1, put(KEPT, "k", b"v"))]).await;
    let incoming = std::mem::replace(&mut stand.incoming, mpsc::channel(1).0);
    drop(incoming);
    stand.go.add_permits(1);
    assert_eq!(stand.answers(1).await.len(), 1);
    assert!(timeout(PATIENCE, stand.answers.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_message_of_too_many_ends_the_stream() {
    let mut stand = Stand::new().await;
    stand.incoming.send(Ok(BatchRequest { messages: Vec::new(), is_cut: true })).await.unwrap();
    let end = timeout(PATIENCE, stand.answers.next()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(end.code(), Code::InvalidArgument);
}
