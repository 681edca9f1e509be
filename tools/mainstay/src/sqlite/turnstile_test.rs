use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

use super::*;

struct Nobody;

impl Single for Nobody {
    fn give_up(self, _: Waited) {}

    fn len_bytes(&self) -> usize {
        0
    }
}

/// A statement by its number, and where it says what it was told.
struct Numbered(u32, mpsc::Sender<(u32, Waited)>);

impl Single for Numbered {
    fn give_up(self, waited: Waited) {
        self.1.send((self.0, waited)).unwrap();
    }

    fn len_bytes(&self) -> usize {
        0
    }
}

const SOON: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(30);

#[test]
fn one_at_a_time_and_bounded() {
    let turnstile = Turnstile::<_, Nobody>::new(());
    let never = AtomicBool::new(false);
    let first = turnstile.acquire(SOON, &never).unwrap();
    assert_eq!(turnstile.acquire(SOON, &never), Err(Waited::TooLong));
    turnstile.release(first);
    let second = turnstile.acquire(SOON, &never).unwrap();
    assert!(turnstile.writer(first).is_none() && turnstile.writer(second).is_some());
}

#[test]
fn in_order() {
    let turnstile = Arc::new(Turnstile::<_, Nobody>::new(Vec::new()));
    let first = turnstile.acquire(LONG, &AtomicBool::new(false)).unwrap();
    let threads: Vec<_> = (0..8)
        .map(|number| {
            let shared = Arc::clone(&turnstile);
            let thread = std::thread::spawn(move || {
                let ticket = shared.acquire(LONG, &AtomicBool::new(false)).unwrap();
                shared.writer(ticket).unwrap().push(number);
                shared.release(ticket);
            });
            while turnstile.queue.lock().waiting.len() <= number {
                std::thread::yield_now();
            }
            thread
        })
        .collect();
    turnstile.release(first);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(*turnstile.writer.lock(), (0..8).collect::<Vec<_>>());
}

#[test]
fn waiting_can_be_cancelled() {
    let turnstile = Arc::new(Turnstile::<_, Nobody>::new(()));
    let cancelled = Arc::new(AtomicBool::new(false));
    let first = turnstile.acquire(LONG, &cancelled).unwrap();
    let (shared, flag) = (Arc::clone(&turnstile), Arc::clone(&cancelled));
    let thread = std::thread::spawn(move || shared.acquire(LONG, &flag));
    cancelled.store(true, Ordering::SeqCst);
    turnstile.wake();
    assert_eq!(thread.join().unwrap(), Err(Waited::Cancelled));
    turnstile.release(first);
}

#[test]
fn a_turn_can_be_revoked() {
    let turnstile = Turnstile::<_, Nobody>::new(1);
    let never = AtomicBool::new(false);
    let first = turnstile.acquire(SOON, &never).unwrap();
    assert!(turnstile.revoke(SOON, |writer| *writer += 1));
    assert!(turnstile.writer(first).is_none());
    let second = turnstile.acquire(SOON, &never).unwrap();
    turnstile.release(first);
    assert_eq!(turnstile.writer(second).as_deref(), Some(&2));
}

#[test]
fn who_lost_the_turn_does_not_wait_for_the_writer() {
    let turnstile = Arc::new(Turnstile::<_, Nobody>::new(()));
    let never = AtomicBool::new(false);
    let lost = turnstile.acquire(SOON, &never).unwrap();
    assert!(turnstile.revoke(SOON, |()| ()));
    let owner = turnstile.acquire(SOON, &never).unwrap();
    let used = turnstile.writer(owner).unwrap();
    let shared = Arc::clone(&turnstile);
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || tell.send(shared.writer(lost).is_none()).unwrap());
    assert_eq!(told.recv_timeout(LONG), Ok(true));
    drop(used);
    thread.join().unwrap();
}

#[test]
fn who_waits_on_a_thread_gets_the_turn_of_a_closed_engine() {
    let turnstile = Arc::new(Turnstile::<_, Nobody>::new(()));
    let first = turnstile.acquire(LONG, &AtomicBool::new(false)).unwrap();
    turnstile.queue_statement(LONG, Nobody);
    let shared = Arc::clone(&turnstile);
    let begun = Instant::now();
    let thread = std::thread::spawn(move || shared.acquire(LONG, &AtomicBool::new(false)).is_ok());
    while turnstile.queue.lock().waiting.len() < 2 {
        std::thread::yield_now();
    }
    turnstile.close();
    turnstile.release(first);
    assert!(turnstile.next(0).is_none() && turnstile.late().is_none());
    assert!(thread.join().unwrap() && begun.elapsed() < LONG);
}

/// A group, with the places of its statements, and what they are told.
type Group = (Turnstile<(), Numbered>, Vec<Ticket>, mpsc::Receiver<(u32, Waited)>);

/// A group of such statements, numbered from 0 on.
fn group(limits: &[Duration]) -> Group {
    let turnstile = Turnstile::new(());
    let (tell, told) = mpsc::channel();
    let numbered = (0..).zip(limits);
    let places =
        numbered.map(|(number, limit)| turnstile.queue_statement(*limit, Numbered(number, tell.clone()))).collect();
    assert!(matches!(turnstile.next(usize::MAX), Some(Work::Group(_))));
    (turnstile, places, told)
}

/// Runs the next of the group; answers its number and how it stands.
fn run_next(turnstile: &Turnstile<(), Numbered>, is_first: bool) -> Option<(u32, Standing)> {
    let (_, Numbered(number, _), standing) = turnstile.run_next(is_first, |_, standing| standing)?;
    Some((number, standing))
}

fn tell_late<W, S: Single>(turnstile: &Turnstile<W, S>) {
    turnstile.late().into_iter().flatten().for_each(|late| late.tell(Waited::TooLong));
}

#[test]
fn the_alarm_finds_whoever_has_waited_for_too_long() {
    let (turnstile, _, told) = group(&[LONG, SOON, LONG]);
    let tell = told_by(&turnstile, &[(10, LONG), (11, SOON)]);
    tell_late(&turnstile);
    while told.try_recv() != Ok((1, Waited::TooLong)) {
        tell_late(&turnstile);
    }
    while tell.try_recv() != Ok((11, Waited::TooLong)) {
        tell_late(&turnstile);
    }
    assert_eq!(turnstile.waiting(), 3);
    turnstile.close();
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [(0, Waited::Closed), (2, Waited::Closed)]);
    assert_eq!(tell.try_iter().collect::<Vec<_>>(), [(10, Waited::Closed)]);
}

/// Queues such transactions; answers what they are told.
fn told_by(turnstile: &Turnstile<(), Numbered>, limits: &[(u32, Duration)]) -> mpsc::Receiver<(u32, Waited)> {
    let (tell, told) = mpsc::channel();
    for (number, limit) in limits.iter().copied() {
        let tell = tell.clone();
        turnstile.queue_transaction(limit, Box::new(move |told| tell.send((number, told.unwrap_err())).unwrap()));
    }
    told
}

#[test]
fn only_a_nearer_deadline_wakes_the_alarm() {
    let turnstile = Turnstile::<_, Nobody>::new(());
    let owner = turnstile.acquire(SOON, &AtomicBool::new(false)).unwrap();
    turnstile.queue_statement(LONG, Nobody);
    let first = turnstile.queue.lock().alarm.unwrap();
    turnstile.queue_statement(LONG, Nobody);
    assert_eq!(turnstile.queue.lock().alarm, Some(first));
    turnstile.queue_statement(SOON, Nobody);
    assert!(turnstile.queue.lock().alarm.unwrap() < first);
    assert_eq!(turnstile.late().map(|late| late.len()), Some(1));
    assert_eq!(turnstile.queue.lock().alarm, Some(first));
    turnstile.release(owner);
}

#[test]
fn the_rest_of_a_group_can_be_cancelled() {
    let (turnstile, places, told) = group(&[LONG; 4]);
    let stopped = std::cell::Cell::new(0);
    let run = |_: &mut _, standing: Standing| {
        turnstile.cancel(places[2], || stopped.set(stopped.get() + 10));
        turnstile.cancel(places[0], || stopped.set(stopped.get() + 1));
        (standing.is_last, standing.ran_before)
    };
    assert_eq!(turnstile.run_next(true, run).unwrap().2, (false, false));
    assert_eq!((stopped.get(), told.try_recv()), (1, Ok((2, Waited::Cancelled))));
    // It is over.
    turnstile.cancel(places[0], || stopped.set(100));
    assert_eq!(stopped.get(), 1);
    assert_eq!(run_next(&turnstile, false).map(|(number, _)| number), Some(1));
    assert_eq!(run_next(&turnstile, false), Some((3, Standing { is_last: true, ran_before: false })));
    assert_eq!(run_next(&turnstile, true), None);
}

#[test]
fn what_runs_again_can_be_cancelled_and_does_not_come_too_late() {
    let (turnstile, places, told) = group(&[SOON, SOON, SOON, SOON, LONG]);
    let ran: Vec<_> = std::iter::from_fn(|| turnstile.run_next(false, |_, _| ())).take(4).collect();
    let mut ran: Vec<_> = ran.into_iter().map(|(place, statement, ())| (place, statement)).collect();
    let (place, culprit) = ran.remove(1);
    turnstile.put_back(ran);
    turnstile.put_last(place, culprit);
    let (nearest, last) = {
        let queue = turnstile.queue.lock();
        (queue.nearest(), queue.group[3].deadline)
    };
    assert!(last.is_some() && nearest == last, "of what did not run yet");
    turnstile.cancel(places[2], || panic!("it does not run"));
    assert_eq!(told.try_recv(), Ok((2, Waited::Cancelled)));
    for expected in [(0, true), (3, true), (4, false)] {
        assert_eq!(turnstile.next_is_alone(), Some(false));
        assert_eq!(run_next(&turnstile, false).map(|(number, standing)| (number, standing.ran_before)), Some(expected));
    }
    assert_eq!((turnstile.next_is_alone(), run_next(&turnstile, false)), (Some(true), None));
    assert_eq!(run_next(&turnstile, true), Some((1, Standing { is_last: true, ran_before: true })));
    assert_eq!(turnstile.next_is_alone(), None);
}

#[test]
fn a_panic_ends_the_statement_that_runs() {
    let (turnstile, places, told) = group(&[LONG; 2]);
    let run = || turnstile.run_next(true, |_, _| panic!("on purpose"));
    assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
    turnstile.cancel(places[0], || panic!("it runs no more"));
    assert_eq!(turnstile.end_group().len(), 1);
    assert_eq!((turnstile.waiting(), told.try_recv().is_err()), (0, true));
}
