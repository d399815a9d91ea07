//! Sending the parts of an object while the rest of it is still being staged.
//!
//! The object is completed only when the whole is staged and verified; until then, and when that
//! fails, there is nothing but an upload that is given up.

use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, OnceLock};

use super::S3Store;
use super::get::crc64_text;
use super::put::{Sent, Upload};
use crate::error::Result;
use crate::object::{Attributes, Name};
use crate::poison::unpoisoned;
use crate::stage::{Part, Stage, Staged, StagedPart, part_count, work_together};
use crate::store::{Clash, Early, EarlySend, Fetched, Fill, Published};

/// An upload whose parts are sent while they are staged; given up when it is dropped.
struct EarlyUpload<'a> {
    store: &'a S3Store,
    upload: Upload,
    /// The parts that the server has, or why it has not; `None` once publishing was tried.
    sent: Mutex<Option<Result<Vec<Sent>>>>,
}

impl S3Store {
    /// Stages an item by `fill`, and sends each part as soon as it is there, where there is more
    /// than one and a helper to spare.
    pub(super) fn send_early<'a>(
        &'a self,
        name: &Name,
        (size_bytes, clash): (u64, Clash),
        stage: &mut Stage<'_>,
        fill: Fill<'_>,
    ) -> Result<(Fetched, Early<'a>)> {
        let helpers = self.client.spare_helpers(part_count(size_bytes) - 1);
        let key = match self.key(name) {
            Ok(key) if helpers.count() > 0 => key,
            _ => return Ok((fill(stage)?, Ok(None))),
        };
        let upload = OnceLock::new();
        let begin = || {
            if clash == Clash::Refuse {
                self.must_refuse()?;
            }
            Ok(EarlyUpload {
                store: self,
                upload: self.create_upload(&key, &Attributes::default())?,
                sent: Mutex::new(Some(Ok(Vec::new()))),
            })
        };
        let (sender, receiver) = mpsc::channel::<StagedPart>();
        let receiver = Mutex::new(receiver);
        let send_one = || {
            let Ok(staged) = unpoisoned(receiver.lock()).recv() else {
                return Ok(false);
            };
            // Why there is no upload is told by whoever wants to publish.
            let Ok(early) = upload.get_or_init(begin) else {
                return Ok(false);
            };
            let part =
                self.upload_part(&early.upload, &staged.contents, staged.number, staged.part)?;
            if let Some(Ok(sent)) = &mut *unpoisoned(early.sent.lock()) {
                sent.push(part);
            }
            Ok(true)
        };
        let (mut sender, mut fetched) = (Some(sender), None);
        let all = work_together(helpers.count(), &send_one, &mut || {
            let filled = fill(PartsTo::new(stage, sender.take()).0);
            if filled.is_err() || stage.was_restarted() {
                // What still waits to be sent is of no use.
                while unpoisoned(receiver.lock()).try_recv().is_ok() {}
            }
            fetched = Some(filled);
        });
        let fetched = fetched.expect("staging comes first")?;
        let early = upload.into_inner().transpose().map(|early| {
            let early = early.filter(|_| !stage.was_restarted())?;
            if let Err(error) = all {
                *unpoisoned(early.sent.lock()) = Some(Err(error));
            }
            Some(Box::new(early) as Box<dyn EarlySend + 'a>)
        });
        Ok((fetched, early))
    }
}

impl EarlySend for EarlyUpload<'_> {
    fn publish(&self, name: &Name, staged: &Staged, clash: Clash) -> Result<Published> {
        let key = self.store.key(name)?;
        if clash == Clash::Refuse {
            self.store.must_refuse()?;
        }
        let mut sent = unpoisoned(self.sent.lock());
        if let Some(Ok(sent)) = &mut *sent {
            sent.sort_unstable_by_key(|part| part.number);
        }
        let fits = |sent: &Result<Vec<Sent>>| match sent {
            Ok(sent) => are_of(sent, staged),
            Err(_) => true,
        };
        match sent.take_if(|sent| key == self.upload.key && fits(sent)) {
            Some(sent) => self.store.put_parts(&self.upload, sent, staged, clash),
            None => self.store.put(&key, staged, &Attributes::default(), clash),
        }
    }
}

impl Drop for EarlyUpload<'_> {
    fn drop(&mut self) {
        if unpoisoned(self.sent.lock()).is_some() {
            self.store.abort(&self.upload.key, &self.upload.id);
        }
    }
}

/// Whether these are all parts of what is staged.
fn are_of(sent: &[Sent], staged: &Staged) -> bool {
    let parts = staged.parts();
    let same = |(at, (sent, part)): (u16, (&Sent, &Part))| {
        sent.number == at && sent.checksum.as_deref() == Some(&*crc64_text(part.crc64))
    };
    sent.len() == parts.len() && (1..).zip(sent.iter().zip(parts)).all(same)
}

/// A stage that sends its parts there until this is dropped: whoever receives them waits for the
/// end, also when the staging panics.
struct PartsTo<'s, 'c>(&'s mut Stage<'c>);

impl<'s, 'c> PartsTo<'s, 'c> {
    fn new(stage: &'s mut Stage<'c>, sender: Option<Sender<StagedPart>>) -> Self {
        stage.send_parts(sender);
        Self(stage)
    }
}

impl Drop for PartsTo<'_, '_> {
    fn drop(&mut self) {
        self.0.send_parts(None);
    }
}
