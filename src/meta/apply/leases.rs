//! Leases. How long they last is counted by the leader's clock, outside of the machine: here they are granted and
//! renewed, and an `Expire` ends one only if it was not renewed since the clock looked. A renewal is named by the entry that
//! made it: so an `Expire` that comes late ends no other lease that was granted under the same number since.

use super::{Fault, Step, ensure, refused};
use crate::meta::fault::{self, Fault as Broken};
use crate::meta::keys::{self, Kv};
use crate::meta::limits::{MAX_DELETED_KEYS, MAX_EXPIRED, MAX_LEASE_ID, MAX_TTL_MS};
use crate::meta::proto::{DeleteDone, Expire, Expired, GrantLease, Lease, Refusal};
use crate::meta::read;
use crate::meta::settings::Name;
use crate::meta::view::View;
use crate::raftstore::log_store::Table;

impl Step<'_> {
    pub(super) fn grant_lease(&mut self, grant: &GrantLease) -> Result<Lease, Fault> {
        let (min, max) = (self.setting(Name::KvLeaseMinTtl), MAX_TTL_MS);
        ensure((min..=max).contains(&grant.ttl_ms), Refusal::OutOfRange, || {
            format!("a lease of {} ms; it must be {min} ms (kv.lease_min_ttl) to {max} ms", grant.ttl_ms)
        })?;
        ensure(grant.id <= MAX_LEASE_ID, Refusal::Invalid, || format!("a lease's number is at most {MAX_LEASE_ID}"))?;
        let max_count = self.setting(Name::KvMaxLeases);
        ensure(self.state.kv.leases < max_count, Refusal::TooMany, || {
            format!("there are {max_count} leases already (kv.max_leases)")
        })?;
        let next = self.state.kv.next_lease.max(1);
        let id = if grant.id == 0 { next } else { grant.id };
        let key = Kv::Lease.numbered(id);
        let taken = self.record::<Lease>(Table::Kv, &key)?.is_some();
        ensure(!taken, Refusal::LeaseExists, || format!("there is a lease {id} already"))?;
        self.state.kv.next_lease = next.max(id + 1);
        self.state.kv.leases += 1;
        let lease = Lease { id, ttl_ms: grant.ttl_ms, renewal: self.origin.index, keys: 0 };
        self.put_record(Table::Kv, key, &lease);
        Ok(lease)
    }

    pub(super) fn keep_alive(&mut self, id: u64) -> Result<Lease, Fault> {
        let mut lease = self.lease(id)?;
        lease.renewal = self.origin.index;
        self.put_record(Table::Kv, Kv::Lease.numbered(id), &lease);
        Ok(lease)
    }

    pub(super) fn revoke_lease(&mut self, id: u64) -> Result<DeleteDone, Fault> {
        let lease = self.lease(id)?;
        let deleted = self.end_lease(&lease)?;
        Ok(DeleteDone { revision: self.state.kv.revision, deleted })
    }

    /// Ends what is due. Once as many keys went as one command may delete, the rest waits for the next.
    pub(super) fn expire(&mut self, expire: &Expire) -> Result<Expired, Fault> {
        let longest = expire.leases.len().max(expire.tokens.len());
        ensure(longest <= MAX_EXPIRED, Refusal::TooMany, || format!("{MAX_EXPIRED} may expire at once"))?;
        let mut expired = Expired::default();
        let mut deleted = 0;
        for due in &expire.leases {
            let lease = self.record::<Lease>(Table::Kv, &Kv::Lease.numbered(due.id))?;
            let Some(lease) =
                lease.filter(|lease| lease.renewal == due.renewal || fault::active(Broken::ExpireUnchecked))
            else {
                continue;
            };
            if deleted > 0 && deleted + lease.keys > MAX_DELETED_KEYS as u64 {
                continue;
            }
            deleted += self.end_lease(&lease)?;
            expired.leases.push(lease.id);
        }
        for id in &expire.tokens {
            if self.expire_token(*id)? {
                expired.tokens.push(*id);
            }
        }
        Ok(expired)
    }

    pub(super) fn lease(&self, id: u64) -> Result<Lease, Fault> {
        let lease = self.record(Table::Kv, &Kv::Lease.numbered(id))?;
        lease.ok_or_else(|| refused(Refusal::NoSuchLease, format!("there is no lease {id}: it may have expired")))
    }

    /// Deletes a lease and its keys, and says how many they were.
    fn end_lease(&mut self, lease: &Lease) -> Result<u64, Fault> {
        let range = keys::lease_keys(lease.id);
        let mut held = self.view.scan(Table::Kv, &range.start..&range.end, MAX_DELETED_KEYS)?;
        if fault::active(Broken::ExpiryInAnyOrder) && fault::millis() % 2 == 1 {
            held.reverse();
        }
        for (at, value) in &held {
            let key = keys::decode_lease_key(at).ok_or_else(|| keys::damaged(Table::Kv, at, "a lease's key", value))?;
            if let Some(pair) = read::latest(&self.view, key)? {
                self.delete_pair(&pair)?;
            }
        }
        self.view.delete(Table::Kv, Kv::Lease.numbered(lease.id));
        self.state.kv.leases = self.state.kv.leases.saturating_sub(1);
        Ok(held.len() as u64)
    }
}
