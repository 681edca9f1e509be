//! How many clients may be connected, some of them superusers only.

use std::sync::Arc;

use parking_lot::Mutex;

use super::super::error::{SqlError, SqlState};

/// Places for connections.
pub(in super::super) struct Slots {
    /// Those that are not taken.
    free: Mutex<usize>,
    /// The last so many are for superusers.
    reserved: usize,
}

/// A place; given back when it is dropped.
pub(in super::super) struct Slot(Arc<Slots>);

impl Slots {
    /// So many places, the last `reserved` of them for superusers, but never all.
    pub(in super::super) fn new(limit: usize, reserved: usize) -> Slots {
        Slots { free: Mutex::new(limit), reserved: reserved.min(limit.saturating_sub(1)) }
    }

    /// Takes a place.
    ///
    /// # Errors
    /// 53300: none is left, or none for this client.
    pub(in super::super) fn take(self: &Arc<Self>, is_superuser: bool) -> Result<Slot, SqlError> {
        let mut free = self.free.lock();
        let left = free.checked_sub(1).ok_or_else(|| too_many("sorry, too many clients already"))?;
        if left < self.reserved && !is_superuser {
            return Err(too_many("remaining connection slots are reserved for superuser connections"));
        }
        *free = left;
        Ok(Slot(Arc::clone(self)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
    }
}

fn too_many(message: &str) -> SqlError {
    SqlError::fatal(SqlState::TOO_MANY_CONNECTIONS, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_places_are_for_superusers() {
        let slots = Arc::new(Slots::new(3, 2));
        let refusal = |is_superuser| slots.take(is_superuser).err().map(|error| error.message);
        let first = slots.take(false).unwrap();
        assert!(refusal(false).unwrap().contains("reserved"));
        let _second = slots.take(true).unwrap();
        let third = slots.take(true).unwrap();
        assert!(refusal(true).unwrap().contains("too many clients"));
        assert!(refusal(false).unwrap().contains("too many clients"));
        drop(third);
        assert!(refusal(false).is_some());
        drop(first);
        assert!(refusal(false).is_some() && refusal(true).is_none());
    }

    #[test]
    fn one_place_is_for_everybody() {
        assert!(Arc::new(Slots::new(1, 3)).take(false).is_ok());
    }
}
