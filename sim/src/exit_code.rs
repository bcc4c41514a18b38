//! What the process ends with.

/// Everything held.
pub const OK: u8 = 0;
/// An expectation or a step failed, or something broke on the way.
pub const FAILED: u8 = 1;
/// The topology file, or the command line, is wrong; nothing was made.
pub const BAD_FILE: u8 = 2;
/// Root is needed.
pub const NOT_PERMITTED: u8 = 5;
/// Interrupted by a signal; what was made is gone.
pub const INTERRUPTED: u8 = 130;
