//! Answers the kernel's requests for a volume, and makes the trouble that a test asks for.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLock, ReplyOpen, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};
use rustix::io::Errno;

use super::Trouble;
use super::disk::{Disk, Kind, Result};

/// The kernel asks again each time.
const UNCACHED: Duration = Duration::ZERO;

const BLOCK_BYTES: u64 = 512;

/// `F_UNLCK` of fcntl(2): nobody holds a lock.
const UNLOCKED: i32 = 2;

/// What the kernel asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Lookup,
    GetAttr,
    SetAttr,
    /// `SetAttr` of owner or group.
    Chown,
    MakeDirectory,
    Unlink,
    RemoveDirectory,
    Rename,
    /// `Rename` that must not replace, or must exchange.
    RenameFlags,
    Link,
    Open,
    Create,
    Read,
    Write,
    /// A descriptor was closed.
    Flush,
    Sync,
    OpenDirectory,
    ReadDirectory,
    SyncDirectory,
    GetLock,
    SetLock,
}

impl Op {
    /// Whether it changes what processes see or what a power cut leaves.
    fn changes(self) -> bool {
        match self {
            Self::SetAttr
            | Self::Chown
            | Self::MakeDirectory
            | Self::Unlink
            | Self::RemoveDirectory
            | Self::Rename
            | Self::RenameFlags
            | Self::Link
            | Self::Create
            | Self::Write
            | Self::Sync
            | Self::SyncDirectory => true,
            Self::Lookup
            | Self::GetAttr
            | Self::Open
            | Self::Read
            | Self::Flush
            | Self::OpenDirectory
            | Self::ReadDirectory
            | Self::GetLock
            | Self::SetLock => false,
        }
    }
}

/// All that there is to know of a volume.
pub(super) struct State {
    pub(super) disk: Disk,
    pub(super) troubles: Vec<Trouble>,
    /// Counted since the trouble was set.
    pub(super) operations: Vec<(Op, String)>,
    pub(super) met: Option<String>,
    /// The power failed.
    pub(super) dark: bool,
    handles: BTreeMap<u64, Handle>,
    /// Length and time of files as they were when last looked at, where attributes are stale.
    remembered: BTreeMap<u64, (u64, SystemTime)>,
}

/// Something that is open.
struct Handle {
    ino: u64,
    /// What a directory had when it was opened.
    entries: Vec<(u64, OsString)>,
}

impl State {
    pub(super) fn new(disk: Disk) -> Self {
        Self {
            disk,
            troubles: Vec::new(),
            operations: Vec::new(),
            met: None,
            dark: false,
            handles: BTreeMap::new(),
            remembered: BTreeMap::new(),
        }
    }

    /// Counts an operation and meets the trouble that is due before it acts. Gives the error that
    /// is answered after it acted.
    fn enter(&mut self, op: Op, what: String) -> Result<Option<Errno>> {
        let shown = format!("{op:?} {what}");
        self.operations.push((op, what));
        let now = self.operations.len();
        let changes = self.operations.iter().filter(|(op, _)| op.changes());
        let changes = changes.count();
        let mut lost = None;
        for trouble in &mut self.troubles {
            let met = match trouble {
                Trouble::PowerCut { after } if now > *after => {
                    self.dark = true;
                    Err(Errno::IO)
                }
                Trouble::PowerCutAtChange { after } if self.dark || changes > *after => {
                    self.dark = true;
                    Err(Errno::IO)
                }
                Trouble::Fails { number, error } if now == *number => Err(*error),
                Trouble::AnswerLost { number, error } if now == *number => Ok(Some(*error)),
                Trouble::Refuses { op: refused, error } if op == *refused => Err(*error),
                Trouble::Meanwhile { number, act } if now == *number => {
                    if let Some(act) = act.take() {
                        act(&mut self.disk);
                    }
                    Ok(None)
                }
                _ => continue,
            };
            self.met.get_or_insert(shown.clone());
            lost = lost.or(met?);
        }
        Ok(lost)
    }

    fn has(&self, wanted: impl Fn(&Trouble) -> bool) -> bool {
        self.troubles.iter().any(wanted)
    }

    fn open(&mut self, ino: u64, entries: Vec<(u64, OsString)>) -> FileHandle {
        let last = self.handles.last_key_value().map_or(0, |(fh, _)| *fh);
        self.handles.insert(last + 1, Handle { ino, entries });
        FileHandle(last + 1)
    }

    fn is_open(&self, ino: u64) -> bool {
        self.handles.values().any(|handle| handle.ino == ino)
    }

    /// Gives an open file another name before its own goes, as an NFS client does.
    fn keep_open(&mut self, parent: u64, name: &OsStr) -> Result<bool> {
        let Ok(ino) = self.disk.lookup(parent, name) else {
            return Ok(false);
        };
        let keeps = self.has(|trouble| matches!(trouble, Trouble::SillyRenames))
            && self.is_open(ino)
            && self.disk.node(ino)?.links == 1;
        if keeps {
            let silly = OsString::from(format!(".nfs{ino:016x}"));
            self.disk.rename((parent, name), (parent, &silly))?;
        }
        Ok(keeps)
    }

    fn close(&mut self, fh: FileHandle) {
        let Some(closed) = self.handles.remove(&fh.0) else {
            return;
        };
        let path = self.disk.path_of(closed.ino);
        if path.contains("/.nfs") && !self.is_open(closed.ino) {
            self.disk.remove_all(path.as_ref());
        }
    }

    /// What is shown may be older than what is there.
    fn attributes(&mut self, ino: u64) -> Result<FileAttr> {
        let node = self.disk.node(ino)?;
        let (kind, size) = match &node.kind {
            Kind::File { data, .. } => (FileType::RegularFile, data.len() as u64),
            Kind::Directory { .. } => (FileType::Directory, 0),
        };
        let (mut size, mut mtime) = (size, node.modified);
        if kind == FileType::RegularFile {
            let stale = self.has(|trouble| matches!(trouble, Trouble::StaleAttributes));
            let current = (size, mtime);
            let remembered = self.remembered.entry(ino).or_insert(current);
            if !stale {
                *remembered = current;
            }
            (size, mtime) = *remembered;
        }
        let node = self.disk.node(ino)?;
        Ok(FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: size.div_ceil(BLOCK_BYTES),
            atime: mtime,
            mtime,
            ctime: mtime,
            crtime: mtime,
            kind,
            perm: u16::try_from(node.mode & 0o7777).expect("twelve bits"),
            nlink: node.links,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn child(&mut self, parent: u64, name: &OsStr) -> Result<FileAttr> {
        let ino = self.disk.lookup(parent, name)?;
        self.attributes(ino)
    }

    fn path(&self, parent: INodeNo, name: &OsStr) -> String {
        format!("{}/{}", self.disk.path_of(parent.0), name.display())
    }
}

/// One mount's end of the wire.
pub(super) struct Server {
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(super) fn new(state: Arc<Mutex<State>>) -> Self {
        Self { state }
    }

    /// One operation on what has no name in it.
    fn on<T>(
        &self,
        op: Op,
        ino: INodeNo,
        act: impl FnOnce(&mut State, u64) -> Result<T>,
    ) -> Result<T> {
        self.serve(
            op,
            |state| state.disk.path_of(ino.0),
            |state| act(state, ino.0),
        )
    }

    /// One operation on a name in a directory.
    fn at<T>(
        &self,
        op: Op,
        (parent, name): (INodeNo, &OsStr),
        act: impl FnOnce(&mut State, u64) -> Result<T>,
    ) -> Result<T> {
        self.serve(
            op,
            |state| state.path(parent, name),
            |state| act(state, parent.0),
        )
    }

    fn serve<T>(
        &self,
        op: Op,
        what: impl FnOnce(&State) -> String,
        act: impl FnOnce(&mut State) -> Result<T>,
    ) -> Result<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let what = what(&state);
        let lost = state.enter(op, what)?;
        let result = act(&mut state)?;
        lost.map_or(Ok(result), Err)
    }

    fn release(&self, fh: FileHandle) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.close(fh);
    }
}

fn code(error: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(error.raw_os_error())
}

fn entry(result: Result<FileAttr>, reply: ReplyEntry) {
    match result {
        Ok(attr) => reply.entry(&UNCACHED, &attr, Generation(0)),
        Err(error) => reply.error(code(error)),
    }
}

fn attr(result: Result<FileAttr>, reply: ReplyAttr) {
    match result {
        Ok(attr) => reply.attr(&UNCACHED, &attr),
        Err(error) => reply.error(code(error)),
    }
}

fn empty(result: Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(code(error)),
    }
}

fn opened(result: Result<FileHandle>, reply: ReplyOpen) {
    match result {
        Ok(fh) => reply.opened(fh, FopenFlags::FOPEN_DIRECT_IO),
        Err(error) => reply.error(code(error)),
    }
}

/// A place in a file; the tests' files are small.
fn place(number: u64) -> usize {
    usize::try_from(number).expect("a small file")
}

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Locks are asked for here and not in the kernel.
        let missing = config.add_capabilities(InitFlags::FUSE_POSIX_LOCKS);
        missing.map_err(|flags| io::Error::other(format!("the kernel knows no {flags:?}")))
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.at(Op::Lookup, (parent, name), |state, parent| {
            state.child(parent, name)
        });
        entry(found, reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let found = self.on(Op::GetAttr, ino, State::attributes);
        attr(found, reply);
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let owner = uid.is_some() || gid.is_some();
        let op = if owner { Op::Chown } else { Op::SetAttr };
        let set = self.on(op, ino, |state, ino| {
            if let Some(size) = size {
                state.disk.truncate(ino, place(size))?;
            }
            let node = state.disk.node_mut(ino)?;
            node.mode = mode.unwrap_or(node.mode);
            match mtime {
                Some(TimeOrNow::SpecificTime(time)) => node.modified = time,
                Some(TimeOrNow::Now) => node.modified = SystemTime::now(),
                None => {}
            }
            state.remembered.remove(&ino);
            state.attributes(ino)
        });
        attr(set, reply);
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let made = self.at(Op::MakeDirectory, (parent, name), |state, parent| {
            state.disk.make_directory(parent, name, mode)?;
            state.child(parent, name)
        });
        entry(made, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.at(Op::Unlink, (parent, name), |state, parent| {
            if state.keep_open(parent, name)? {
                return Ok(());
            }
            state.disk.unlink(parent, name)
        });
        empty(done, reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.at(Op::RemoveDirectory, (parent, name), |state, parent| {
            state.disk.remove_directory(parent, name)
        });
        empty(done, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let op = if flags.is_empty() {
            Op::Rename
        } else {
            Op::RenameFlags
        };
        let what = |state: &State| {
            let (from, to) = (state.path(parent, name), state.path(new_parent, new_name));
            format!("{from} to {to}")
        };
        let done = self.serve(op, what, |state| {
            let taken = state.disk.lookup(new_parent.0, new_name).is_ok();
            if flags == RenameFlags::RENAME_NOREPLACE && taken {
                return Err(Errno::EXIST);
            }
            if flags.contains(RenameFlags::RENAME_EXCHANGE) {
                return Err(Errno::INVAL);
            }
            state.keep_open(new_parent.0, new_name)?;
            state
                .disk
                .rename((parent.0, name), (new_parent.0, new_name))
        });
        empty(done, reply);
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let done = self.at(Op::Link, (parent, name), |state, parent| {
            state.disk.link(ino.0, parent, name)?;
            state.attributes(ino.0)
        });
        entry(done, reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let done = self.on(Op::Open, ino, |state, ino| {
            state.disk.data(ino)?;
            // Close-to-open: whoever opens a file sees what was closed before.
            state.remembered.remove(&ino);
            Ok(state.open(ino, Vec::new()))
        });
        opened(done, reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let done = self.at(Op::Create, (parent, name), |state, parent| {
            let ino = state.disk.create(parent, name, mode)?;
            Ok((state.attributes(ino)?, state.open(ino, Vec::new())))
        });
        match done {
            Ok((attr, fh)) => {
                let flags = FopenFlags::FOPEN_DIRECT_IO;
                reply.created(&UNCACHED, &attr, Generation(0), fh, flags);
            }
            Err(error) => reply.error(code(error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let done = self.on(Op::Read, ino, |state, ino| {
            // A client reads no further than the length that it knows of.
            let known = place(state.attributes(ino)?.size);
            let data = state.disk.data(ino)?;
            let end = data.len().min(known);
            let start = place(offset).min(end);
            Ok(data[start..end.min(start + size as usize)].to_vec())
        });
        match done {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(code(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let done = self.on(Op::Write, ino, |state, ino| {
            state.remembered.remove(&ino);
            state.disk.write(ino, place(offset), data)
        });
        match done {
            Ok(()) => reply.written(u32::try_from(data.len()).expect("one request")),
            Err(error) => reply.error(code(error)),
        }
    }

    fn flush(&self, _: &Request, ino: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        empty(self.on(Op::Flush, ino, |_, _| Ok(())), reply);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.release(fh);
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let done = self.on(Op::Sync, ino, |state, ino| {
            state.disk.sync(ino);
            Ok(())
        });
        empty(done, reply);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let done = self.on(Op::OpenDirectory, ino, |state, ino| {
            let names = state.disk.names(ino)?.iter();
            let entries = names.map(|(name, ino)| (*ino, name.clone())).collect();
            Ok(state.open(ino, entries))
        });
        opened(done, reply);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let done = self.on(Op::ReadDirectory, ino, |state, _| {
            let handle = state.handles.get(&fh.0).ok_or(Errno::BADF)?;
            for (at, (ino, name)) in handle.entries.iter().enumerate().skip(place(offset)) {
                let kind = match state.disk.names(*ino) {
                    Ok(_) => FileType::Directory,
                    Err(_) => FileType::RegularFile,
                };
                if reply.add(INodeNo(*ino), at as u64 + 1, kind, name) {
                    break;
                }
            }
            Ok(())
        });
        match done {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(code(error)),
        }
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.release(fh);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let done = self.on(Op::SyncDirectory, ino, |state, ino| {
            state.disk.sync(ino);
            Ok(())
        });
        empty(done, reply);
    }

    fn getlk(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: LockOwner,
        start: u64,
        end: u64,
        _: i32,
        _: u32,
        reply: ReplyLock,
    ) {
        match self.on(Op::GetLock, ino, |_, _| Ok(())) {
            Ok(()) => reply.locked(start, end, UNLOCKED, 0),
            Err(error) => reply.error(code(error)),
        }
    }

    fn setlk(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: LockOwner,
        _: u64,
        _: u64,
        _: i32,
        _: u32,
        _: bool,
        reply: ReplyEmpty,
    ) {
        empty(self.on(Op::SetLock, ino, |_, _| Ok(())), reply);
    }
}
