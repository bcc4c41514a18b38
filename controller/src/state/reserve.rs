//! A file beside the state that is there to be given up: on a full disk, what keeps access right has to be written all the same.
//!
//! A commit is recorded before the kernel judges by it. Without room for that a policy that nobody confirmed would stay, an attacker
//! could not be cut off, and the leases of all workloads would end. So a part of the disk is taken while there is room, and given
//! back, a piece at a time, to writes that bring no new documents.

use nix::sys::statvfs::statvfs;
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// As large as it gets.
const MOST_BYTES: u64 = 8 << 20;
/// Of a small disk, no more than one part of so many.
const PART_OF_DISK: u64 = 8;
/// What is given back at a time: what stands behind in line for room, such as the log of events, takes no more.
const PIECE_BYTES: u64 = 64 << 10;
/// What a daemon needs free to start: files of its own beside the state.
const START_BYTES: u64 = 1 << 20;

/// The file.
#[derive(Clone, Debug)]
pub struct Reserve {
    path: PathBuf,
}

impl Reserve {
    /// Beside the state.
    pub fn of(state: &Path) -> Self {
        Self { path: state.with_file_name("reserve") }
    }

    /// Bytes that it lacks: it was given up, or there never was room for it.
    pub fn lacks_bytes(&self) -> io::Result<u64> {
        Ok(self.wanted_bytes()?.saturating_sub(self.bytes()))
    }

    fn bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |file| file.len())
    }

    fn wanted_bytes(&self) -> io::Result<u64> {
        let disk = self.disk()?;
        Ok(MOST_BYTES.min(disk.blocks().saturating_mul(disk.fragment_size()) / PART_OF_DISK))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let disk = self.disk()?;
        Ok(disk.blocks_available().saturating_mul(disk.fragment_size()))
    }

    fn disk(&self) -> io::Result<nix::sys::statvfs::Statvfs> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        Ok(statvfs(folder)?)
    }

    /// Takes what it lacks, if others have at least as much left.
    pub fn fill(&self) -> io::Result<()> {
        let lacks = self.lacks_bytes()?;
        if lacks == 0 || self.free_bytes()? < lacks.saturating_mul(2) {
            return Ok(());
        }
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&self.path)?;
        let before = self.bytes();
        let taken = take(&file, before, lacks);
        if taken.is_err() {
            // A part of it would hold nothing for anybody.
            file.set_len(before)?;
        }
        taken
    }

    /// Gives a piece back. Returns whether there was any.
    pub fn give(&self) -> bool {
        let before = self.bytes();
        let given = || {
            let file = OpenOptions::new().write(true).open(&self.path)?;
            file.set_len(before.saturating_sub(PIECE_BYTES))
        };
        if before == 0 {
            return false;
        }
        if let Err(e) = given() {
            tracing::error!("{}: {e}", self.path.display());
            return false;
        }
        tracing::warn!(
            "the disk of {} is full: of what was kept for this, {} bytes are left",
            self.path.display(),
            before.saturating_sub(PIECE_BYTES)
        );
        true
    }

    /// Makes room for a daemon that starts.
    pub fn give_to_start(&self) {
        let need = |wanted: u64| START_BYTES.min(wanted);
        while let (Ok(free), Ok(wanted)) = (self.free_bytes(), self.wanted_bytes())
            && free < need(wanted)
            && self.give()
        {}
    }
}

/// Takes so many bytes from the disk at the end of a file.
fn take(file: &File, from: u64, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), from, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            use std::os::unix::fs::FileExt;
            let zeros = [0; 4096];
            let mut at = from;
            while at < from + bytes {
                let n = (from + bytes - at).min(zeros.len() as u64) as usize;
                at += file.write_at(&zeros[..n], at)? as u64;
            }
            file.sync_all()
        }
        done => Ok(done?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_taken_once_given_up_in_pieces_and_taken_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let reserve = Reserve::of(&folder.path().join("state.db"));
        assert!(!reserve.give(), "there is none yet");
        let wanted = reserve.wanted_bytes().expect("a disk");
        assert!(wanted > 4 * PIECE_BYTES, "{wanted}");
        reserve.fill().expect("room");
        assert_eq!((reserve.bytes(), reserve.lacks_bytes().expect("a disk")), (wanted, 0));
        let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&reserve.path).expect("it"));
        assert!(blocks * 512 >= wanted, "no hole: {blocks}");
        assert!(reserve.give());
        assert_eq!(reserve.lacks_bytes().expect("a disk"), PIECE_BYTES);
        let mut pieces = 1;
        while reserve.give() {
            pieces += 1;
        }
        assert_eq!((pieces, reserve.bytes()), (wanted.div_ceil(PIECE_BYTES), 0));
        reserve.fill().expect("room");
        assert_eq!(reserve.bytes(), wanted);
        // There is room: a daemon that starts needs none of it.
        reserve.give_to_start();
        assert_eq!(reserve.bytes(), wanted);
    }
}
