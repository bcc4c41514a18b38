//! xdp-filter, loaded by its own command on an interface of this namespace.

use anyhow::{Context, Result};
use loader::PinnedXdp;
use std::path::Path;
use tidegate_benches::inside::{BPFFS, sh};
use tidegate_benches::scene;

const INTERFACE: &str = "tgbench0";

/// Makes an interface, has xdp-filter load there with all features, letting pass what no filter matches, and takes hold
/// of its program.
pub fn load() -> Result<PinnedXdp> {
    sh("ip", &["link", "add", INTERFACE, "type", "veth", "peer", "name", "tgbench1"])?;
    sh("ip", &["link", "set", INTERFACE, "up"])?;
    sh("xdp-filter", &["load", "--features", "all", "--policy", "allow", "--mode", "native", INTERFACE])?;
    sh("xdp-filter", &["ip", &scene::BLOCKED.to_string(), "--mode", "src"])?;
    let pins = Path::new(BPFFS).join("xdp-filter/programs").join(INTERFACE);
    let entry = std::fs::read_dir(&pins)
        .with_context(|| format!("reading xdp-filter's pins in {}", pins.display()))?
        .next()
        .with_context(|| format!("xdp-filter has pinned nothing in {}", pins.display()))??;
    Ok(PinnedXdp::open(&entry.path())?)
}
