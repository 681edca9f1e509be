//! That a replica's state is wrong, as it is stored.
//!
//! ```text
//!  version 1 │ cause 1 │ index 8
//!
//!  cause 1 differs   2 damaged
//! ```

use super::{Mismatch, Reader, Writer, wrong_length};
use crate::ident::LogIndex;
use crate::raftstore::entry::{Cause, Unhealthy};

const DIFFERS: u8 = 1;
const DAMAGED: u8 = 2;

pub(in crate::raftstore) fn encode_unhealthy(unhealthy: Unhealthy) -> Vec<u8> {
    let cause = match unhealthy.cause {
        Cause::Differs => DIFFERS,
        Cause::Damaged => DAMAGED,
    };
    Writer::new().u8(cause).u64(unhealthy.index.get()).0
}

pub(in crate::raftstore) fn decode_unhealthy(value: &[u8]) -> Result<Unhealthy, Mismatch> {
    let mut reader = Reader::versioned(value)?;
    let (Some(cause), Some(index), []) = (reader.u8(), reader.u64(), reader.rest()) else {
        return Err(wrong_length(10, value));
    };
    let cause = match cause {
        DIFFERS => Cause::Differs,
        DAMAGED => Cause::Damaged,
        other => return Err(Mismatch::new("cause 1 or 2", format_args!("cause {other}"))),
    };
    Ok(Unhealthy { cause, index: LogIndex::new(index) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        for (cause, number) in [(Cause::Differs, 1), (Cause::Damaged, 2)] {
            let unhealthy = Unhealthy { cause, index: LogIndex::new(0x0203) };
            let bytes = [1, number, 3, 2, 0, 0, 0, 0, 0, 0];
            assert_eq!(encode_unhealthy(unhealthy), bytes);
            assert_eq!(decode_unhealthy(&bytes), Ok(unhealthy));
        }
        let wrong = |bytes: &[u8]| decode_unhealthy(bytes).unwrap_err().to_string();
        assert_eq!(wrong(&[1, 3, 0, 0, 0, 0, 0, 0, 0, 0]), "expected cause 1 or 2, found cause 3");
        assert_eq!(wrong(&[1, 1, 0]), "expected 10 bytes, found 3 bytes");
        assert_eq!(wrong(&[2]), "expected version 1, found version 2");
    }
}
