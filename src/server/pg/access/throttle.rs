//! Failed logins make later ones from the same address wait, so that passwords cannot be guessed quickly.
//!
//! An address that failed lately is looked at one attempt at a time, however many connections it makes, with a pause between
//! them that grows with each attempt that is not a right one. Right passwords wait like wrong ones: who waits must not tell them apart. An IPv6
//! address stands for its network of 64 bits, of which its owner has all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// So many addresses are remembered. The one that failed first is forgotten for another.
const ADDRESSES_LIMIT: usize = 4096;
/// The pause after the first failure; it doubles with each further one.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest pause.
const PAUSE_LIMIT: Duration = Duration::from_millis(1600);
/// An address that did not fail for so long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);

/// The addresses from which logins failed.
#[derive(Default)]
pub(super) struct Throttle(Mutex<HashMap<IpAddr, Failures>>);

/// When an attempt is looked at.
pub(super) struct Turn {
    pub(super) at: Instant,
    address: IpAddr,
    /// It counts among the failures already.
    is_counted: bool,
}

struct Failures {
    count: u32,
    last: Instant,
    /// When the next attempt is looked at.
    next: Instant,
}

impl Throttle {
    /// The turn of an attempt from there; nothing if that is not before `deadline`.
    pub(super) fn turn(&self, address: IpAddr, now: Instant, deadline: Instant) -> Option<Turn> {
        let mut table = self.0.lock();
        let failures = table.get_mut(&network(address));
        let Some(failures) = failures.filter(|failures| now.duration_since(failures.last) <= FORGOTTEN_AFTER) else {
            return Some(Turn { at: now, address, is_counted: false });
        };
        let at = failures.next.max(now);
        if at >= deadline {
            return None;
        }
        // Until it is over it counts as a failure, so that those who try at the same time gain nothing.
        failures.count = failures.count.saturating_add(1);
        failures.next = at + pause(failures.count);
        Some(Turn { at, address, is_counted: true })
    }

    /// An attempt was right after all.
    pub(super) fn succeeded(&self, turn: &Turn, now: Instant) {
        let mut table = self.0.lock();
        if let Some(failures) = table.get_mut(&network(turn.address)).filter(|_| turn.is_counted) {
            let undone = failures.next.checked_sub(pause(failures.count));
            failures.next = undone.unwrap_or(now).max(now);
            failures.count = failures.count.saturating_sub(1);
        }
    }

    /// An attempt failed.
    pub(super) fn failed(&self, turn: &Turn, now: Instant) {
        let address = turn.address;
        let mut table = self.0.lock();
        let network = network(address);
        if table.len() >= ADDRESSES_LIMIT && !table.contains_key(&network) {
            table.retain(|_, failures| now.duration_since(failures.last) <= FORGOTTEN_AFTER);
            let oldest = table.iter().min_by_key(|(_, failures)| failures.last).map(|(address, _)| *address);
            if let Some(oldest) = oldest.filter(|_| table.len() >= ADDRESSES_LIMIT) {
                table.remove(&oldest);
            }
        }
        let failures = table.entry(network).or_insert(Failures { count: 0, last: now, next: now });
        if now.duration_since(failures.last) > FORGOTTEN_AFTER {
            failures.count = 0;
        }
        failures.last = now;
        if !turn.is_counted {
            failures.count = failures.count.saturating_add(1);
            failures.next = failures.next.max(now) + pause(failures.count);
        }
    }
}

/// The pause after so many failures.
fn pause(count: u32) -> Duration {
    PAUSE.saturating_mul(1 << count.saturating_sub(1).min(16)).min(PAUSE_LIMIT)
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    impl Throttle {
        /// When an attempt would be looked at.
        fn at(&self, address: IpAddr, now: Instant) -> Instant {
            self.turn(address, now, now + LONG).unwrap().at
        }

        fn fail(&self, address: IpAddr, now: Instant) {
            self.failed(&self.turn(address, now, now + LONG).unwrap(), now);
        }
    }

    #[test]
    fn pauses_grow_up_to_their_limit() {
        let (throttle, mut now) = (Throttle::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let turn = throttle.turn(address(1), now, now + LONG).unwrap();
            pauses.push((turn.at - now).as_millis());
            now = turn.at;
            throttle.failed(&turn, now);
        }
        assert_eq!(pauses, [0, 50, 100, 200, 400, 800, 1600, 1600]);
        assert_eq!(throttle.at(address(2), now), now, "others do not wait");
    }

    #[test]
    fn many_at_once_gain_nothing_and_stand_in_a_queue_that_ends_at_the_deadline() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        throttle.fail(address(1), now);
        let deadline = now + Duration::from_millis(400);
        let turns: Vec<_> =
            (0..5).map(|_| throttle.turn(address(1), now, deadline).map(|turn| (turn.at - now).as_millis())).collect();
        assert_eq!(turns, [Some(50), Some(150), Some(350), None, None]);
    }

    #[test]
    fn right_passwords_do_not_make_others_wait() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        throttle.fail(address(1), now);
        for _ in 0..20 {
            let turn = throttle.turn(address(1), now, now + LONG).unwrap();
            assert_eq!(turn.at, now + PAUSE);
            throttle.succeeded(&turn, now);
        }
        // Nor do they take back what wrong ones did.
        assert_eq!(throttle.at(address(1), now), now + PAUSE);
        assert_eq!(throttle.at(address(1), now), now + 3 * PAUSE);
    }

    #[test]
    fn failures_are_forgotten() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        (0..10).for_each(|_| throttle.fail(address(1), now));
        let later = now + FORGOTTEN_AFTER + Duration::from_secs(1);
        assert_eq!(throttle.at(address(1), later), later);
        throttle.fail(address(1), later);
        assert_eq!(throttle.at(address(1), later), later + PAUSE);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_oldest() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for number in 0..=u32::try_from(ADDRESSES_LIMIT).unwrap() {
            throttle.fail(IpAddr::V4(number.into()), now + Duration::from_millis(number.into()));
        }
        assert_eq!(throttle.0.lock().len(), ADDRESSES_LIMIT);
        assert_eq!(throttle.at(IpAddr::V4(0.into()), now), now);
        assert!(throttle.at(IpAddr::V4(1.into()), now) > now);
    }

    #[test]
    fn an_owner_of_many_addresses_is_one() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        throttle.fail("2001:db8:1:2::1".parse().unwrap(), now);
        assert!(throttle.at("2001:db8:1:2:ffff::9".parse().unwrap(), now) > now);
        assert_eq!(throttle.at("2001:db8:1:3::1".parse().unwrap(), now), now);
        throttle.fail("::ffff:10.0.0.1".parse().unwrap(), now);
        assert!(throttle.at(address(1), now) > now);
    }
}
