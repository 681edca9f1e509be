//! What waits to be sent to one peer: bounded, in order, and drained by one link at a time.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::super::message::Envelope;
use super::wire::{BATCH_LIMIT_ENVELOPES, Batch, MESSAGE_LIMIT_BYTES};
use super::{Dropped, Unsent};
use crate::net::batch;

/// The bounds of a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) envelopes: usize,
    pub(super) bytes: usize,
    pub(super) batch_bytes: usize,
}

/// Names an attempt to reach the peer. Only the latest drains the queue: the transport of an earlier one may still be
/// polled after it was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkId(u64);

pub(super) struct Queue {
    limits: Limits,
    state: Mutex<State>,
}

struct State {
    envelopes: VecDeque<Envelope>,
    /// Of the envelopes, as they will be encoded.
    bytes: usize,
    /// Whether anything may wait at all.
    is_open: bool,
    link: u64,
    /// Whether the peer at the other end of the link has proved who it is.
    is_proven: bool,
    /// Of the one that drains.
    waker: Option<Waker>,
}

impl State {
    fn push(&mut self, envelope: Envelope, limits: Limits) -> Result<(), Unsent> {
        if envelope.message.len() > MESSAGE_LIMIT_BYTES {
            return Err(Unsent::TooLarge);
        }
        if !self.is_open {
            return Err(Unsent::Unreachable);
        }
        let size = batch::size_bytes(&envelope);
        // One that is larger than the bound waits alone.
        let is_full = self.envelopes.len() >= limits.envelopes
            || (!self.envelopes.is_empty() && self.bytes + size > limits.bytes);
        if is_full {
            return Err(Unsent::QueueFull);
        }
        self.bytes += size;
        self.envelopes.push_back(envelope);
        Ok(())
    }
}

impl Queue {
    pub(super) fn new(limits: Limits) -> Queue {
        let envelopes = VecDeque::new();
        let state = State { envelopes, bytes: 0, is_open: true, link: 0, is_proven: false, waker: None };
        Queue { limits, state: Mutex::new(state) }
    }

    /// Lets these wait, and wakes who drains once. Says which of them do not fit.
    pub(super) fn push(&self, envelopes: Vec<Envelope>) -> Vec<Dropped> {
        let mut state = self.state.lock();
        let mut dropped = Vec::new();
        for (place, envelope) in envelopes.into_iter().enumerate() {
            if let Err(why) = state.push(envelope, self.limits) {
                dropped.push(Dropped { place, why });
            }
        }
        let waker = if state.envelopes.is_empty() { None } else { state.waker.take() };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        dropped
    }

    /// Whether anything may wait at all.
    pub(super) fn is_open(&self) -> bool {
        self.state.lock().is_open
    }

    pub(super) fn len(&self) -> usize {
        self.state.lock().envelopes.len()
    }

    /// Waits until something waits.
    pub(super) async fn filled(&self) {
        poll_fn(|cx| {
            let mut state = self.state.lock();
            if !state.envelopes.is_empty() {
                return Poll::Ready(());
            }
            state.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Begins a link. The one before gets nothing any more.
    pub(super) fn begin_link(&self) -> LinkId {
        let mut state = self.state.lock();
        state.link += 1;
        state.is_proven = false;
        let (link, waker) = (LinkId(state.link), state.waker.take());
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        link
    }

    /// The peer at the end of the link has proved who it is: what waits may go there.
    pub(super) fn prove_link(&self, link: LinkId) {
        let mut state = self.state.lock();
        if state.link != link.0 {
            return;
        }
        state.is_proven = true;
        state.is_open = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The link is lost, and with it what waited: by the time of the next one it would be old news. Says how many
    /// envelopes that were. `is_open` says whether new ones may wait.
    pub(super) fn end_link(&self, is_open: bool) -> usize {
        self.begin_link();
        let mut state = self.state.lock();
        state.is_open = is_open;
        state.bytes = 0;
        let lost = std::mem::take(&mut state.envelopes);
        drop(state);
        lost.len()
    }

    /// The next batch for a link, with its size in bytes; nothing once another link has begun.
    pub(super) fn poll_batch(&self, link: LinkId, cx: &mut Context<'_>) -> Poll<Option<(Batch, usize)>> {
        let mut state = self.state.lock();
        if state.link != link.0 {
            return Poll::Ready(None);
        }
        if !state.is_proven || state.envelopes.is_empty() {
            match &mut state.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                empty => *empty = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        let most = state.envelopes.len().min(BATCH_LIMIT_ENVELOPES);
        let mut envelopes = Vec::with_capacity(most);
        let mut bytes = 0;
        while envelopes.len() < most
            && let Some(envelope) = state.envelopes.front()
        {
            let size = batch::size_bytes(envelope);
            if bytes > 0 && bytes + size > self.limits.batch_bytes {
                break;
            }
            bytes += size;
            envelopes.extend(state.envelopes.pop_front());
        }
        state.bytes -= bytes;
        Poll::Ready(Some((Batch::of(envelopes), bytes)))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::ident::{GroupId, ReplicaId};

    fn envelope(number: u64, size: usize) -> Envelope {
        let message = Bytes::from(vec![0; size]);
        Envelope { group: GroupId::new(number), from: ReplicaId::new(1), to: ReplicaId::new(2), message }
    }

    fn push(queue: &Queue, envelope: Envelope) -> Result<(), Unsent> {
        queue.push(vec![envelope]).first().map_or(Ok(()), |dropped| Err(dropped.why))
    }

    fn queue(envelopes: usize, bytes: usize, batch_bytes: usize) -> Queue {
        Queue::new(Limits { envelopes, bytes, batch_bytes })
    }

    fn take(queue: &Queue, link: LinkId) -> Option<Vec<u64>> {
        match queue.poll_batch(link, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some((batch, _))) => Some(batch.messages.iter().map(|one| one.group.get()).collect()),
            Poll::Ready(None) => None,
            Poll::Pending => Some(Vec::new()),
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_fits_again_later() {
        let queue = queue(2, 1 << 20, 1 << 20);
        push(&queue, envelope(1, 1)).unwrap();
        push(&queue, envelope(2, 1)).unwrap();
        assert_eq!(push(&queue, envelope(3, 1)), Err(Unsent::QueueFull));
        let link = queue.begin_link();
        queue.prove_link(link);
        assert_eq!(take(&queue, link), Some(vec![1, 2]));
        push(&queue, envelope(4, 1)).unwrap();
    }

    #[test]
    fn bytes_are_bounded_but_one_large_envelope_waits_alone() {
        let queue = queue(100, 1000, 1000);
        push(&queue, envelope(1, 5000)).unwrap();
        assert_eq!(push(&queue, envelope(2, 1)), Err(Unsent::QueueFull));
        let link = queue.begin_link();
        queue.prove_link(link);
        assert_eq!(take(&queue, link), Some(vec![1]));
        push(&queue, envelope(3, 900)).unwrap();
        assert_eq!(push(&queue, envelope(4, 900)), Err(Unsent::QueueFull));
        assert_eq!(push(&queue, envelope(5, MESSAGE_LIMIT_BYTES + 1)), Err(Unsent::TooLarge));
    }

    #[test]
    fn nothing_goes_to_a_peer_that_has_not_proved_itself_nor_to_an_earlier_link() {
        let queue = queue(100, 1000, 1000);
        push(&queue, envelope(1, 1)).unwrap();
        let first = queue.begin_link();
        assert_eq!(take(&queue, first), Some(Vec::new()));
        let second = queue.begin_link();
        queue.prove_link(first);
        assert_eq!(take(&queue, second), Some(Vec::new()));
        queue.prove_link(second);
        assert_eq!(take(&queue, first), None);
        assert_eq!(take(&queue, second), Some(vec![1]));
    }

    #[test]
    fn a_lost_link_takes_along_what_waited_and_a_closed_queue_takes_nothing() {
        let queue = queue(100, 1000, 1000);
        push(&queue, envelope(1, 1)).unwrap();
        assert_eq!(queue.end_link(false), 1);
        assert_eq!(push(&queue, envelope(2, 1)), Err(Unsent::Unreachable));
        let link = queue.begin_link();
        queue.prove_link(link);
        push(&queue, envelope(3, 1)).unwrap();
        assert_eq!(take(&queue, link), Some(vec![3]));
    }

    proptest! {
        #[test]
        fn everything_taken_comes_out_in_order_in_batches_within_bounds(
            sizes in prop::collection::vec(0_usize..400, 1..200), batch_bytes in 100_usize..2000,
        ) {
            let queue = queue(1000, 1 << 30, batch_bytes);
            for (number, size) in sizes.iter().enumerate() {
                push(&queue, envelope(number as u64, *size)).unwrap();
            }
            let link = queue.begin_link();
            queue.prove_link(link);
            let mut seen = 0;
            while let Poll::Ready(Some((batch, bytes))) = queue.poll_batch(link, &mut Context::from_waker(Waker::noop())) {
                prop_assert_eq!(bytes, prost::Message::encoded_len(&batch));
                prop_assert!(bytes <= batch_bytes || batch.messages.len() == 1);
                for envelope in batch.messages {
                    prop_assert_eq!(envelope.group.get(), seen);
                    seen += 1;
                }
            }
            prop_assert_eq!(seen, sizes.len() as u64);
            prop_assert_eq!(queue.state.lock().bytes, 0);
        }
    }
}
