//! The record, and the fragments it is written in.
//!
//! ```text
//!  offset  bytes
//!       0      4  length of the payload in this fragment
//!       4      4  CRC-32 of: LSN of this fragment (8 bytes), header without the CRC (12 bytes), payload
//!       8      4  timeline
//!      12      1  kind
//!      13      1  flags
//!      14      2  zero, reserved
//!      16      n  payload, then zeros up to the next multiple of 8
//! ```
//!
//! All numbers are little-endian. The LSN in the CRC keeps bytes that were copied from elsewhere, or left over from
//! an earlier use of the same space, from passing as a record. A record that reaches over the end of its segment is
//! written as several fragments: all but the last have [`Flags::CONTINUES`], all but the first [`Flags::CONTINUED`].
//!
//! A *mark* has 8 bytes of payload: the LSN that was known durable when it was written, before the flush that
//! carries it. It is the log's own evidence of how far it once reached.

use crate::lsn::{Lsn, TimelineId};

/// Length of a header.
pub const HEADER_BYTES: usize = 16;
/// Every record starts at a multiple of this.
pub const ALIGNMENT: usize = 8;
/// No record is longer than this, whatever the settings say.
pub const MAX_PAYLOAD_BYTES: u64 = 1 << 30;
/// Length of a mark's payload.
pub const MARK_PAYLOAD_BYTES: usize = 8;

/// A record of the engine, as a reader hands it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it starts.
    pub start: Lsn,
    /// Where it ends: replay continues here once it is applied.
    pub end: Lsn,
    /// The bytes that were appended.
    pub payload: Vec<u8>,
}

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Bytes of the engine.
    Data = 1,
    /// Nothing: fills space.
    Pad = 2,
    /// The LSN known durable before the flush that carries it.
    Mark = 3,
    /// Wall-clock time, for people who ask for a date.
    Clock = 4,
    /// The start of an epoch.
    Epoch = 5,
    /// A checkpoint of the engine.
    Checkpoint = 6,
}

impl Kind {
    /// The kind with this number.
    pub fn from_number(number: u8) -> Option<Kind> {
        [Kind::Data, Kind::Pad, Kind::Mark, Kind::Clock, Kind::Epoch, Kind::Checkpoint]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Data => "data",
            Kind::Pad => "pad",
            Kind::Mark => "mark",
            Kind::Clock => "clock",
            Kind::Epoch => "epoch",
            Kind::Checkpoint => "checkpoint",
        }
    }
}

/// How a fragment's payload is to be understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// The record goes on in the next segment.
    pub const CONTINUES: Flags = Flags(0b0001);
    /// The record began in an earlier segment.
    pub const CONTINUED: Flags = Flags(0b0010);
    /// Reserved: the payload is compressed.
    pub const COMPRESSED: Flags = Flags(0b0100);
    /// Reserved: the payload ends with an authentication code.
    pub const AUTHENTICATED: Flags = Flags(0b1000);

    const UNDERSTOOD: Flags = Flags(Flags::CONTINUES.0 | Flags::CONTINUED.0);

    /// Whether all of `other` are set.
    pub fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// With `other` set if `condition`.
    #[must_use]
    pub fn with(self, other: Flags, condition: bool) -> Flags {
        if condition { Flags(self.0 | other.0) } else { self }
    }
}

/// The header of a fragment, as read; it says nothing yet about the payload being whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentHeader {
    /// Bytes of payload behind it.
    pub payload_len: usize,
    /// The timeline it was written on.
    pub timeline: TimelineId,
    /// The kind's number.
    pub kind: u8,
    /// Its flags.
    pub flags: Flags,
    crc: u32,
    reserved: u16,
}

/// What is wrong with a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FragmentFault {
    /// There is none: zeros.
    Blank,
    /// The length reaches beyond the segment.
    Length {
        /// The length it states.
        payload_len: usize,
        /// The longest that fits.
        room: usize,
    },
    /// The checksum does not match.
    Checksum {
        /// Computed from the bytes.
        computed: u32,
        /// Stated by the header.
        stated: u32,
    },
    /// It was written on another timeline than belongs here.
    Timeline {
        /// The one that belongs here.
        expected: TimelineId,
        /// The one it states.
        found: TimelineId,
    },
    /// Whole, but of a kind or with flags that this version does not know: a later version wrote it.
    Unknown {
        /// The kind's number.
        kind: u8,
        /// The flags.
        flags: u8,
    },
}

impl FragmentFault {
    /// What should be there and what is, for people.
    pub fn expected_found(&self) -> (String, String) {
        match *self {
            FragmentFault::Blank => ("a record".into(), "zeros".into()),
            FragmentFault::Length { payload_len, room } => {
                (format!("a length of at most {room} bytes"), format!("{payload_len} bytes"))
            }
            FragmentFault::Checksum { computed, stated } => {
                (format!("bytes with CRC {stated:08x}, as their header states"), format!("CRC {computed:08x}"))
            }
            FragmentFault::Timeline { expected, found } => {
                (format!("timeline {expected}"), format!("timeline {found}"))
            }
            FragmentFault::Unknown { kind, flags } => {
                ("a kind and flags that this version knows".into(), format!("kind {kind}, flags {flags:#04x}"))
            }
        }
    }
}

impl FragmentHeader {
    /// Takes a header apart.
    ///
    /// # Errors
    /// All zeros, or a length of more than `room`.
    pub fn decode(bytes: &[u8; HEADER_BYTES], room: usize) -> Result<FragmentHeader, FragmentFault> {
        if *bytes == [0; HEADER_BYTES] {
            return Err(FragmentFault::Blank);
        }
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let payload_len = u32_at(0) as usize;
        if payload_len > room {
            return Err(FragmentFault::Length { payload_len, room });
        }
        Ok(FragmentHeader {
            payload_len,
            timeline: TimelineId::new(u32_at(8)),
            kind: bytes[12],
            flags: Flags(bytes[13]),
            crc: u32_at(4),
            reserved: u16::from_le_bytes([bytes[14], bytes[15]]),
        })
    }

    /// Whether header and payload belong together at `lsn`, and this version understands them.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, lsn: Lsn, payload: &[u8], timeline: TimelineId) -> Result<Kind, FragmentFault> {
        let computed = self.checksum(lsn, payload);
        if computed != self.crc {
            return Err(FragmentFault::Checksum { computed, stated: self.crc });
        }
        if self.timeline != timeline {
            return Err(FragmentFault::Timeline { expected: timeline, found: self.timeline });
        }
        let known_flags = self.flags.0 & !Flags::UNDERSTOOD.0 == 0 && self.reserved == 0;
        Kind::from_number(self.kind)
            .filter(|_| known_flags)
            .ok_or(FragmentFault::Unknown { kind: self.kind, flags: self.flags.0 })
    }

    /// The checksum that it states.
    pub fn stated_crc(&self) -> u32 {
        self.crc
    }

    /// The header of a new fragment.
    pub fn new(lsn: Lsn, timeline: TimelineId, kind: Kind, flags: Flags, payload: &[u8]) -> FragmentHeader {
        let mut header =
            FragmentHeader { payload_len: payload.len(), timeline, kind: kind as u8, flags, crc: 0, reserved: 0 };
        header.crc = header.checksum(lsn, payload);
        header
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        // A payload never exceeds a segment, and that never 1 GiB.
        bytes[0..4].copy_from_slice(&(self.payload_len as u32).to_le_bytes());
        bytes[4..8].copy_from_slice(&self.crc.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.timeline.get().to_le_bytes());
        bytes[12] = self.kind;
        bytes[13] = self.flags.0;
        bytes[14..16].copy_from_slice(&self.reserved.to_le_bytes());
        bytes
    }

    /// The checksum of this header and `payload` at `lsn`, whatever it states.
    pub fn checksum(&self, lsn: Lsn, payload: &[u8]) -> u32 {
        let header = self.encode();
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&lsn.get().to_le_bytes());
        hasher.update(&header[0..4]);
        hasher.update(&header[8..16]);
        hasher.update(payload);
        hasher.finalize()
    }
}

/// The payload of a mark.
pub fn encode_mark(durable: Lsn) -> [u8; MARK_PAYLOAD_BYTES] {
    durable.get().to_le_bytes()
}

/// The LSN that a mark states; `None` if the payload is not a mark's.
pub fn decode_mark(payload: &[u8]) -> Option<Lsn> {
    payload.try_into().ok().map(|bytes| Lsn::new(u64::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AT: Lsn = Lsn::new(0x400_0040);

    #[test]
    fn golden_bytes() {
        let flags = Flags::default().with(Flags::CONTINUES, true);
        let bytes = FragmentHeader::new(AT, TimelineId::FIRST, Kind::Data, flags, b"mainstay").encode();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "08000000db97b16f0100000001010000");
        assert_eq!(encode_mark(AT), [0x40, 0, 0, 4, 0, 0, 0, 0]);
        assert_eq!(decode_mark(&encode_mark(AT)), Some(AT));
        assert_eq!(decode_mark(b"short"), None);
    }

    proptest! {
        #[test]
        fn round_trip(lsn in 0u64.., payload: Vec<u8>, kind in 1u8..=6, bits in 0u8..4) {
            let (lsn, kind) = (Lsn::new(lsn), Kind::from_number(kind).unwrap());
            let header = FragmentHeader::new(lsn, TimelineId::FIRST, kind, Flags(bits), &payload);
            let decoded = FragmentHeader::decode(&header.encode(), payload.len()).unwrap();
            prop_assert_eq!(decoded, header);
            prop_assert_eq!(decoded.check(lsn, &payload, TimelineId::FIRST), Ok(kind));
            // The same bytes anywhere else are no record.
            prop_assert!(decoded.check(lsn.advanced(8), &payload, TimelineId::FIRST).is_err() || lsn.get() > u64::MAX - 8);
            prop_assert!(decoded.check(lsn, &payload, TimelineId::new(2)).is_err());
        }

        #[test]
        fn a_flipped_bit_is_found(payload in prop::collection::vec(any::<u8>(), 1..64), bit: prop::sample::Index) {
            let header = FragmentHeader::new(AT, TimelineId::FIRST, Kind::Data, Flags::default(), &payload);
            let mut bytes = [header.encode().as_slice(), &payload].concat();
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let (head, body) = bytes.split_first_chunk().unwrap();
            let whole = FragmentHeader::decode(head, payload.len())
                .and_then(|header| header.check(AT, &body[..header.payload_len], TimelineId::FIRST));
            prop_assert!(whole.is_err());
        }

        #[test]
        fn garbage_never_panics(head: [u8; HEADER_BYTES], room in 0usize..1 << 20) {
            if let Ok(header) = FragmentHeader::decode(&head, room) {
                let _ = header.check(AT, &vec![0; header.payload_len], TimelineId::FIRST);
            }
        }
    }

    #[test]
    fn what_a_later_version_wrote_is_told_from_damage() {
        for (kind, flags) in [(7, Flags::default()), (1, Flags::COMPRESSED), (1, Flags::AUTHENTICATED)] {
            let mut header = FragmentHeader::new(AT, TimelineId::FIRST, Kind::Data, flags, b"x");
            header.kind = kind;
            header.crc = header.checksum(AT, b"x");
            let unknown = Err(FragmentFault::Unknown { kind, flags: flags.0 });
            assert_eq!(header.check(AT, b"x", TimelineId::FIRST), unknown);
        }
    }
}
