//! The event stream of a daemon: its files, its receivers.

use crate::exit_code::Result;
use crate::instance::Instance;
use crate::state::Store;
use crate::stream::deliver::{Counts, DeliverArgs, Delivery};
use crate::stream::{Cursor, Files, Log, Pen, RECORDS};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::watch;

/// Everything of it that can fail is done before the daemon touches the kernel.
pub(super) struct Stream {
    pen: Pen,
    log: Option<Log>,
    recorded: Cursor,
    /// The last record that is there, where more were told of than are there.
    cut: Option<u64>,
    deliveries: Vec<Delivery>,
}

impl Stream {
    /// Opens the files, and has receivers go on where they were.
    pub(super) fn open(instance: &Instance, args: &DeliverArgs, store: &Store) -> Result<Self> {
        let sinks = args.sinks()?;
        let files = Files::new(instance.events_dir());
        let (pen, log) = match args.event_log {
            0 => (Pen::without_files(), None),
            mib => {
                let (pen, log) = Log::open(files.clone(), mib.saturating_mul(1 << 20))?;
                (pen, Some(log))
            }
        };
        let now = files.last()?;
        // A stream that begins tells of nothing that was recorded before it.
        let last = store.audit_head()?.seq;
        let recorded = Cursor::open(files.folder(), RECORDS, || Ok(last))?;
        let cut = (recorded.last() > last).then_some(last);
        let open = |sink| Delivery::open(sink, &files, &instance.name, now);
        let deliveries = sinks.into_iter().map(open).collect::<Result<_>>()?;
        Ok(Self { pen, log, recorded, cut, deliveries })
    }

    /// Of which record was told although it is not there any more.
    pub(super) fn told_of_what_was_cut(&self) -> Option<u64> {
        self.cut.map(|_| self.recorded.last())
    }

    /// Writes and delivers from now on.
    pub(super) fn begin(self) -> (Pen, Cursor, Deliveries) {
        let Self { pen, log, mut recorded, cut, deliveries } = self;
        if let Some(last) = cut {
            tracing::error!(
                "records were cut off the audit record after {last}: `tidegate audit verify` says more"
            );
            // What is recorded from now on has numbers that were told already, and is told all the same.
            if let Err(e) = recorded.advance(last) {
                tracing::error!("{e}");
            }
        }
        let written = log.as_ref().map(Log::written);
        let counts = deliveries.iter().map(|delivery| (delivery.name(), delivery.counts.clone())).collect();
        if let Some(log) = log {
            let written = log.written();
            std::thread::spawn(move || log.run());
            for delivery in deliveries {
                tokio::spawn(delivery.run(written.clone()));
            }
        }
        (pen, recorded, Deliveries { counts, written })
    }
}

/// What became of the events of each receiver.
pub(super) struct Deliveries {
    pub(super) counts: Vec<(&'static str, Arc<Counts>)>,
    written: Option<watch::Receiver<u64>>,
}

impl Deliveries {
    /// Events that a receiver has not come to yet.
    pub(super) fn waiting(&self, counts: &Counts) -> u64 {
        let written = self.written.as_ref().map_or(0, |written| *written.borrow());
        written.saturating_sub(counts.last.load(Ordering::Relaxed))
    }
}
