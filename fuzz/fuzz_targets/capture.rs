//! Capture files: whatever they hold, every frame is read or the file is refused, and nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The module alone: the crate that it is of would be built with everything that a daemon needs, which takes minutes.
#[path = "../../controller/src/replay/capture/mod.rs"]
#[allow(dead_code)]
mod reader;

use reader::Capture;

fuzz_target!(|data: &[u8]| {
    let Ok(mut capture) = Capture::open(data) else {
        return;
    };
    while let Ok(Some(_)) = capture.next_frame() {}
});
