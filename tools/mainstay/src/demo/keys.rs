//! Clients that put unique keys into a cluster's KV, one after the other, and remember which were acknowledged.
//!
//! A put without an answer is *unknown*, as a row is in the first act.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use mainstay::cluster::rpc::client::Client;
use mainstay::meta::client::{Keys, Meta};
use mainstay::meta::service::MetaError;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::load::Counter;

/// What all keys begin with.
const PREFIX: &str = "demo/";
/// Keys read at a time.
const PAGE: usize = 5000;
/// Who acts, for the event log.
const ACTOR: &str = "mainstay demo";

/// What one client put: numbers from 0 to `next`, all acknowledged but the unknown ones.
#[derive(Default)]
pub struct Written {
    next: u64,
    unknown: BTreeSet<u64>,
}

/// What was found of what was put.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Puts acknowledged.
    pub acknowledged: u64,
    /// Of these, keys missing.
    pub lost: u64,
    /// Keys with a wrong value, or that nobody put.
    pub wrong: u64,
    /// Puts whose answer never came.
    pub unknown: u64,
}

/// All clients.
pub struct Writers {
    clients: Vec<Arc<Client>>,
    running: Vec<JoinHandle<anyhow::Result<Written>>>,
    stop: Arc<AtomicBool>,
    pace: Arc<Mutex<Pace>>,
}

/// When there was an answer last, and for how long there was none.
struct Pace {
    last: Instant,
    longest_gap: Duration,
}

impl Pace {
    fn answered(&mut self) {
        let now = Instant::now();
        self.longest_gap = self.longest_gap.max(now - self.last);
        self.last = now;
    }
}

impl Writers {
    /// These clients; nothing is put yet.
    pub fn new(clients: Vec<Arc<Client>>) -> Writers {
        let pace = Pace { last: Instant::now(), longest_gap: Duration::ZERO };
        Writers { clients, running: Vec::new(), stop: Arc::default(), pace: Arc::new(Mutex::new(pace)) }
    }

    /// Lets all clients put keys until they are stopped.
    pub fn start(&mut self) -> Counter {
        let counter = Counter::default();
        self.pace.lock().last = Instant::now();
        for (number, client) in (0..).zip(&self.clients) {
            let meta = client.meta(ACTOR);
            let (stop, pace) = (Arc::clone(&self.stop), Arc::clone(&self.pace));
            self.running.push(tokio::spawn(write(meta, number, stop, counter.clone(), pace)));
        }
        counter
    }

    /// Lets each client have its last answer; what each put, and the longest time without any answer.
    ///
    /// # Errors
    /// A client was refused.
    pub async fn stop(self) -> anyhow::Result<(Vec<Written>, Duration)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut written = Vec::new();
        for task in self.running {
            written.push(task.await??);
        }
        // What was never answered again is a gap, too.
        let mut pace = self.pace.lock();
        pace.answered();
        Ok((written, pace.longest_gap))
    }
}

async fn write(
    meta: Meta,
    client: u64,
    stop: Arc<AtomicBool>,
    counter: Counter,
    pace: Arc<Mutex<Pace>>,
) -> anyhow::Result<Written> {
    let mut written = Written::default();
    while !stop.load(Ordering::Relaxed) {
        let number = written.next;
        written.next += 1;
        match meta.kv().put(key(client, number), value(client, number)).await {
            Ok(_) => {
                counter.add();
                pace.lock().answered();
            }
            Err(MetaError::Unknown { .. } | MetaError::Unavailable { .. }) => {
                written.unknown.insert(number);
            }
            Err(error) => return Err(error).context("a put was refused"),
        }
    }
    Ok(written)
}

fn key(client: u64, number: u64) -> String {
    format!("{PREFIX}{client:04}/{number:012}")
}

fn value(client: u64, number: u64) -> String {
    format!("value {number} of client {client}")
}

/// Reads every key, linearizably, and compares.
///
/// # Errors
/// The keys cannot be read.
pub async fn check(client: &Arc<Client>, written: &[Written]) -> anyhow::Result<Findings> {
    let meta = client.meta(ACTOR);
    let mut found = BTreeMap::new();
    let (mut from, end) = (PREFIX.as_bytes().to_vec(), format!("{}0", PREFIX.trim_end_matches('/')).into_bytes());
    loop {
        let page = meta.kv().range(Keys::Between(from.clone(), end.clone()), PAGE).await?;
        let last = page.pairs.last().map(|pair| pair.key.clone());
        found.extend(page.pairs.into_iter().map(|pair| (pair.key, pair.value)));
        match last.filter(|_| page.more) {
            Some(mut last) => {
                last.push(0);
                from = last;
            }
            None => return Ok(count(written, found)),
        }
    }
}

fn count(written: &[Written], mut found: BTreeMap<Vec<u8>, Vec<u8>>) -> Findings {
    let mut findings = Findings::default();
    for (client, written) in (0..).zip(written) {
        for number in 0..written.next {
            let held = found.remove(key(client, number).as_bytes());
            let is_unknown = written.unknown.contains(&number);
            findings.unknown += u64::from(is_unknown);
            findings.acknowledged += u64::from(!is_unknown);
            match held {
                Some(held) => findings.wrong += u64::from(held != value(client, number).as_bytes()),
                None => findings.lost += u64::from(!is_unknown),
            }
        }
    }
    findings.wrong += found.len() as u64;
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_changed_and_foreign_keys_are_seen() {
        let written = || vec![Written { next: 3, unknown: BTreeSet::from([2]) }];
        let pair = |number: u64, text: String| (key(0, number).into_bytes(), text.into_bytes());
        let good: BTreeMap<_, _> = [pair(0, value(0, 0)), pair(1, value(0, 1))].into();
        let seen = Findings { acknowledged: 2, unknown: 1, ..Findings::default() };
        assert_eq!(count(&written(), good.clone()), seen);
        let mut with_unknown = good.clone();
        with_unknown.extend([pair(2, value(0, 2))]);
        assert_eq!(count(&written(), with_unknown), seen);
        let bad = [pair(1, "other".to_owned()), pair(7, value(0, 7))].into();
        assert_eq!(count(&written(), bad), Findings { lost: 1, wrong: 2, ..seen });
    }
}
