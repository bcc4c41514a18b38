//! Many entries of a trie in one system call: aya has none for it.

use aya_obj::generated::{bpf_attr, bpf_cmd};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Writes entries. Keys and values lie behind each other as the map holds them, of sizes that divide by the count.
///
/// # Errors
/// How many entries were written before the one that could not be, and why it could not.
pub(super) fn update(
    map: &OwnedFd,
    keys: &[u8],
    values: &[u8],
    count: u32,
) -> Result<(), (usize, io::Error)> {
    call(bpf_cmd::BPF_MAP_UPDATE_BATCH, map, keys, Some(values), count)
}

/// Removes entries. Keys lie behind each other as the map holds them.
///
/// # Errors
/// How many entries were removed before the one that could not be, and why it could not: one that is not there ends it too.
pub(super) fn delete(map: &OwnedFd, keys: &[u8], count: u32) -> Result<(), (usize, io::Error)> {
    call(bpf_cmd::BPF_MAP_DELETE_BATCH, map, keys, None, count)
}

fn call(
    command: bpf_cmd,
    map: &OwnedFd,
    keys: &[u8],
    values: Option<&[u8]>,
    count: u32,
) -> Result<(), (usize, io::Error)> {
    // SAFETY: every bit pattern is a valid `bpf_attr`, a union of numbers; and the kernel wants what is unused to be zero.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    attr.batch.keys = keys.as_ptr() as u64;
    attr.batch.values = values.map_or(0, |values| values.as_ptr() as u64);
    attr.batch.count = count;
    attr.batch.map_fd = map.as_raw_fd() as u32;
    let command = command as libc::c_int;
    // SAFETY: the kernel reads `count` keys, and values where the command writes, of the map's sizes, which the caller has laid out, and
    // writes the attribute's count; all of them live until it returns, and it keeps no pointer.
    let failed = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr, size_of::<bpf_attr>()) } != 0;
    if failed {
        let why = io::Error::last_os_error();
        // SAFETY: `batch` is what was written above, and the kernel writes nothing but its count.
        let done = unsafe { attr.batch.count };
        return Err((done as usize, why));
    }
    Ok(())
}
