//! Programs that watch local workloads: what is executed in their cgroups, and whereto sockets are connected. They let everything pass.
//!
//! What was done before is counted and no more: a service that forks a thousand times a second tells of it once.
#![no_std]
#![no_main]

mod maps;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_ktime_get_boot_ns};
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_probe_read_kernel_str_bytes};
use aya_ebpf::macros::{cgroup_sock_addr, tracepoint};
use aya_ebpf::programs::{SockAddrContext, TracePointContext};
use datapath::abi::{Addr, CGROUP_LEVELS, Did};
use maps::{TG_WATCHED, tell};

/// Where the tracepoint's record says where the file's name is: `__data_loc char[] filename`.
const FILENAME: usize = 8;

/// sched:sched_process_exec, which fires when the new program is in place.
#[tracepoint]
pub fn tidegate_exec(ctx: TracePointContext) -> u32 {
    let Some(cgroup) = watched() else { return 0 };
    // SAFETY: the helper checks what it reads.
    let Ok(place) = (unsafe { ctx.read_at::<u32>(FILENAME) }) else { return 0 };
    tell(bpf_ktime(), pid(), |deed| {
        deed.cgroup = cgroup;
        deed.did = Did::Exec as u8;
        // SAFETY: as above; the name lies behind the record, at the offset in its lower half.
        let name = unsafe { ctx.as_ptr().cast::<u8>().add((place & 0xffff) as usize) };
        // SAFETY: as above.
        unsafe { bpf_probe_read_kernel_str_bytes(name, &mut deed.name) }.is_ok()
    });
    0
}

/// connect(2) of IPv4.
#[cgroup_sock_addr(connect4)]
pub fn tidegate_connect4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context that the kernel gave; the verifier checks each field.
    let addr = unsafe { (*ctx.sock_addr).user_ip4 };
    connected(&ctx, Addr::v4(addr.to_ne_bytes()))
}

/// connect(2) of IPv6.
#[cgroup_sock_addr(connect6)]
pub fn tidegate_connect6(ctx: SockAddrContext) -> i32 {
    // SAFETY: as above.
    let [a, b, c, d] = unsafe {
        let addr = &(*ctx.sock_addr).user_ip6;
        [addr[0], addr[1], addr[2], addr[3]]
    };
    let word = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    connected(&ctx, Addr { words: [word(a, b), word(c, d)] })
}

/// What a hook of cgroups says for "it may go on".
const GOES_ON: i32 = 1;

#[inline(always)]
fn connected(ctx: &SockAddrContext, addr: Addr) -> i32 {
    let (Some(cgroup), Ok(comm)) = (watched(), bpf_get_current_comm()) else { return GOES_ON };
    // SAFETY: as above.
    let (port, proto) = unsafe { ((*ctx.sock_addr).user_port, (*ctx.sock_addr).protocol) };
    tell(bpf_ktime(), pid(), |deed| {
        deed.cgroup = cgroup;
        deed.did = Did::Connect as u8;
        deed.addr = addr;
        deed.port = u16::from_be(port as u16);
        deed.proto = proto as u8;
        deed.name[..comm.len()].copy_from_slice(&comm);
        true
    });
    GOES_ON
}

/// The cgroup of the process that is watched: its own, or one above.
#[inline(always)]
fn watched() -> Option<u64> {
    for level in 0..CGROUP_LEVELS {
        // SAFETY: a helper without pointers.
        let cgroup = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
        if cgroup == 0 {
            return None;
        }
        if TG_WATCHED.get_ptr(&cgroup).is_some() {
            return Some(cgroup);
        }
    }
    None
}

#[inline(always)]
fn bpf_ktime() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

#[inline(always)]
fn pid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
