//! Bounds-checked reads of a packet.

use crate::weight::Gso;

/// The bytes of a frame, wherever they lie: an XDP buffer, an skb, a slice.
pub trait Frame {
    /// `N` bytes at `offset`, or `None` if the frame ends before them.
    ///
    /// One check of a constant size, then plain indexing: the verifier follows that, where it loses track of a read of
    /// one byte at a variable offset ("R1 offset is outside of the packet", 6.18).
    fn header<const N: usize>(&self, offset: usize) -> Option<&[u8; N]>;

    /// `N` bytes at `offset`, copied: also from beyond what [`Self::header`] reaches. For the few reads of payload.
    #[inline(always)]
    fn copy<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.header(offset).copied()
    }

    /// Copies `len` bytes, of which there are 1 to `N`, from `offset` to the front of `into`. Returns whether it did.
    fn copy_to<const N: usize>(&self, offset: usize, len: u32, into: &mut [u8; N]) -> bool;

    /// Length of the whole frame in bytes, also of what [`Self::header`] cannot reach (multi-buffer frames).
    fn len(&self) -> usize;

    /// Whether the frame has at least `end` bytes. Cheaper than [`Self::len`] where the first buffer has them.
    fn holds(&self, end: usize) -> bool;

    /// Whether there is nothing in it.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The interface that the frame crosses.
    fn ifindex(&self) -> u32;

    /// What the outermost VLAN tag says, where it lies beside the bytes: a socket buffer keeps it in a field.
    #[inline(always)]
    fn tag_beside(&self) -> Option<u16> {
        None
    }

    /// What it says of segments that it holds: a socket buffer may hold many, each of which leaves as a frame of its own.
    #[inline(always)]
    fn gso(&self) -> Gso {
        Gso::NONE
    }

    /// Notes who sent it, in the bits of a mask, for who looks at it next: a socket buffer has a place for that.
    #[inline(always)]
    fn note_sender(&self, _mask: u32, _identity: u32) {}

    /// Bytes of that tag: the wire has them, [`Self::len`] and offsets do not.
    #[inline(always)]
    fn bytes_beside(&self) -> u32 {
        if self.tag_beside().is_some() { 4 } else { 0 }
    }
}

/// A frame in a buffer of its own, that can be made its answer.
#[cfg(feature = "host")]
#[derive(Clone, Debug)]
pub struct BufferFrame {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The interface it is taken to cross.
    pub ifindex: u32,
}

#[cfg(feature = "host")]
impl Frame for BufferFrame {
    fn copy_to<const N: usize>(&self, offset: usize, len: u32, into: &mut [u8; N]) -> bool {
        copy_to(&self.bytes, offset, len, into)
    }

    fn header<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.bytes.get(offset..)?.first_chunk()
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn holds(&self, end: usize) -> bool {
        self.bytes.len() >= end
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }
}

#[cfg(feature = "host")]
impl crate::reject::Answer for BufferFrame {
    fn load<const N: usize>(&self, offset: usize, into: &mut [u8; N]) -> bool {
        match self.copy(offset) {
            Some(bytes) => *into = bytes,
            None => return false,
        }
        true
    }

    fn store<const N: usize>(&mut self, offset: usize, bytes: &[u8; N]) -> bool {
        match self.bytes.get_mut(offset..offset + N) {
            Some(place) => place.copy_from_slice(bytes),
            None => return false,
        }
        true
    }

    fn grow(&mut self, bytes: usize) -> bool {
        self.bytes.splice(..0, vec![0; bytes]);
        true
    }

    fn cut(&mut self, len: usize) -> bool {
        let there = len <= self.bytes.len();
        self.bytes.truncate(len);
        there
    }
}

/// A frame in a slice, for everything that runs natively.
#[derive(Clone, Copy, Debug)]
pub struct SliceFrame<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// The interface it is taken to cross.
    pub ifindex: u32,
}

impl Frame for SliceFrame<'_> {
    #[inline(always)]
    fn header<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.bytes.get(offset..)?.first_chunk()
    }

    fn copy_to<const N: usize>(&self, offset: usize, len: u32, into: &mut [u8; N]) -> bool {
        copy_to(self.bytes, offset, len, into)
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    #[inline(always)]
    fn holds(&self, end: usize) -> bool {
        self.bytes.len() >= end
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }
}

/// [`Frame::copy_to`] from a slice.
pub fn copy_to<const N: usize>(from: &[u8], offset: usize, len: u32, into: &mut [u8; N]) -> bool {
    let len = len as usize;
    let (Some(from), Some(into)) = (from.get(offset..).and_then(|rest| rest.get(..len)), into.get_mut(..len))
    else {
        return false;
    };
    into.copy_from_slice(from);
    true
}
