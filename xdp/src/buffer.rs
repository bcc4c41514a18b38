//! Reads of a buffer that the verifier has to follow. The TC programs include this same file.

/// Beyond this no header is read: it tells the verifier that an offset is small. No power of two, for which LLVM tests a
/// bit from which the verifier learns nothing ("offset is outside of the packet", 6.18).
const MAX_OFFSET: usize = 20_000;

/// `N` bytes at `offset` of what lies between `data` and `data_end`.
///
/// # Safety
/// Both are the context's of the program that runs, and the bytes live as long as `'a`.
#[inline(always)]
pub unsafe fn header<'a, const N: usize>(data: usize, data_end: usize, offset: usize) -> Option<&'a [u8; N]> {
    if offset > MAX_OFFSET || data + offset + N > data_end {
        return None;
    }
    // SAFETY: the N bytes lie between data and data_end, which was just checked, and bytes have no alignment.
    Some(unsafe { &*((data + offset) as *const [u8; N]) })
}

/// [`header`], to write to.
///
/// # Safety
/// As [`header`], and nobody else has the bytes as long as `'a`.
#[allow(dead_code)] // TC writes nothing
#[inline(always)]
pub unsafe fn header_mut<'a, const N: usize>(
    data: usize,
    data_end: usize,
    offset: usize,
) -> Option<&'a mut [u8; N]> {
    if offset > MAX_OFFSET || data + offset + N > data_end {
        return None;
    }
    // SAFETY: as in header.
    Some(unsafe { &mut *((data + offset) as *mut [u8; N]) })
}

/// `len` where it is 1 to `room`, in a form whose bounds the verifier sees.
#[inline(always)]
pub fn within(len: u32, room: usize) -> Option<u32> {
    // One less, and hidden from LLVM, so that the verifier sees the bounds ("invalid zero-sized read", 6.18).
    let less = core::hint::black_box(u64::from(len).wrapping_sub(1));
    if less >= room as u64 { None } else { Some((less + 1) as u32) }
}
