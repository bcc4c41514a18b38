//! What the benches share: the frames, and the policy by which they are judged.

pub mod frames;
pub mod scene;
