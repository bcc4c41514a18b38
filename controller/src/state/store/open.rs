//! Opening the file: new, of this version, of another, or not ours at all.

use super::{Reserve, Store, damaged, failed, import};
use crate::exit_code::{Code, Failure, Result};
use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `TGst`: what file(1) and we know the file by.
const APPLICATION_ID: i32 = 0x5447_7374;
/// What each form has that the one before had not, from the second on.
const MIGRATIONS: [&str; 7] = [
    include_str!("migrations/2.sql"),
    include_str!("migrations/3.sql"),
    crate::audit::SCHEMA,
    super::feeds::SCHEMA,
    include_str!("migrations/6.sql"),
    include_str!("migrations/7.sql"),
    include_str!("migrations/8.sql"),
];
/// The form that this version writes.
pub(super) const VERSION: i32 = 1 + MIGRATIONS.len() as i32;
/// Readers and the daemon wait for each other no longer than this.
const PATIENCE: Duration = Duration::from_secs(5);

/// The file as a URI of SQLite, for one that does not change.
fn immutable(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                uri.push(char::from(*byte))
            }
            byte => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri + "?immutable=1"
}

fn is_read_only(folder: &Path) -> bool {
    nix::sys::statvfs::statvfs(folder)
        .is_ok_and(|fs| fs.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY))
}

impl Store {
    /// Opens the state for the daemon: makes it where there is none, takes over what an older version left.
    pub fn open(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|e| Failure::io(format!("make {}", folder.display()), &e))?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let mut store = Self::connect(path, flags)?;
        let fail = |e| failed(path, e);
        let found = store.version()?;
        // Full: a commit that was acknowledged is there after a power cut.
        // And who waits for it does not wait for the log to be copied: see `copy_log`.
        let pragmas = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
            PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = 4194304;";
        store.db.execute_batch(pragmas).map_err(fail)?;
        if found == 0 {
            store.make()?;
        } else {
            let check: String =
                store.db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(fail)?;
            if check != "ok" {
                return Err(damaged(path, "PRAGMA quick_check", check));
            }
            store.migrate(found)?;
        }
        Ok(store)
    }

    /// Copies what stands in the log into the file itself, beside whoever reads and writes meanwhile. Until then nothing is lost: the log
    /// is a part of the state.
    pub fn copy_log(path: &Path) -> Result<()> {
        let copier = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let copy = copier.db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        copy.map_err(|e| failed(path, e))
    }

    /// Opens the state to read it; `None` where there is none.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let mut store = Self::connect(path, flags)?;
        let version = match store.version() {
            // On a file system that cannot be written no shared index can be made. Then nobody else writes either.
            Err(e) if path.parent().is_some_and(is_read_only) => {
                store.db = Connection::open_with_flags(immutable(path), flags | OpenFlags::SQLITE_OPEN_URI)
                    .map_err(|_| e)?;
                store.version()?
            }
            version => version?,
        };
        store.form = version;
        Ok((version != 0).then_some(store))
    }

    fn connect(path: &Path, flags: OpenFlags) -> Result<Self> {
        let open = || {
            let db = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
            db.busy_timeout(PATIENCE)?;
            Ok(db)
        };
        let db = open().map_err(|e| failed(path, e))?;
        Ok(Self { db, path: path.to_owned(), reserve: Reserve::of(path), form: VERSION })
    }

    /// The form of the file, 0 for one in which nothing is yet. A form that we do not know is refused.
    fn version(&self) -> Result<i32> {
        let pragma = |name: &str| {
            let read = self.db.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i32>(0));
            read.map_err(|e| failed(&self.path, e))
        };
        let path = self.path.display();
        match (pragma("application_id")?, pragma("user_version")?) {
            (0, 0) if pragma("schema_version")? == 0 => Ok(0),
            (APPLICATION_ID, version @ 1..=VERSION) => Ok(version),
            (APPLICATION_ID, version) => Err(Failure::new(
                Code::Failure,
                format!(
                    "{path} is of a newer tidegate: its form is {version}, this one knows {VERSION}. Nothing was changed, and \
                     what the kernel enforces goes on; run the newer version again"
                ),
            )),
            _ => Err(Failure::new(
                Code::Failure,
                format!(
                    "{path} is a database of something else: move it away, or choose another --state-dir"
                ),
            )),
        }
    }

    /// Brings the tables of an older version to the form of this one, at once or not at all.
    fn migrate(&mut self, found: i32) -> Result<()> {
        if found == VERSION {
            return Ok(());
        }
        let mut run = || {
            let tx = self.db.transaction()?;
            for statements in &MIGRATIONS[found as usize - 1..] {
                tx.execute_batch(statements)?;
            }
            if found < super::documents::FIRST_FORM {
                super::documents::redigest(&tx)?;
            }
            tx.pragma_update(None, "user_version", VERSION)?;
            tx.commit()
        };
        run().map_err(|e| failed(&self.path, e))?;
        self.form = VERSION;
        tracing::info!("{} is now of form {VERSION}, it was of form {found}", self.path.display());
        Ok(())
    }

    /// Makes the tables, and fills them from state.json where that is there, at once or not at all.
    fn make(&mut self) -> Result<()> {
        let old = self.path.with_file_name("state.json");
        let saved = import::read(&old)?;
        let path = self.path.clone();
        let fail = |e| failed(&path, e);
        let tx = self.db.transaction().map_err(fail)?;
        tx.execute_batch(include_str!("schema.sql")).map_err(fail)?;
        tx.execute_batch(crate::audit::SCHEMA).map_err(fail)?;
        tx.execute_batch(super::feeds::SCHEMA).map_err(fail)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(fail)?;
        tx.pragma_update(None, "user_version", VERSION).map_err(fail)?;
        if let Some(state) = &saved {
            super::write::import(&tx, state).map_err(fail)?;
        }
        tx.commit().map_err(fail)?;
        if saved.is_some() {
            let kept = old.with_extension("json.old");
            std::fs::rename(&old, &kept).map_err(|e| Failure::io(format!("rename {}", old.display()), &e))?;
            tracing::info!(
                "{} is now in {}; the old file is {}",
                old.display(),
                path.display(),
                kept.display()
            );
        }
        Ok(())
    }

    /// Removes the file, and what SQLite keeps beside it.
    pub fn remove(path: &Path) {
        for suffix in ["", "-wal", "-shm"] {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            match std::fs::remove_file(PathBuf::from(name)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    tracing::error!("remove {}{suffix}: {e}", path.display());
                }
                _ => {}
            }
        }
    }
}
