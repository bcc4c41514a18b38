//! Maps of an older version: set aside while a new version takes over, so that nothing passes unjudged meanwhile.
//!
//! The older programs hold their maps, wherever these are pinned, and go on judging by them. The new version makes its own maps, fills
//! them, and puts its programs into the pinned links, each at once. Then what was set aside is unpinned. While it is there, the new maps are
//! not yet to be trusted: whoever died before has perhaps not filled them.

use crate::error::{Error, Result};
use crate::links::{map_pins, unpin};
use crate::maps::first_value;
use aya::maps::MapData;
use datapath::abi::{ABI_VERSION, MapName};
use std::path::{Path, PathBuf};

const FOLDER: &str = "before";
/// The array behind gates is of no version: programs are put into it as into links.
const GATE: &str = "TG_GATE";

fn folder(pin_dir: &Path) -> PathBuf {
    pin_dir.join(FOLDER)
}

/// The version of the pinned maps; `None` where there are none, or nobody has written them yet.
fn version(pin_dir: &Path) -> Result<Option<u32>> {
    let pin = pin_dir.join(MapName::CONFIG);
    if !pin.exists() {
        return Ok(None);
    }
    let failed = |source| Error::Map { map: MapName::CONFIG, source };
    let map = MapData::from_pin(&pin).map_err(failed)?;
    let bytes = map.info().map_err(failed)?.value_size() as usize;
    // Of every version it is the first word, whatever follows.
    let value = first_value(&map, bytes).map_err(Error::io("read", &pin))?;
    let word = value.first_chunk().map_or(0, |word| u32::from_ne_bytes(*word));
    Ok(Some(word).filter(|version| *version != 0))
}

/// Refuses pinned maps of another version: they are never read by guess.
pub(crate) fn check(pin_dir: &Path) -> Result<()> {
    match version(pin_dir)? {
        None | Some(ABI_VERSION) => Ok(()),
        Some(found) => Err(Error::AbiVersion { pin_dir: pin_dir.to_owned(), found, expected: ABI_VERSION }),
    }
}

/// Whether maps of an older version are to be replaced, or are being replaced.
pub fn replaces_maps(pin_dir: &Path) -> Result<bool> {
    Ok(folder(pin_dir).exists() || version(pin_dir)?.is_some_and(|found| found < ABI_VERSION))
}

/// Whether maps of an older version are set aside.
pub(crate) fn is_set(pin_dir: &Path) -> bool {
    folder(pin_dir).exists()
}

/// Sets maps of an older version aside. Returns whether there were any. Those of a newer one are refused.
pub(crate) fn set(pin_dir: &Path) -> Result<bool> {
    if version(pin_dir)?.is_none_or(|found| found >= ABI_VERSION) {
        check(pin_dir)?;
        return Ok(false);
    }
    let folder = folder(pin_dir);
    std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    shift(pin_dir, &folder)?;
    Ok(true)
}

/// Unpins what was set aside: the new version judges everywhere. Returns whether there was anything.
pub fn forget_replaced_maps(pin_dir: &Path) -> Result<bool> {
    let folder = folder(pin_dir);
    if !folder.exists() {
        return Ok(false);
    }
    for pin in map_pins(&folder)? {
        unpin(&pin)?;
    }
    std::fs::remove_dir(&folder).map_err(Error::io("remove", &folder))?;
    Ok(true)
}

/// Puts back what was set aside, instead of the maps that were to replace it.
pub fn put_replaced_maps_back(pin_dir: &Path) -> Result<()> {
    let folder = folder(pin_dir);
    if !folder.exists() {
        return Ok(());
    }
    for pin in map_pins(pin_dir)?.iter().filter(|pin| !pin.ends_with(GATE)) {
        unpin(pin)?;
    }
    shift(&folder, pin_dir)?;
    std::fs::remove_dir(&folder).map_err(Error::io("remove", &folder))
}

/// The configuration last, by which the version is known: whoever dies before has moved nothing that is not found again.
fn shift(from: &Path, to: &Path) -> Result<()> {
    let mut pins = map_pins(from)?;
    pins.retain(|pin| !pin.ends_with(GATE));
    pins.sort_by_key(|pin| pin.ends_with(MapName::CONFIG));
    for pin in pins {
        let Some(name) = pin.file_name() else { continue };
        std::fs::rename(&pin, to.join(name)).map_err(Error::io("move the pin", &pin))?;
    }
    Ok(())
}
