//! Memory maps of real files: the library's only `unsafe`.

use std::io;

use memmap2::{Advice, MmapMut, MmapOptions};

use super::Map;

/// A mapped file.
pub(super) struct RealMap {
    pages: MmapMut,
}

impl RealMap {
    /// Maps the first `len_bytes` of a file that is at least that long.
    pub(super) fn new(file: &std::fs::File, len_bytes: u64) -> io::Result<RealMap> {
        let len = usize::try_from(len_bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        if file.metadata()?.len() < len_bytes {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the file is shorter than its map"));
        }
        // SAFETY: the map is reached through `&mut self` only, and never as a slice that outlives a call, so no two
        // references into it exist in this process. Another process, or a plain write to the file, could change the
        // bytes underneath: nobody reads them through the map, and the directory's lock keeps other nodes out. The
        // file is not truncated while it is mapped (checked above to be long enough, and the WAL never shortens a
        // segment), so no access is beyond its end.
        #[allow(unsafe_code)]
        let pages = unsafe { MmapOptions::new().len(len).map_mut(file)? };
        // No read-ahead: a fault would otherwise bring in large folios, see `FILL_BYTES`.
        pages.advise(Advice::Random)?;
        Ok(RealMap { pages })
    }
}

impl Map for RealMap {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let range = start.and_then(|start| Some(start..start.checked_add(bytes.len())?));
        match range.and_then(|range| self.pages.get_mut(range)) {
            Some(target) => {
                target.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "a write outside the map")),
        }
    }
}
