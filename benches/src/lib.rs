//! What the benches share: the frames, the policy by which they are judged, small programs beside ours, and the report.

pub mod frames;
pub mod inside;
pub mod machine;
pub mod netns;
pub mod output;
pub mod plot;
pub mod programs;
pub mod report;
pub mod scene;
