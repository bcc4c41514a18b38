//! The bridge from bytemuck's `Pod` to aya's.

/// A value as a map holds it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct P<T>(pub T);

// SAFETY: aya asks that a type may be read from and written to plain bytes. bytemuck's `Pod`, which is derived and
// checked field by field, asks the same (any bit pattern valid, no padding, no pointers), and `P` is transparent.
unsafe impl<T: bytemuck::Pod> aya::Pod for P<T> {}
