//! libxdp, by which XDP programs of several tools share an interface, and its libbpf: the one place that calls them.
//!
//! The library keeps in statics what it has found out, so that only one call is made at a time. What it would print is left
//! out, unless it is asked for; its reasons are numbers of errno.

use aya_obj::Function;
use libxdp_sys as sys;
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ffi::{CStr, CString, c_int, c_void};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// With this variable set both libraries say on standard error what they refuse, and the verifier's log.
const SPEAKS: &str = "TIDEGATE_LIBXDP_SPEAKS";
const ENOENT: i32 = 2;
const ENOMEM: i32 = 12;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;

unsafe extern "C" {
    /// 0 if programs can be put into a dispatcher here: it has the kernel take one. In libxdp.a, and in none of its headers.
    fn libxdp_check_kern_compat() -> c_int;
    /// libbpf's. None silences it.
    fn libbpf_set_print(print: Option<unsafe extern "C" fn()>) -> Option<unsafe extern "C" fn()>;
}

/// Steps whose refusals mean something of their own: having the kernel take a program into a dispatcher,
pub(crate) const TRY: &str = "try a program in a dispatcher";
/// making one for ours,
pub(crate) const MAKE: &str = "make a dispatcher";
/// and putting the gate there.
pub(crate) const PUT: &str = "put the gate into the dispatcher";

/// What was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What was tried.
    pub step: &'static str,
    /// The reason, of errno.h.
    pub code: i32,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.step, std::io::Error::from_raw_os_error(self.code))
    }
}

/// How a program runs among those of a dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Its place: lower ones first.
    pub run_prio: u32,
    /// What it passes goes on to the next; all else is the last word.
    pub passes_on: bool,
}

/// The mode of a dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Native,
    Generic,
}

impl Mode {
    fn raw(self) -> sys::xdp_attach_mode {
        match self {
            Self::Native => sys::xdp_attach_mode_XDP_MODE_NATIVE,
            Self::Generic => sys::xdp_attach_mode_XDP_MODE_SKB,
        }
    }
}

/// Holds off other calls while it lives.
fn one_call() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    if std::env::var_os(SPEAKS).is_none() {
        // SAFETY: both store that there is no function, and nobody else calls the libraries meanwhile.
        unsafe {
            sys::libxdp_set_print(None);
            libbpf_set_print(None);
        }
    }
    guard
}

fn done(step: &'static str, answer: c_int) -> Result<(), Refusal> {
    if answer < 0 { Err(Refusal { step, code: -answer }) } else { Ok(()) }
}

/// A pointer that libxdp has made: it says errors by null, or by numbers where no memory is.
fn made<T>(step: &'static str, pointer: *mut T) -> Result<NonNull<T>, Refusal> {
    // SAFETY: it looks at the value of the pointer alone.
    let error = unsafe { sys::libxdp_get_error(pointer.cast::<c_void>().cast_const()) };
    if error != 0 {
        return Err(Refusal { step, code: i32::try_from(error.unsigned_abs()).unwrap_or(ENOMEM) });
    }
    NonNull::new(pointer).ok_or(Refusal { step, code: ENOENT })
}

/// Whether programs can be put into a dispatcher here.
pub(crate) fn supported() -> bool {
    let _one = one_call();
    // SAFETY: it takes nothing, and touches statics that nobody else touches meanwhile.
    unsafe { libxdp_check_kern_compat() == 0 }
}

/// An object of libbpf's that has been read, not loaded.
struct Object(NonNull<sys::bpf_object>);

impl Object {
    fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let size = bytes.len() as _;
        // SAFETY: the bytes are there for the call, and libbpf copies what it keeps.
        let object = unsafe { sys::bpf_object__open_mem(bytes.as_ptr().cast(), size, std::ptr::null()) };
        made("read the gate's object", object).map(Self)
    }

    /// Has a map be one that is there already.
    fn share(&self, map: &CStr, fd: BorrowedFd<'_>) -> Result<(), Refusal> {
        const STEP: &str = "share the gate's map";
        // SAFETY: the object lives, and the name ends with a zero.
        let found = unsafe { sys::bpf_object__find_map_by_name(self.0.as_ptr(), map.as_ptr()) };
        let found = NonNull::new(found).ok_or(Refusal { step: STEP, code: ENOENT })?;
        // SAFETY: the map is the object's, which lives; the descriptor is copied.
        done(STEP, unsafe { sys::bpf_map__reuse_fd(found.as_ptr(), fd.as_raw_fd()) })
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: it was made by bpf_object__open_mem, and nothing that points into it is left.
        unsafe { sys::bpf_object__close(self.0.as_ptr()) };
    }
}

/// A program of an object, and libxdp's view of it.
struct Program<'a> {
    raw: NonNull<sys::xdp_program>,
    _object: &'a Object,
}

impl<'a> Program<'a> {
    fn of(object: &'a Object, section: &CStr) -> Result<Self, Refusal> {
        // SAFETY: the object outlives the program; the name ends with a zero.
        let raw = unsafe { sys::xdp_program__from_bpf_obj(object.0.as_ptr(), section.as_ptr()) };
        Ok(Self { raw: made("find the gate in its object", raw)?, _object: object })
    }

    fn set(&self, turn: Turn) -> Result<(), Refusal> {
        const STEP: &str = "set run priority and chain call actions";
        // SAFETY: the program lives.
        done(STEP, unsafe { sys::xdp_program__set_run_prio(self.raw.as_ptr(), turn.run_prio) })?;
        for action in [
            sys::xdp_action_XDP_ABORTED,
            sys::xdp_action_XDP_DROP,
            sys::xdp_action_XDP_PASS,
            sys::xdp_action_XDP_TX,
            sys::xdp_action_XDP_REDIRECT,
        ] {
            let goes_on = turn.passes_on && action == sys::xdp_action_XDP_PASS;
            // SAFETY: the program lives.
            let set = unsafe { sys::xdp_program__set_chain_call_enabled(self.raw.as_ptr(), action, goes_on) };
            done(STEP, set)?;
        }
        Ok(())
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        // SAFETY: libxdp made it; the object that it belongs to is closed later, by its own drop.
        unsafe { sys::xdp_program__close(self.raw.as_ptr()) };
    }
}

/// Puts the program of `section` of `object` into the dispatcher of an interface, or into a new one. Its map `map` is the one of
/// the descriptor. Where libxdp can make no dispatcher it attaches the program alone, which is undone and refused here.
pub(crate) fn attach(
    object: &[u8],
    section: &CStr,
    (map, fd): (&CStr, BorrowedFd<'_>),
    ifindex: u32,
    mode: Mode,
    turn: Turn,
) -> Result<(), Refusal> {
    let _one = one_call();
    let object = Object::read(object)?;
    object.share(map, fd)?;
    let program = Program::of(&object, section)?;
    program.set(turn)?;
    // SAFETY: program and object live until after the call.
    let attached = unsafe { sys::xdp_program__attach(program.raw.as_ptr(), ifindex as c_int, mode.raw(), 0) };
    done(PUT, attached)?;
    // SAFETY: the program lives.
    let id = unsafe { sys::xdp_program__id(program.raw.as_ptr()) };
    if Programs::of(ifindex)?.find(id).is_some() {
        return Ok(());
    }
    // SAFETY: the program lives. Of a program that stands alone it takes off this one and no other.
    let alone = unsafe { sys::xdp_program__detach(program.raw.as_ptr(), ifindex as c_int, mode.raw(), 0) };
    done("take off what was attached alone", alone)?;
    Err(Refusal { step: MAKE, code: EOPNOTSUPP })
}

/// What stands on an interface, as libxdp sees it.
struct Programs(NonNull<sys::xdp_multiprog>);

impl Programs {
    fn of(ifindex: u32) -> Result<Self, Refusal> {
        // SAFETY: it takes a number.
        let raw = unsafe { sys::xdp_multiprog__get_from_ifindex(ifindex as c_int) };
        made("read the dispatcher", raw).map(Self)
    }

    /// The program of the dispatcher that has this id.
    fn find(&self, id: u32) -> Option<NonNull<sys::xdp_program>> {
        let mut last: *mut sys::xdp_program = std::ptr::null_mut();
        loop {
            // SAFETY: `last` is null or one of these programs, which live as long as the dispatcher does.
            last = unsafe { sys::xdp_multiprog__next_prog(last, self.0.as_ptr()) };
            let program = NonNull::new(last)?;
            // SAFETY: the program lives.
            if unsafe { sys::xdp_program__id(program.as_ptr()) } == id {
                return Some(program);
            }
        }
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        // SAFETY: libxdp made it, and nothing that points into it is left.
        unsafe { sys::xdp_multiprog__close(self.0.as_ptr()) };
    }
}

/// How the program of this id runs in the dispatcher of an interface; `None` where it does not.
pub(crate) fn turn(id: u32, ifindex: u32) -> Result<Option<Turn>, Refusal> {
    let _one = one_call();
    let programs = match Programs::of(ifindex) {
        Err(Refusal { code: ENOENT, .. }) => return Ok(None),
        programs => programs?,
    };
    Ok(programs.find(id).map(|program| {
        let program = program.as_ptr();
        // SAFETY: the program lives as long as `programs`.
        unsafe {
            Turn {
                run_prio: sys::xdp_program__run_prio(program),
                passes_on: sys::xdp_program__chain_call_enabled(program, sys::xdp_action_XDP_PASS),
            }
        }
    }))
}

/// Takes the program of this id out of the dispatcher of an interface; the others stay. The last one takes the dispatcher with it.
pub(crate) fn detach(id: u32, ifindex: u32) -> Result<(), Refusal> {
    let _one = one_call();
    let programs = match Programs::of(ifindex) {
        Err(Refusal { code: ENOENT, .. }) => return Ok(()),
        programs => programs?,
    };
    let Some(program) = programs.find(id) else { return Ok(()) };
    // SAFETY: dispatcher and program live until after the call, which reads both again by their ids.
    let answer = unsafe {
        let mode = sys::xdp_multiprog__attach_mode(programs.0.as_ptr());
        sys::xdp_program__detach(program.as_ptr(), ifindex as c_int, mode, 0)
    };
    done("take the gate out of the dispatcher", answer)
}

/// Id of the program in the first slot of an array of programs, 0 for none.
pub(crate) fn first_slot(array: BorrowedFd<'_>) -> u32 {
    let (key, mut id) = (0u32, 0u32);
    // SAFETY: keys and values of arrays of programs are four bytes each, and both are there for the call.
    let answer =
        unsafe { sys::bpf_map_lookup_elem(array.as_raw_fd(), (&raw const key).cast(), (&raw mut id).cast()) };
    if answer == 0 { id } else { 0 }
}

/// Puts a program into the first slot of an array of programs.
pub(crate) fn set_first_slot(array: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Refusal> {
    let (key, value) = (0u32, program.as_raw_fd());
    // SAFETY: keys and values of arrays of programs are four bytes each, and both are there for the call.
    let answer = unsafe {
        sys::bpf_map_update_elem(array.as_raw_fd(), (&raw const key).cast(), (&raw const value).cast(), 0)
    };
    done("put the program behind the gate", answer)
}

fn new_fd(step: &'static str, answer: c_int) -> Result<OwnedFd, Refusal> {
    done(step, answer)?;
    // SAFETY: the call has made the descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(answer) })
}

/// Hands BTF to the kernel.
pub(crate) fn load_btf(btf: &[u8]) -> Result<OwnedFd, Refusal> {
    // SAFETY: the bytes are there for the call, which has no options.
    let answer = unsafe { sys::bpf_btf_load(btf.as_ptr().cast(), btf.len() as _, std::ptr::null_mut()) };
    new_fd("load BTF", answer)
}

/// A program whose maps and calls are in their places.
pub(crate) struct Code<'a> {
    pub name: &'a str,
    pub license: &'a CStr,
    pub function: &'a Function,
}

/// Loads an XDP program of no attach type and without flags.
pub(crate) fn load_xdp(code: &Code<'_>, btf: &OwnedFd) -> Result<OwnedFd, Refusal> {
    const STEP: &str = "load the program that stands behind the gate";
    let name = CString::new(code.name).map_err(|_| Refusal { step: STEP, code: EINVAL })?;
    let Function { instructions, func_info, line_info, .. } = code.function;
    let (functions, lines) = (func_info.func_info_bytes(), line_info.line_info_bytes());
    let mut options = sys::bpf_prog_load_opts {
        sz: size_of::<sys::bpf_prog_load_opts>() as _,
        prog_btf_fd: btf.as_raw_fd() as u32,
        func_info: functions.as_ptr().cast(),
        func_info_cnt: func_info.len() as u32,
        func_info_rec_size: code.function.func_info_rec_size as u32,
        line_info: lines.as_ptr().cast(),
        line_info_cnt: line_info.len() as u32,
        line_info_rec_size: code.function.line_info_rec_size as u32,
        // SAFETY: all other fields are numbers and pointers, for which zero means that they are not there.
        ..unsafe { std::mem::zeroed() }
    };
    // SAFETY: names, instructions (`struct bpf_insn` for both libraries), BTF and its records are there for the call.
    let answer = unsafe {
        sys::bpf_prog_load(
            sys::bpf_prog_type_BPF_PROG_TYPE_XDP,
            name.as_ptr(),
            code.license.as_ptr(),
            instructions.as_ptr().cast(),
            instructions.len() as _,
            &raw mut options,
        )
    };
    new_fd(STEP, answer)
}

/// Pins a program.
#[cfg(test)]
pub(crate) fn pin(program: &OwnedFd, path: &std::path::Path) -> Result<(), Refusal> {
    let path = CString::new(path.as_os_str().as_encoded_bytes()).expect("a path");
    // SAFETY: the path ends with a zero and is there for the call.
    done("pin", unsafe { sys::bpf_obj_pin(program.as_raw_fd(), path.as_ptr()) })
}
