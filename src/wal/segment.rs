//! The header of a segment file.
//!
//! ```text
//!  offset  bytes
//!       0      8  magic "MAINSWAL"
//!       8      4  format version, 1
//!      12      4  timeline
//!      16      8  system id
//!      24      8  LSN of the segment's first byte
//!      32      8  segment size in bytes
//!      40     20  zero, reserved
//!      60      4  CRC-32 of bytes 0..60
//!      64         records
//! ```
//!
//! All numbers are little-endian. A segment gets its final name only after its header and its zeros are durable, so a
//! file of that name whose header does not check out is damaged, never torn.

use super::layout::{Layout, SegmentNumber};
use crate::ident::SystemId;
use crate::lsn::{Lsn, TimelineId};

/// Length of the header.
pub const HEADER_BYTES: usize = 64;
/// The format that this build writes.
pub const FORMAT_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"MAINSWAL";
const CRC_OFFSET: usize = 60;

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The lineage it belongs to.
    pub system: SystemId,
    /// The timeline it was written on.
    pub timeline: TimelineId,
    /// The position of its first byte.
    pub start: Lsn,
    /// Its size.
    pub segment_bytes: u64,
}

/// Why bytes are not a segment header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// They are not one, or not any more.
    Damaged {
        /// Where in the header.
        offset: u64,
        /// What should stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// They were written by a later version.
    Newer {
        /// Its version.
        version: u32,
    },
}

impl SegmentHeader {
    /// The header of a segment of this log.
    pub fn new(layout: Layout, system: SystemId, timeline: TimelineId, number: SegmentNumber) -> SegmentHeader {
        SegmentHeader { system, timeline, start: layout.segment_start(number), segment_bytes: layout.segment_bytes() }
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.timeline.get().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.system.get().to_le_bytes());
        bytes[24..32].copy_from_slice(&self.start.get().to_le_bytes());
        bytes[32..40].copy_from_slice(&self.segment_bytes.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..CRC_OFFSET]);
        bytes[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header back.
    ///
    /// # Errors
    /// The bytes are damaged or of a later version.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<SegmentHeader, HeaderFault> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if bytes[0..8] != MAGIC {
            return Err(HeaderFault::Damaged {
                offset: 0,
                expected: format!("magic {:?}", String::from_utf8_lossy(&MAGIC)),
                found: format!("{:02x?}", &bytes[0..8]),
            });
        }
        let (crc, stored) = (crc32fast::hash(&bytes[..CRC_OFFSET]), u32_at(CRC_OFFSET));
        if crc != stored {
            return Err(HeaderFault::Damaged {
                offset: 0,
                expected: format!("a header with CRC {stored:08x}, as it states"),
                found: format!("CRC {crc:08x}"),
            });
        }
        if u32_at(8) != FORMAT_VERSION {
            return Err(HeaderFault::Newer { version: u32_at(8) });
        }
        Ok(SegmentHeader {
            system: SystemId::new(u64_at(16)),
            timeline: TimelineId::new(u32_at(12)),
            start: Lsn::new(u64_at(24)),
            segment_bytes: u64_at(32),
        })
    }

    /// Where this header differs from the one that should be there, first difference first.
    pub fn difference(&self, expected: &SegmentHeader) -> Option<(u64, String, String)> {
        let fields = [
            (16, "system id", self.system.get(), expected.system.get()),
            (12, "timeline", u64::from(self.timeline.get()), u64::from(expected.timeline.get())),
            (24, "start LSN", self.start.get(), expected.start.get()),
            (32, "segment size", self.segment_bytes, expected.segment_bytes),
        ];
        fields.into_iter().find(|(_, _, found, wanted)| found != wanted).map(|(offset, name, found, wanted)| {
            let show = |value| if name == "start LSN" { Lsn::new(value).to_string() } else { value.to_string() };
            (offset, format!("{name} {}", show(wanted)), show(found))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        let layout = Layout::new(64 << 20);
        SegmentHeader::new(layout, SystemId::new(0x0123_4567_89AB_CDEF), TimelineId::FIRST, SegmentNumber(1))
    }

    #[test]
    fn golden_bytes() {
        let hex: String = header().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "4d41494e5357414c0100000001000000efcdab89674523010000000400000000\
             00000004000000000000000000000000000000000000000000000000f412116d"
        );
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let bytes = header().encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_later_version_is_told_from_damage() {
        let mut bytes = header().encode();
        bytes[8] = 2;
        let crc = crc32fast::hash(&bytes[..CRC_OFFSET]).to_le_bytes();
        bytes[CRC_OFFSET..].copy_from_slice(&crc);
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderFault::Newer { version: 2 }));
    }

    #[test]
    fn a_foreign_segment_is_named() {
        let mut other = header();
        other.start = Lsn::new(1 << 33);
        let (offset, expected, found) = other.difference(&header()).unwrap();
        assert_eq!((offset, expected.as_str(), found.as_str()), (24, "start LSN 0/4000000", "2/0"));
    }
}
