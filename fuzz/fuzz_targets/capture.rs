//! Capture files: whatever they hold, every frame is read or the file is refused, and nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::replay::capture::Capture;

fuzz_target!(|data: &[u8]| {
    let Ok(mut capture) = Capture::open(data) else {
        return;
    };
    while let Ok(Some(_)) = capture.next_frame() {}
});
