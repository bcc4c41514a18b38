//! The end of every packet that is being judged now.

use crate::error::{Error, Result};
use std::time::Duration;

/// Where the kernel does not say when its programs have returned, this long is taken for enough: a packet is judged
/// within microseconds.
const LONG: Duration = Duration::from_millis(50);

/// Waits until every program that runs at the time of the call has returned: about 10 ms.
///
/// XDP and TC programs run inside an RCU read-side section, and membarrier(2) with `MEMBARRIER_CMD_GLOBAL` waits for
/// those. On hosts with CPUs isolated by nohz_full it does not; there the wait is a fixed 50 ms.
///
/// # Errors
/// None that a kernel since Linux 4.3 gives.
pub fn wait_for_programs() -> Result<()> {
    const GLOBAL: libc::c_int = libc::MEMBARRIER_CMD_GLOBAL as libc::c_int;
    // SAFETY: the call takes three numbers and touches no memory of ours.
    let failed = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) } != 0;
    if !failed {
        return Ok(());
    }
    let why = std::io::Error::last_os_error();
    match why.raw_os_error() {
        Some(libc::EINVAL | libc::ENOSYS) => {
            std::thread::sleep(LONG);
            Ok(())
        }
        _ => Err(Error::Grace(why)),
    }
}
