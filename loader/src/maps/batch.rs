//! What aya has no call for: many entries of a trie at once, and a value of which only the size is known.

use aya::maps::MapData;
use aya_obj::generated::{bpf_attr, bpf_cmd};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

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

/// The first value of an array whose values have so many bytes.
pub(crate) fn first_value(map: &MapData, bytes: usize) -> io::Result<Vec<u8>> {
    let (key, mut value) = (0_u32, vec![0_u8; bytes]);
    // SAFETY: every bit pattern is a valid `bpf_attr`, a union of numbers; and the kernel wants what is unused to be zero.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: a write to a member of that union; reading it as another is as valid.
    let elem = unsafe { &mut attr.__bindgen_anon_2 };
    elem.map_fd = map.fd().as_fd().as_raw_fd() as u32;
    elem.key = &raw const key as u64;
    elem.__bindgen_anon_1.value = value.as_mut_ptr() as u64;
    let command = bpf_cmd::BPF_MAP_LOOKUP_ELEM as libc::c_int;
    // SAFETY: the kernel reads a key and writes a value of the map's sizes, which both have; it keeps no pointer.
    let failed = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr, size_of::<bpf_attr>()) } != 0;
    if failed { Err(io::Error::last_os_error()) } else { Ok(value) }
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
