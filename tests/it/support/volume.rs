//! A filesystem in user space, in memory: it forgets on command what was not synced, as a power cut
//! does, and misbehaves as network filesystems and full disks do.
//!
//! The kernel caches nothing of it, so that every operation of the program is seen here.

mod disk;
mod server;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::{BackgroundSession, MountOption};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use tempfile::TempDir;

pub(crate) use self::disk::{Cut, Disk};
pub(crate) use self::server::Op;
use self::server::{Server, State};

/// What another host does to a volume.
pub(crate) type Act = Box<dyn FnOnce(&mut Disk) + Send>;

/// What becomes of the operations on a volume.
pub(crate) enum Trouble {
    /// After so many operations the power fails: every further one answers `EIO`.
    PowerCut { after: usize },
    /// The same after so many operations that change something: between two of them nothing does.
    PowerCutAtChange { after: usize },
    /// The n-th operation, from 1, fails and does not act.
    Fails { number: usize, error: Errno },
    /// The n-th operation, from 1, acts, and its answer is lost.
    AnswerLost { number: usize, error: Errno },
    /// Each operation of a kind fails and does not act.
    Refuses { op: Op, error: Errno },
    /// Right before the n-th operation, from 1, another host does this.
    Meanwhile { number: usize, act: Option<Act> },
    /// What is removed or replaced while somebody has it open stays until then, as `.nfs…`.
    SillyRenames,
    /// Length and time of a file are those of its last opening, or of our own last change.
    StaleAttributes,
}

/// A mounted volume, unmounted when it is dropped.
pub(crate) struct Volume {
    directory: TempDir,
    state: Arc<Mutex<State>>,
    /// Its thread is not waited for: a mount namespace of another test may hold a copy of the mount
    /// for a while.
    session: Option<BackgroundSession>,
}

impl Volume {
    /// A volume that holds this.
    pub(crate) fn new(disk: Disk) -> Self {
        let directory = tempfile::Builder::new().prefix("bots-mover-it-").tempdir();
        let directory = directory.expect("a temporary directory");
        let state = Arc::new(Mutex::new(State::new(disk)));
        let session = Some(mount(directory.path(), &state));
        Self {
            directory,
            state,
            session,
        }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// What it holds, past the kernel and all trouble.
    pub(crate) fn disk(&self) -> Disk {
        self.state().disk.clone()
    }

    /// Unmounts it and mounts one that holds this in its place, without trouble.
    pub(crate) fn exchange(&mut self, disk: Disk) {
        self.unmount();
        self.state = Arc::new(Mutex::new(State::new(disk)));
        self.session = Some(mount(self.directory.path(), &self.state));
    }

    /// From now on operations are counted anew and meet this trouble and no other.
    pub(crate) fn meets(&self, troubles: impl Into<Vec<Trouble>>) {
        let mut state = self.state();
        state.troubles = troubles.into();
        state.operations.clear();
        state.met = None;
        state.dark = false;
    }

    /// No trouble any more.
    pub(crate) fn calms_down(&self) {
        self.meets([]);
    }

    /// The operation that met trouble first.
    pub(crate) fn met(&self) -> Option<String> {
        self.state().met.clone()
    }

    /// What was asked for since trouble was last set.
    pub(crate) fn operations(&self) -> Vec<(Op, String)> {
        self.state().operations.clone()
    }

    /// Whether the power failed.
    pub(crate) fn is_dark(&self) -> bool {
        self.state().dark
    }

    /// Takes it away at once, also where the last close of a dead process is still on its way:
    /// unmounting plainly would find it busy and leave it behind.
    fn unmount(&mut self) {
        // An ordinary user may not; the session then asks fusermount when it is dropped.
        let _ = rustix::mount::unmount(self.directory.path(), UnmountFlags::DETACH);
        self.session = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.unmount();
    }
}

fn mount(directory: &Path, state: &Arc<Mutex<State>>) -> BackgroundSession {
    let mut config = fuser::Config::default();
    config.mount_options = vec![MountOption::FSName("bots-mover-it".into())];
    let mounted = fuser::spawn_mount(Server::new(Arc::clone(state)), directory, &config);
    mounted.unwrap_or_else(|error| {
        panic!(
            "cannot mount a filesystem in user space: {error}\n\
             These tests need /dev/fuse and the right to mount. As root: `modprobe fuse`; in a \
             container: `--device /dev/fuse --cap-add SYS_ADMIN`. As an ordinary user: \
             `apt-get install fuse3`."
        )
    })
}
