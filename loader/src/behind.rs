//! `tidegate_xdp` as it stands behind a gate: the same code and the same maps, loaded with neither of two words that aya always says.
//!
//! Of a program in an array of programs the kernel wants what it knows of those that call by the array
//! (`__bpf_prog_map_compatible` of kernel/bpf/core.c): the type, and whether it takes frames of several buffers, and since Linux 6.18
//! and the stable kernels of that time the expected attach type. A gate is an EXT program: its type is resolved to XDP, but its attach type
//! is 0, and libxdp takes the word of the frames from it, which the dispatcher has for all. aya gives XDP programs BPF_XDP and the word.

use crate::error::{Error, Result, chain};
use crate::libxdp::{self, Code};
use aya::maps::{Map, MapData};
use aya_obj::Object;
use aya_obj::btf::BtfFeatures;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use std::collections::HashSet;
use std::path::Path;

/// All kinds of BTF that our objects use are older than programs in dispatchers.
const FEATURES: BtfFeatures = BtfFeatures::new(true, true, true, true, true, true, true, true);

/// Loads a program of an object. Its maps are pinned, or what `constants` has of the object loaded before.
pub(crate) fn load<'a>(
    object: &[u8],
    program: &'static str,
    pin_dir: &Path,
    constants: impl Fn(&str) -> Option<&'a Map>,
) -> Result<OwnedFd> {
    let refused = |reason: String| Error::Program { program, reason };
    let mut object = Object::parse(object).map_err(|e| refused(chain(&e)))?;
    let btf = object.fixup_and_sanitize_btf(&FEATURES).map_err(|e| refused(chain(&e)))?;
    let btf = btf.ok_or_else(|| Error::Missing { what: format!("BTF of {program}") })?.to_bytes();
    let btf = libxdp::load_btf(&btf).map_err(|why| refused(why.to_string()))?;
    let mut pinned = Vec::new();
    let mut maps = Vec::new();
    for (name, map) in object.maps.drain() {
        let pin = pin_dir.join(&name);
        let fd = match constants(&name) {
            Some(Map::Array(data)) if !pin.exists() => data.fd().as_fd().as_raw_fd(),
            _ => {
                let data =
                    MapData::from_pin(&pin).map_err(|e| refused(format!("map {name}: {}", chain(&e))))?;
                let fd = data.fd().as_fd().as_raw_fd();
                pinned.push(data);
                fd
            }
        };
        maps.push((name, fd, map));
    }
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object
        .relocate_maps(maps.iter().map(|(name, fd, map)| (name.as_str(), *fd, map)), &sections)
        .map_err(|e| refused(chain(&e)))?;
    object.relocate_calls(&sections).map_err(|e| refused(chain(&e)))?;
    let missing = || Error::Missing { what: format!("program {program}") };
    let found = object.programs.get(program).ok_or_else(missing)?;
    let function = object.functions.get(&found.function_key()).ok_or_else(missing)?;
    let code = Code { name: program, license: &found.license, function };
    libxdp::load_xdp(&code, &btf).map_err(|why| refused(why.to_string()))
}
