//! Counted reads.

use super::CaptureError;
use std::io::Read;

/// A reader that knows how far it has come.
pub(super) struct Source<R> {
    input: R,
    offset: u64,
}

impl<R: Read> Source<R> {
    pub fn new(input: R) -> Self {
        Self { input, offset: 0 }
    }

    /// How many bytes were read.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next `n` bytes, or as many as there are: memory follows what the file holds, not what it claims.
    pub fn up_to(&mut self, n: u32) -> Result<Vec<u8>, CaptureError> {
        let mut bytes = Vec::new();
        let read = self.input.by_ref().take(u64::from(n)).read_to_end(&mut bytes);
        self.offset += bytes.len() as u64;
        match read {
            Ok(_) => Ok(bytes),
            Err(error) => Err(CaptureError::Io { offset: self.offset, error }),
        }
    }

    /// The next `n` bytes of a part that began at byte `start`.
    pub fn exactly(&mut self, n: u32, what: &'static str, start: u64) -> Result<Vec<u8>, CaptureError> {
        let bytes = self.up_to(n)?;
        if bytes.len() < n as usize {
            return Err(CaptureError::Truncated { what, start, end: self.offset });
        }
        Ok(bytes)
    }

    /// The header of the next part, `None` at the end of the file.
    pub fn header(&mut self, n: u32, what: &'static str) -> Result<Option<Vec<u8>>, CaptureError> {
        let start = self.offset;
        let bytes = self.up_to(n)?;
        match bytes.len() {
            0 => Ok(None),
            len if len < n as usize => Err(CaptureError::Truncated { what, start, end: self.offset }),
            _ => Ok(Some(bytes)),
        }
    }
}
