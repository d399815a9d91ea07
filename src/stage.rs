//! The local temporary copy of one item: memory while small; beyond, the room that its destination
//! offers.
//!
//! Everything that streams through is hashed on the way: a CRC-64/NVME for each part of an upload,
//! and the one digest that the source promises. Invariant: a [`Staged`] is whole; it can only be
//! had from [`Stage::finish`] and [`Stage::finish_parts`], which compare the length with what was
//! announced.

use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
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

/// How many parts an item this long has; an empty one has one.
pub(crate) fn part_count(size_bytes: u64) -> usize {
    let count = size_bytes.div_ceil(part_size(size_bytes));
    usize::try_from(count).map_or(usize::MAX, |count| count.max(1))
}

/// Where a part begins and ends; parts count from 1.
pub(crate) fn part_range(size_bytes: u64, number: u16) -> Range<u64> {
    let step = part_size(size_bytes);
    let start = u64::from(number - 1) * step;
    start..(start + step).min(size_bytes)
}

/// One part of a multipart upload; the whole item where one request will do.
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
    File(Arc<PartFile>),
}

/// What is staged of an item: all of it, or as many parts as are there.
pub(crate) struct Contents {
    content: Content,
    /// Counts every byte that is read.
    meter: Arc<AtomicU64>,
}

impl Contents {
    /// Reads at `offset` as much as there is, at most `buffer`; 0 only at the end.
    ///
    /// # Errors
    /// `Storage`: the staging file cannot be read.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
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
}

/// A part that is staged while the rest is on its way.
pub(crate) struct StagedPart {
    /// What it is read from.
    pub(crate) contents: Contents,
    /// Counts from 1.
    pub(crate) number: u16,
    pub(crate) part: Part,
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
    parts: Vec<Part>,
    part_bytes: u64,
    /// Of the part that is being written.
    crc: Crc64,
    hasher: Option<Hasher>,
    /// Where each part goes of an item that has more than one.
    sender: Option<Sender<StagedPart>>,
    begins: u32,
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
            parts: Vec::new(),
            part_bytes: PART_MIN_BYTES,
            crc: Crc64::new(),
            hasher: None,
            sender: None,
            begins: 0,
        }
    }

    /// An empty stage for the destination that offers `room`; `meter` counts every byte that goes
    /// in, and out of the copy again, so that all of an item counts twice.
    pub fn in_room(context: &'a Context, room: &'a Room<'a>, meter: Arc<AtomicU64>) -> Self {
        Self {
            room: Some(room),
            meter,
            ..Self::new(context)
        }
    }

    /// Sends each part there as soon as it is staged, where there is more than one; `None` ends
    /// that.
    pub(crate) fn send_parts(&mut self, sender: Option<Sender<StagedPart>>) {
        self.sender = sender;
    }

    /// Whether it was begun more than once: the parts that were sent before may be others.
    pub(crate) fn was_restarted(&self) -> bool {
        self.begins > 1
    }

    /// Makes room for an item of this length, and starts the digest that its source promises.
    ///
    /// # Errors
    /// Those of the room: `Storage`, `Denied`, `Missing`, `Invalid`.
    pub fn begin(&mut self, size_bytes: u64, promised: Option<Algorithm>) -> Result<()> {
        self.expected_bytes = size_bytes;
        self.written_bytes = 0;
        self.part_bytes = part_size(size_bytes);
        self.begins += 1;
        self.crc = Crc64::new();
        self.parts.clear();
        self.hasher = promised.map(Hasher::new);
        self.meter.store(0, Ordering::Relaxed);
        self.content = Some(match self.content.take() {
            _ if size_bytes <= MEMORY_LIMIT_BYTES => {
                let room = usize::try_from(size_bytes).unwrap_or(0);
                Content::Memory(Vec::with_capacity(room))
            }
            Some(Content::File(begun)) => {
                begun.clear(size_bytes)?;
                Content::File(begun)
            }
            _ => Content::File(Arc::new(match self.room {
                Some(room) => room(size_bytes)?,
                None => PartFile::unnamed(self.context, size_bytes)?,
            })),
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
            return Err(too_long());
        }
        let length = bytes.len() as u64;
        let progress = match &mut self.content {
            None => return Err(not_begun()),
            Some(Content::Memory(memory)) => {
                memory.extend_from_slice(bytes);
                length
            }
            Some(Content::File(file)) => {
                file.write(bytes, self.written_bytes - length)?;
                length * file.progress_per_byte()
            }
        };
        self.meter.fetch_add(progress, Ordering::Relaxed);
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.hash_parts(bytes);
        Ok(())
    }

    /// Ends the copy; gives it and the promised digest, big-endian for a CRC.
    ///
    /// # Errors
    /// `Transient`: fewer bytes than announced: the source ended early. `Other`: it was not begun.
    pub fn finish(&mut self) -> Result<(Staged, Option<Vec<u8>>)> {
        if self.written_bytes != self.expected_bytes {
            return Err(ended_early(self.written_bytes, self.expected_bytes));
        }
        if self.parts_end() < self.written_bytes || self.parts.is_empty() {
            self.close_part(self.written_bytes - self.parts_end());
        }
        let parts = std::mem::take(&mut self.parts);
        self.whole(parts)
    }

    /// Where the parts of the item that was begun may be written by several threads at once; `None`
    /// where it is in memory, or a digest is promised that cannot be put together from parts.
    pub(crate) fn in_parts(&self) -> Option<InParts<'_>> {
        let Some(Content::File(file)) = &self.content else {
            return None;
        };
        matches!(self.hasher, None | Some(Hasher::Crc64)).then_some(InParts {
            context: self.context,
            file,
            meter: &self.meter,
            size_bytes: self.expected_bytes,
        })
    }

    /// Ends a copy whose parts were written [`in_parts`](Self::in_parts); like
    /// [`finish`](Self::finish).
    ///
    /// # Errors
    /// `Transient`: a part is missing. `Other`: it was not begun.
    pub(crate) fn finish_parts(&mut self, parts: Vec<Part>) -> Result<(Staged, Option<Vec<u8>>)> {
        let end = parts.iter().try_fold(0, |end, part| {
            (part.offset == end).then_some(end + part.size_bytes)
        });
        self.written_bytes = end.unwrap_or(0);
        if self.written_bytes != self.expected_bytes {
            return Err(ended_early(self.written_bytes, self.expected_bytes));
        }
        self.whole(parts)
    }

    fn whole(&mut self, parts: Vec<Part>) -> Result<(Staged, Option<Vec<u8>>)> {
        let crc64 = parts.iter().fold(0, |crc, part| {
            crc_shifted(crc, part.size_bytes) ^ part.crc64
        });
        let digest = self.hasher.take().map(|hasher| hasher.finish(crc64));
        let contents = Contents {
            content: self.content.take().ok_or_else(not_begun)?,
            meter: Arc::clone(&self.meter),
        };
        let staged = Staged {
            contents,
            size_bytes: self.written_bytes,
            crc64,
            parts,
        };
        Ok((staged, digest))
    }

    /// Hashes each part for itself; `bytes` are counted already.
    fn hash_parts(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let done = self.written_bytes - bytes.len() as u64 - self.parts_end();
            let room = usize::try_from(self.part_bytes - done).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.crc.write(now);
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
        let crc64 = std::mem::take(&mut self.crc).sum64();
        let part = Part {
            offset: self.parts_end(),
            size_bytes,
            crc64,
        };
        self.parts.push(part);
        if let (Some(sender), Some(Content::File(file))) = (&self.sender, &self.content)
            && self.expected_bytes > self.part_bytes
            && let Ok(number) = u16::try_from(self.parts.len())
        {
            let contents = Contents {
                content: Content::File(Arc::clone(file)),
                meter: Arc::clone(&self.meter),
            };
            // Who receives no more needs no more parts.
            let _ = sender.send(StagedPart {
                contents,
                number,
                part,
            });
        }
    }
}

/// The file of an item whose parts are written by several threads at once.
pub(crate) struct InParts<'a> {
    context: &'a Context,
    file: &'a PartFile,
    meter: &'a AtomicU64,
    size_bytes: u64,
}

impl InParts<'_> {
    /// Writes the part of this number, which counts from 1, by `read` until that gives 0.
    ///
    /// # Errors
    /// Those of `read`. `Transient`: it gave fewer bytes than the part has, or more. `Storage`:
    /// there is no room left. `Stopped`: transfers are to be broken off.
    pub(crate) fn write(
        &self,
        number: u16,
        read: impl FnMut(&mut [u8]) -> Result<usize>,
    ) -> Result<Part> {
        let mut written = 0;
        self.write_counted(number, read, &mut written)
            .inspect_err(|_| {
                let progress = written * self.file.progress_per_byte();
                self.meter.fetch_sub(progress, Ordering::Relaxed);
            })
    }

    fn write_counted(
        &self,
        number: u16,
        mut read: impl FnMut(&mut [u8]) -> Result<usize>,
        written: &mut u64,
    ) -> Result<Part> {
        let range = part_range(self.size_bytes, number);
        let size_bytes = range.end - range.start;
        let mut buffer = chunk_for(size_bytes);
        let mut crc = Crc64::new();
        loop {
            self.context.stop.check()?;
            let amount = read(&mut buffer)?;
            if amount == 0 && *written == size_bytes {
                break;
            }
            let end = *written + amount as u64;
            if amount == 0 {
                return Err(ended_early(end, size_bytes));
            }
            if end > size_bytes {
                return Err(too_long());
            }
            self.file.write(&buffer[..amount], range.start + *written)?;
            crc.write(&buffer[..amount]);
            let progress = amount as u64 * self.file.progress_per_byte();
            self.meter.fetch_add(progress, Ordering::Relaxed);
            *written = end;
        }
        Ok(Part {
            offset: range.start,
            size_bytes,
            crc64: crc.sum64(),
        })
    }
}

/// What a CRC-64/NVME adds to that of the whole when so many bytes follow: times x^(8 n), as zlib's
/// `crc32_combine` does it. <https://github.com/madler/zlib/blob/master/crc32.c>
fn crc_shifted(crc: u64, by_bytes: u64) -> u64 {
    /// The polynomial, its bits reflected.
    const POLYNOMIAL: u64 = 0x9a6c_9329_ac4b_c9b5;
    let times = |one: u64, mut other: u64| {
        let mut product = 0;
        for bit in (0..u64::BITS).rev() {
            if one >> bit & 1 == 1 {
                product ^= other;
            }
            let carry = if other & 1 == 1 { POLYNOMIAL } else { 0 };
            other = other >> 1 ^ carry;
        }
        product
    };
    // The highest bit is x^0: this is x^8.
    let (mut power, mut bytes, mut shifted) = (1 << 55, by_bytes, crc);
    while bytes > 0 && crc != 0 {
        if bytes & 1 == 1 {
            shifted = times(power, shifted);
        }
        power = times(power, power);
        bytes >>= 1;
    }
    shifted
}

fn too_long() -> Error {
    Error::new(Kind::Transient, "stage: more bytes than announced")
}

fn ended_early(got: u64, wanted: u64) -> Error {
    let what = format!("stage: the source ended after {got} of {wanted} bytes");
    Error::new(Kind::Transient, what)
}

fn not_begun() -> Error {
    Error::new(
        Kind::Other,
        "use a stage that was not begun, or is finished: a fault of the program",
    )
}

/// A whole, verified copy of one item.
pub struct Staged {
    contents: Contents,
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
        self.contents.read_at(buffer, offset)
    }

    /// What its parts are read from.
    pub(crate) fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The whole contents where they are in memory.
    pub fn in_memory(&self) -> Option<&[u8]> {
        match &self.contents.content {
            Content::Memory(memory) => Some(memory),
            Content::File(_) => None,
        }
    }

    /// The file that it was staged in, where that is in the directory of its destination.
    pub(crate) fn part_file(&self) -> Option<&PartFile> {
        match &self.contents.content {
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
    let done = Mutex::new(Vec::with_capacity(count));
    let step = || {
        let Some(number) = unpoisoned(queue.lock()).next() else {
            return Ok(false);
        };
        let result = work(number)?;
        unpoisoned(done.lock()).push((number, result));
        Ok(true)
    };
    work_together(helpers, &step, &mut || ())?;
    let mut done = unpoisoned(done.into_inner());
    done.sort_unstable_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// Takes steps until there is none left, `helpers` threads beside the caller's, which does `first`
/// before it goes along. Nobody takes another step once one has failed.
///
/// # Errors
/// One of those that a step had.
pub(crate) fn work_together(
    helpers: usize,
    step: &(dyn Fn() -> Result<bool> + Sync),
    first: &mut dyn FnMut(),
) -> Result<()> {
    let failed = AtomicBool::new(false);
    let steps = || -> Result<()> {
        loop {
            if failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            if !step().inspect_err(|_| failed.store(true, Ordering::Relaxed))? {
                return Ok(());
            }
        }
    };
    thread::scope(|scope| {
        let spawn = |_| {
            let builder = Builder::new().stack_size(STACK_BYTES);
            builder.spawn_scoped(scope, steps)
        };
        // Fewer threads take longer, which is all.
        let threads: Vec<_> = (0..helpers).flat_map(spawn).collect();
        first();
        threads.into_iter().fold(steps(), |done, thread| {
            done.and(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })
    })
}

/// A buffer for one chunk; no more than an item of this length needs: most are small.
pub(crate) fn chunk_for(size_bytes: u64) -> Vec<u8> {
    let needed = usize::try_from(size_bytes).unwrap_or(usize::MAX);
    // At least one byte: a read into an empty buffer looks like the end of the item.
    vec![0; needed.clamp(1, CHUNK_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_the_whole_object_without_a_gap() {
        const MIB: u64 = 1 << 20;
        for (size_bytes, count) in [
            (16 * MIB + 1, 2),
            (32 * MIB, 2),
            (1024 * MIB + 1, 65),
            (5 << 40, 9987),
        ] {
            assert_eq!(part_count(size_bytes), usize::from(count), "{size_bytes}");
            let end = (1..=count).fold(0, |end, number| {
                let range = part_range(size_bytes, number);
                assert_eq!(range.start, end);
                assert!(range.end > range.start);
                range.end
            });
            assert_eq!(end, size_bytes);
        }
        assert_eq!(part_count(0), 1);
    }

    #[test]
    fn checksum_of_parts_is_that_of_the_whole() {
        let bytes: Vec<u8> = (0..5000_u32)
            .flat_map(|at| (at * at).to_le_bytes())
            .collect();
        let crc = |bytes: &[u8]| {
            let mut crc = Crc64::new();
            crc.write(bytes);
            crc.sum64()
        };
        for cut in [0, 1, 7, 8, 255, 256, 4095, 19_999, 20_000] {
            let (first, last) = bytes.split_at(cut);
            let both = crc_shifted(crc(first), last.len() as u64) ^ crc(last);
            assert_eq!(both, crc(&bytes), "{cut}");
        }
    }
}
