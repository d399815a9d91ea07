//! The local temporary copy of one item: memory while small; beyond, the room that its destination
//! offers.
//!
//! Everything that streams through is hashed on the way: a CRC-64/NVME for each part of a later
//! upload, and the one digest that the source promises. Invariant: a [`Staged`] is whole; it can
//! only be had from [`Stage::finish`], which compares the length with what was announced.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, Builder};

use crc64fast_nvme::Digest as Crc64;
use md5::{Digest as _, Md5};
use sha2::Sha256;

use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::part::PartFile;
use crate::poison::unpoisoned;

/// Items up to this length stay in memory. All items in flight together must fit the 16 MiB that a
/// run may use.
pub const MEMORY_LIMIT_BYTES: u64 = 128 << 10;

/// The least length of a part; S3 wants 5 MiB. An object up to this length is put by one request,
/// beyond by a multipart upload.
pub const PART_MIN_BYTES: u64 = 16 << 20;

/// S3's limit of parts in an upload.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>
pub(crate) const PARTS_MAX: u64 = 10_000;

/// How much is copied at a time.
pub const CHUNK_BYTES: usize = 128 << 10;

/// Stack of a thread that helps with parts.
const STACK_BYTES: usize = 256 << 10;

/// The length of each part but the last of an object this long, in bytes; a multiple of 1 MiB.
pub(crate) fn part_size(size_bytes: u64) -> u64 {
    let least = size_bytes.div_ceil(PARTS_MAX).next_multiple_of(1 << 20);
    least.max(PART_MIN_BYTES)
}

/// A digest that a source may promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// An `ETag` of an object that was put by one request without a server's own key.
    Md5,
    /// `x-amz-checksum-sha256`.
    Sha256,
    /// `x-amz-checksum-crc32`.
    Crc32,
    /// `x-amz-checksum-crc32c`.
    Crc32c,
    /// `x-amz-checksum-crc64nvme`.
    Crc64Nvme,
}

/// A digest being computed.
enum Hasher {
    Md5(Md5),
    Sha256(Sha256),
    Crc32(crc32fast::Hasher),
    Crc32c(u32),
    /// Every stage computes it anyway.
    Crc64,
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Md5 => Self::Md5(Md5::new()),
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Crc32 => Self::Crc32(crc32fast::Hasher::new()),
            Algorithm::Crc32c => Self::Crc32c(0),
            Algorithm::Crc64Nvme => Self::Crc64,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(md5) => md5.update(bytes),
            Self::Sha256(sha256) => sha256.update(bytes),
            Self::Crc32(hasher) => hasher.update(bytes),
            Self::Crc32c(crc) => *crc = crc32c::crc32c_append(*crc, bytes),
            Self::Crc64 => {}
        }
    }

    fn finish(self, crc64: u64) -> Vec<u8> {
        match self {
            Self::Md5(md5) => md5.finalize().to_vec(),
            Self::Sha256(sha256) => sha256.finalize().to_vec(),
            Self::Crc32(hasher) => hasher.finalize().to_be_bytes().to_vec(),
            Self::Crc32c(crc) => crc.to_be_bytes().to_vec(),
            Self::Crc64 => crc64.to_be_bytes().to_vec(),
        }
    }
}

/// One part of a later multipart upload; the whole item where one request will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its length in bytes; 0 only for an empty item.
    pub size_bytes: u64,
    /// CRC-64/NVME of it.
    pub crc64: u64,
}

enum Content {
    Memory(Vec<u8>),
    File(PartFile),
}

/// Makes the file that an item is staged in when its length, in bytes, does not fit memory.
pub(crate) type Room<'a> = dyn Fn(u64) -> Result<PartFile> + 'a;

/// A copy in the making. [`begin`](Self::begin), [`write`](Self::write) until the end, then
/// [`finish`](Self::finish); beginning anew forgets what was written.
pub struct Stage<'a> {
    context: &'a Context,
    /// `None`: in `TMPDIR`.
    room: Option<&'a Room<'a>>,
    /// Counts every byte that goes in, and later out.
    meter: Arc<AtomicU64>,
    /// `None` before the beginning and behind the end.
    content: Option<Content>,
    expected_bytes: u64,
    written_bytes: u64,
    /// Of the whole.
    crc: Crc64,
    parts: Vec<Part>,
    part_bytes: u64,
    /// Of the part that is being written, where there is more than one.
    part: Crc64,
    hasher: Option<Hasher>,
}

impl<'a> Stage<'a> {
    /// An empty stage with room in `TMPDIR`; takes none yet.
    pub fn new(context: &'a Context) -> Self {
        Self {
            context,
            room: None,
            meter: Arc::default(),
            content: None,
            expected_bytes: 0,
            written_bytes: 0,
            crc: Crc64::new(),
            parts: Vec::new(),
            part_bytes: PART_MIN_BYTES,
            part: Crc64::new(),
            hasher: None,
        }
    }

    /// An empty stage for the destination that offers `room`; `meter` counts every byte that goes
    /// in, and out of the copy again.
    pub fn in_room(context: &'a Context, room: &'a Room<'a>, meter: Arc<AtomicU64>) -> Self {
        Self {
            room: Some(room),
            meter,
            ..Self::new(context)
        }
    }

    /// Makes room for an item of this length, and starts the digest that its source promises.
    ///
    /// # Errors
    /// Those of the room: `Storage`, `Denied`, `Missing`, `Invalid`.
    pub fn begin(&mut self, size_bytes: u64, promised: Option<Algorithm>) -> Result<()> {
        self.expected_bytes = size_bytes;
        self.written_bytes = 0;
        self.part_bytes = part_size(size_bytes);
        self.crc = Crc64::new();
        self.parts.clear();
        self.part = Crc64::new();
        self.hasher = promised.map(Hasher::new);
        self.meter.store(0, Ordering::Relaxed);
        self.content = Some(match self.content.take() {
            _ if size_bytes <= MEMORY_LIMIT_BYTES => {
                let room = usize::try_from(size_bytes).unwrap_or(0);
                Content::Memory(Vec::with_capacity(room))
            }
            Some(Content::File(begun)) => {
                begun.clear()?;
                Content::File(begun)
            }
            _ => Content::File(match self.room {
                Some(room) => room(size_bytes)?,
                None => PartFile::unnamed(self.context, size_bytes)?,
            }),
        });
        Ok(())
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// `Storage`: there is no room left. `Transient`: more than was announced. `Changed`: a network
    /// filesystem lost the file. `Stopped`: transfers are to be broken off.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.context.stop.check()?;
        self.written_bytes += bytes.len() as u64;
        if self.written_bytes > self.expected_bytes {
            return Err(Error::new(
                Kind::Transient,
                "stage: more bytes than announced",
            ));
        }
        self.meter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        match &mut self.content {
            None => return Err(not_begun()),
            Some(Content::Memory(memory)) => memory.extend_from_slice(bytes),
            Some(Content::File(file)) => {
                file.write(bytes, self.written_bytes - bytes.len() as u64)?;
            }
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.crc.write(bytes);
        if self.expected_bytes > self.part_bytes {
            self.write_parts(bytes);
        }
        Ok(())
    }

    /// Ends the copy; gives it and the promised digest, big-endian for a CRC.
    ///
    /// # Errors
    /// `Transient`: fewer bytes than announced: the source ended early. `Other`: it was not begun.
    pub fn finish(&mut self) -> Result<(Staged, Option<Vec<u8>>)> {
        if self.written_bytes != self.expected_bytes {
            let (got, wanted) = (self.written_bytes, self.expected_bytes);
            return Err(Error::new(
                Kind::Transient,
                format!("stage: the source ended after {got} of {wanted} bytes"),
            ));
        }
        let crc64 = self.crc.sum64();
        if self.expected_bytes <= self.part_bytes {
            let size_bytes = self.written_bytes;
            self.parts.push(Part {
                offset: 0,
                size_bytes,
                crc64,
            });
        } else if self.parts_end() < self.written_bytes {
            self.close_part(self.written_bytes - self.parts_end());
        }
        let digest = self.hasher.take().map(|hasher| hasher.finish(crc64));
        let content = self.content.take().ok_or_else(not_begun)?;
        let parts = std::mem::take(&mut self.parts);
        Ok((
            Staged {
                content,
                meter: Arc::clone(&self.meter),
                size_bytes: self.written_bytes,
                crc64,
                parts,
            },
            digest,
        ))
    }

    /// Hashes each part for itself; `bytes` are counted already.
    fn write_parts(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let done = self.written_bytes - bytes.len() as u64 - self.parts_end();
            let room = usize::try_from(self.part_bytes - done).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.part.write(now);
            bytes = later;
            if now.len() == room {
                self.close_part(self.part_bytes);
            }
        }
    }

    fn parts_end(&self) -> u64 {
        self.parts
            .last()
            .map_or(0, |last| last.offset + last.size_bytes)
    }

    fn close_part(&mut self, size_bytes: u64) {
        let offset = self.parts_end();
        let crc64 = self.part.sum64();
        self.parts.push(Part {
            offset,
            size_bytes,
            crc64,
        });
        self.part = Crc64::new();
    }
}

fn not_begun() -> Error {
    Error::new(
        Kind::Other,
        "use a stage that was not begun, or is finished: a fault of the program",
    )
}

/// A whole, verified copy of one item.
pub struct Staged {
    content: Content,
    meter: Arc<AtomicU64>,
    size_bytes: u64,
    crc64: u64,
    parts: Vec<Part>,
}

impl Staged {
    /// Its length.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// CRC-64/NVME of the whole.
    pub(crate) fn crc64(&self) -> u64 {
        self.crc64
    }

    /// The parts that a multipart upload has; one part for an item below the threshold.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Reads at `offset` as much as there is, at most `buffer`; 0 only at the end.
    ///
    /// # Errors
    /// `Storage`: the staging file cannot be read.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let amount = match &self.content {
            Content::Memory(memory) => {
                let start = usize::try_from(offset)
                    .unwrap_or(usize::MAX)
                    .min(memory.len());
                let amount = buffer.len().min(memory.len() - start);
                buffer[..amount].copy_from_slice(&memory[start..start + amount]);
                amount
            }
            Content::File(file) => file.read_at(buffer, offset)?,
        };
        self.meter.fetch_add(amount as u64, Ordering::Relaxed);
        Ok(amount)
    }

    /// The whole contents where they are in memory.
    pub fn in_memory(&self) -> Option<&[u8]> {
        match &self.content {
            Content::Memory(memory) => Some(memory),
            Content::File(_) => None,
        }
    }

    /// The file that it was staged in, where that is in the directory of its destination.
    pub(crate) fn part_file(&self) -> Option<&PartFile> {
        match &self.content {
            Content::File(file) if file.directory().is_some() => Some(file),
            _ => None,
        }
    }

    /// Whether it is byte for byte what `read` gives until that gives 0.
    ///
    /// # Errors
    /// Those of `read`. `Storage`: the copy cannot be read. `Stopped`: transfers are broken off.
    pub(crate) fn equals(
        &self,
        context: &Context,
        mut read: impl FnMut(&mut [u8]) -> Result<usize>,
    ) -> Result<bool> {
        let mut theirs = chunk_for(self.size_bytes);
        let mut ours = vec![0; theirs.len()];
        let mut offset = 0;
        loop {
            context.stop.check()?;
            let amount = read(&mut theirs)?;
            if amount == 0 {
                return Ok(offset == self.size_bytes);
            }
            let mut same = 0;
            while same < amount {
                let more = self.read_at(&mut ours[..amount - same], offset)?;
                if more == 0 || ours[..more] != theirs[same..same + more] {
                    return Ok(false);
                }
                same += more;
                offset += more as u64;
            }
        }
    }
}

/// Does `work` with each of so many parts, `helpers` threads beside the caller's, and gives what it
/// gave in their order. Parts count from 1. Nobody begins another part once one has failed.
///
/// # Errors
/// One of those that `work` had.
pub(crate) fn each_part<T: Send>(
    count: usize,
    helpers: usize,
    work: &(dyn Fn(u16) -> Result<T> + Sync),
) -> Result<Vec<T>> {
    let queue = Mutex::new((1..=u16::MAX).take(count));
    let next = || unpoisoned(queue.lock()).next();
    let take = || -> Result<Vec<(u16, T)>> {
        let mut done = Vec::new();
        while let Some(number) = next() {
            let result = work(number).inspect_err(|_| while next().is_some() {})?;
            done.push((number, result));
        }
        Ok(done)
    };
    let mut done = thread::scope(|scope| {
        let spawn = |_| {
            let builder = Builder::new().stack_size(STACK_BYTES);
            builder.spawn_scoped(scope, take)
        };
        // Fewer threads take longer, which is all.
        let threads: Vec<_> = (0..helpers).flat_map(spawn).collect();
        let own = take();
        threads.into_iter().fold(own, |done, thread| {
            let theirs = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
            let (mut done, theirs) = (done?, theirs?);
            done.extend(theirs);
            Ok(done)
        })
    })?;
    done.sort_unstable_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// A buffer for one chunk; no more than an item of this length needs: most are small.
pub(crate) fn chunk_for(size_bytes: u64) -> Vec<u8> {
    let needed = usize::try_from(size_bytes).unwrap_or(usize::MAX);
    // At least one byte: a read into an empty buffer looks like the end of the item.
    vec![0; needed.clamp(1, CHUNK_BYTES)]
}
