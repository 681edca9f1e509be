//! Messages that travel together in one, and are counted while they are decoded.
//!
//! ```text
//! { 0A len message }        again and again, no more than the limit
//! ```
//!
//! Encoded and decoded by hand: a generated decoder would make a value of some sixty or a hundred bytes of each two bytes that
//! say "an empty message"; this one keeps no more than may travel together, whatever arrives.

use bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, check_wire_type, message, skip_field};
use prost::{DecodeError, Message};

const TAG: u32 = 1;

/// At most `LIMIT` messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch<M, const LIMIT: usize> {
    /// The messages, in order.
    pub messages: Vec<M>,
    /// Whether there were more than `LIMIT` when it was decoded. They were not kept.
    pub is_cut: bool,
}

impl<M, const LIMIT: usize> Batch<M, LIMIT> {
    /// These; who makes a batch sees to it that they are no more than may be.
    pub fn of(messages: Vec<M>) -> Batch<M, LIMIT> {
        Batch { messages, is_cut: false }
    }
}

impl<M, const LIMIT: usize> Default for Batch<M, LIMIT> {
    fn default() -> Batch<M, LIMIT> {
        Batch::of(Vec::new())
    }
}

/// How many bytes a message takes in a batch.
pub fn size_bytes(message: &impl Message) -> usize {
    message::encoded_len(TAG, message)
}

impl<M: Message + Default, const LIMIT: usize> Message for Batch<M, LIMIT> {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        message::encode_repeated(TAG, &self.messages, buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag != TAG {
            return skip_field(wire_type, tag, buf, context);
        }
        if self.messages.len() >= LIMIT {
            check_wire_type(WireType::LengthDelimited, wire_type)?;
            self.is_cut = true;
            return skip_field(wire_type, tag, buf, context);
        }
        message::merge_repeated(wire_type, &mut self.messages, buf, context)
    }

    fn encoded_len(&self) -> usize {
        message::encoded_len_repeated(TAG, &self.messages)
    }

    fn clear(&mut self) {
        *self = Batch::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_kept_than_may_travel_together() {
        for (count, kept) in [(3, 3), (4, 3), (100_000, 3)] {
            let decoded = Batch::<u64, 3>::decode(&[0x0A, 0].repeat(count)[..]).unwrap();
            assert_eq!((decoded.messages.len(), decoded.is_cut), (kept, count > kept));
        }
        // Fields of later versions are skipped; what is no message is refused also behind the limit.
        assert_eq!(Batch::<u64, 3>::decode(&[0x10, 1][..]).unwrap(), Batch::default());
        assert!(Batch::<u64, 3>::decode(&[&[0x0A, 0].repeat(3)[..], &[0x08, 0]].concat()[..]).is_err());
    }
}
