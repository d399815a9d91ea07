//! One test's world: a directory, a bucket, a config, and the runs made in it.
//!
//! A test that fails prints all of it: the rules, what lay where before and after each run, exit
//! status and log.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, openat};
use tempfile::TempDir;

use super::minio::{ACCESS_KEY, Minio, SECRET_KEY};
use super::process::{self, Call, Run, Running};
use super::proxy::Proxy;
use super::s3::Bucket;
use super::tree::{self, Tree};

/// Whom the program runs as where a test is about rights and we are root.
const NOBODY: u32 = 1000;

/// The same where nobody else may be this user.
const LONER: u32 = 4711;

/// A credential of fewer bytes is not looked for in what a run prints.
const SECRET_MIN_BYTES: usize = 8;

pub(crate) struct Sandbox {
    directory: TempDir,
    minio: Cell<Option<&'static Minio>>,
    bucket: OnceCell<Bucket>,
    defaults: RefCell<Vec<String>>,
    rules: RefCell<Vec<String>>,
    env: RefCell<BTreeMap<String, OsString>>,
    unprivileged: Cell<Option<u32>>,
    launcher: RefCell<Vec<OsString>>,
    story: RefCell<String>,
}

/// Where a direction starts or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    S3,
    File,
}

/// From and to, all four.
pub(crate) const DIRECTIONS: [(End, End); 4] = [
    (End::S3, End::File),
    (End::File, End::S3),
    (End::S3, End::S3),
    (End::File, End::File),
];

impl End {
    /// A rule's `src` or `dest` with this path.
    pub(crate) fn at(self, path: &str) -> String {
        let kind = match self {
            Self::S3 => "s3",
            Self::File => "file",
        };
        format!("{{type: {kind}, path: {path}}}")
    }
}

/// The two ends of a rule from `in` to `out`.
pub(crate) fn ends((from, to): (End, End)) -> String {
    format!("src: {}, dest: {}", from.at("in"), to.at("out"))
}

impl Sandbox {
    /// Files only: neither a bucket nor any `MINIO_*`.
    pub(crate) fn without_minio() -> Self {
        let directory = tempfile::Builder::new().prefix("bots-mover-it-").tempdir();
        let sandbox = Self {
            directory: directory.expect("a temporary directory"),
            minio: Cell::default(),
            bucket: OnceCell::new(),
            defaults: RefCell::default(),
            rules: RefCell::default(),
            env: RefCell::default(),
            unprivileged: Cell::default(),
            launcher: RefCell::default(),
            story: RefCell::default(),
        };
        for name in ["base", "tmp"] {
            fs::create_dir(sandbox.directory.path().join(name)).unwrap();
        }
        sandbox.env("TMPDIR", sandbox.tmp());
        sandbox.env(
            "BOTS_MOVER_TERMINATION_LOG",
            sandbox.directory.path().join("termination"),
        );
        let base = sandbox.base();
        sandbox.default(&format!("base_file_path: {}", base.display()));
        sandbox
    }

    /// With a bucket of its own.
    pub(crate) fn new() -> Self {
        Self::at(Minio::plain())
    }

    /// With a bucket of its own at the `MinIO` that speaks TLS.
    pub(crate) fn with_tls() -> Self {
        Self::at(Minio::tls())
    }

    /// With a bucket of its own at the `MinIO` that encrypts all.
    pub(crate) fn encrypting() -> Self {
        Self::at(Minio::encrypting())
    }

    fn at(minio: &'static Minio) -> Self {
        let sandbox = Self::without_minio();
        let bucket = minio.new_bucket();
        sandbox.minio.set(Some(minio));
        sandbox.env("MINIO_ENDPOINT", minio.endpoint());
        sandbox.env("MINIO_ACCESS_KEY", ACCESS_KEY);
        sandbox.env("MINIO_SECRET_KEY", SECRET_KEY);
        sandbox.default(&format!("default_bucket: {}", bucket.name()));
        sandbox.bucket.set(bucket).expect("it is set once");
        sandbox
    }

    /// The test's own bucket.
    pub(crate) fn bucket(&self) -> &Bucket {
        self.bucket.get().expect("a sandbox with a bucket")
    }

    /// A second, new bucket.
    pub(crate) fn another_bucket(&self) -> Bucket {
        self.minio
            .get()
            .expect("a sandbox with a bucket")
            .new_bucket()
    }

    /// Puts a proxy between the program and `MinIO`. It must outlive the runs.
    pub(crate) fn proxy(&self) -> Proxy {
        let minio = self.minio.get().expect("a sandbox with a bucket");
        let proxy = Proxy::start(&minio.address);
        self.env("MINIO_ENDPOINT", proxy.endpoint());
        proxy
    }

    /// `base_file_path`.
    pub(crate) fn base(&self) -> PathBuf {
        self.directory.path().join("base")
    }

    /// `TMPDIR`.
    pub(crate) fn tmp(&self) -> PathBuf {
        self.directory.path().join("tmp")
    }

    /// A path beside the base.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(relative)
    }

    /// One more line under `defaults`; a later one for the same key replaces an earlier one.
    pub(crate) fn default(&self, line: &str) -> &Self {
        let key = line.split(':').next().unwrap_or_default().to_owned();
        let mut defaults = self.defaults.borrow_mut();
        defaults.retain(|old| old.split(':').next() != Some(&key));
        defaults.push(line.to_owned());
        drop(defaults);
        self
    }

    /// Takes a line of `defaults` away.
    pub(crate) fn without_default(&self, key: &str) -> &Self {
        let mut defaults = self.defaults.borrow_mut();
        defaults.retain(|line| line.split(':').next() != Some(key));
        drop(defaults);
        self
    }

    /// One more rule, its keys in YAML's flow style.
    pub(crate) fn rule(&self, name: &str, keys: &str) -> &Self {
        self.rules.borrow_mut().push(format!("{name}: {{{keys}}}"));
        self
    }

    /// No rules any more.
    pub(crate) fn forget_rules(&self) -> &Self {
        self.rules.borrow_mut().clear();
        self
    }

    /// Sets a variable for the runs to come.
    pub(crate) fn env(&self, name: &str, value: impl AsRef<OsStr>) -> &Self {
        let value = value.as_ref().to_owned();
        self.env.borrow_mut().insert(name.to_owned(), value);
        self
    }

    /// The runs to come have the rights of an ordinary user, whom everything made so far is given.
    pub(crate) fn unprivileged(&self) -> &Self {
        self.unprivileged_as(NOBODY)
    }

    fn unprivileged_as(&self, user: u32) -> &Self {
        if rustix::process::geteuid().is_root() {
            self.unprivileged.set(Some(user));
            give_away(self.directory.path(), user);
        }
        self
    }

    /// The runs to come inherit this umask, in octal.
    pub(crate) fn umask(&self, umask: &str) -> &Self {
        self.launch_through(&["sh", "-c", "umask $0; exec \"$@\"", umask])
    }

    /// Nobody reads the standard output of the runs to come: a write to it fails.
    pub(crate) fn closed_stdout(&self) -> &Self {
        // /dev/full refuses each write, as a pipe without a reader does.
        self.launch_through(&["sh", "-c", "exec \"$@\" >/dev/full", "sh"])
    }

    /// Nobody reads the standard output of the runs to come, but somebody could: a write to it
    /// waits once this pipe is full.
    pub(crate) fn unread_stdout(&self) -> fs::File {
        let pipe = self.path("stdout");
        let mode = Mode::from_raw_mode(0o600);
        mknodat(CWD, &pipe, FileType::Fifo, mode, 0).expect("make a FIFO");
        let script = OsStr::new("exec \"$@\" >\"$0\"");
        self.launch_through(&[OsStr::new("sh"), OsStr::new("-c"), script, pipe.as_os_str()]);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        openat(CWD, &pipe, flags, Mode::empty())
            .expect("open the FIFO")
            .into()
    }

    /// The runs to come are started by this command, such as `strace …`.
    pub(crate) fn launched_by<A: AsRef<OsStr>>(&self, words: &[A]) -> &Self {
        let words = words.iter().map(|word| word.as_ref().to_owned());
        self.launcher.replace(words.collect());
        self
    }

    /// No file may grow beyond so many blocks of 512 bytes in the runs to come.
    pub(crate) fn file_size_limit_blocks(&self, blocks: &str) -> &Self {
        // The signal is ignored so that the write fails in place of the process.
        let script = "trap '' XFSZ; ulimit -f $0; exec \"$@\"";
        self.launch_through(&["sh", "-c", script, blocks])
    }

    /// The runs to come may have so many threads. The limit counts all that a user runs, so it is a
    /// user of no other test.
    pub(crate) fn threads_at_most(&self, threads: u32) -> &Self {
        if !rustix::process::geteuid().is_root() {
            self.launch_through(&["unshare", "--map-current-user"]);
        }
        self.launch_through(&["prlimit", &format!("--nproc={threads}")]);
        self.unprivileged_as(LONER)
    }

    /// These words stand before the program in the runs to come.
    pub(crate) fn launch_through<W: AsRef<OsStr>>(&self, words: &[W]) -> &Self {
        let words = words.iter().map(|word| word.as_ref().to_owned());
        self.launcher.borrow_mut().extend(words);
        self
    }

    /// Nothing stands before the program any more.
    pub(crate) fn launch_plainly(&self) -> &Self {
        self.launcher.borrow_mut().clear();
        self
    }

    /// The runs to come are killed when they write the first byte to a file. Pipes are no files.
    pub(crate) fn dies_at_first_write(&self) -> &Self {
        // SIGXFSZ ends a process that has no other plan for it.
        let script = "ulimit -c 0; ulimit -f 0; exec \"$@\"";
        self.launch_through(&["sh", "-c", script, "sh"])
    }

    /// The runs to come may do only these `s3:` actions, in the test's own bucket.
    pub(crate) fn only_allowed(&self, actions: &[&str]) -> &Self {
        let minio = self.minio.get().expect("a sandbox with a bucket");
        let session = minio.session(self.bucket().name(), actions);
        self.env("MINIO_ACCESS_KEY", session.access_key);
        self.env("MINIO_SECRET_KEY", session.secret_key);
        self.env("MINIO_SESSION_TOKEN", session.token)
    }

    /// The config as it is written for a run.
    pub(crate) fn config(&self) -> String {
        let mut text = "config:\n  defaults:\n".to_owned();
        for line in self.defaults.borrow().iter() {
            writeln!(text, "    {line}").unwrap();
        }
        for rule in self.rules.borrow().iter() {
            writeln!(text, "  {rule}").unwrap();
        }
        text
    }

    /// Writes a file below the base, with the directories it needs.
    pub(crate) fn write(&self, path: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.base().join(path);
        fs::create_dir_all(path.parent().expect("a file has a parent")).unwrap();
        fs::write(&path, contents).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// Writes a file that is `age` old.
    pub(crate) fn write_aged(&self, path: impl AsRef<Path>, contents: &str, age: Duration) {
        let path = self.write(path, contents);
        set_mtime(&path, SystemTime::now() - age);
    }

    /// Makes a directory below the base.
    pub(crate) fn mkdir(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = self.base().join(path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// All files below a directory of the base.
    pub(crate) fn files(&self, path: impl AsRef<Path>) -> Tree {
        tree::files_below(&self.base().join(path))
    }

    /// Puts items at one end, below `path`.
    pub(crate) fn fill(&self, end: End, path: &str, items: &Tree) {
        for (name, bytes) in &items.0 {
            match end {
                End::S3 => self.bucket().put(&format!("{path}/{name}"), &bytes.0),
                End::File => drop(self.write(format!("{path}/{name}"), &bytes.0)),
            }
        }
    }

    /// What lies at one end, below `path`.
    pub(crate) fn at_end(&self, end: End, path: &str) -> Tree {
        match end {
            End::S3 => self.bucket().tree(&format!("{path}/")),
            End::File => self.files(path),
        }
    }

    /// Runs all rules once.
    pub(crate) fn run(&self) -> Run {
        self.run_with::<&str>(&[])
    }

    /// Runs with more arguments behind `--config …`.
    pub(crate) fn run_with<A: AsRef<OsStr>>(&self, args: &[A]) -> Run {
        let call = self.call_with_config(args);
        self.tell("before", &call);
        let run = call.run();
        self.told(&run);
        run
    }

    /// Starts a run and lets it be.
    pub(crate) fn start(&self) -> Running {
        self.start_with::<&str>(&[])
    }

    /// Starts it with more arguments behind `--config …`.
    pub(crate) fn start_with<A: AsRef<OsStr>>(&self, args: &[A]) -> Running {
        let call = self.call_with_config(args);
        self.tell("before", &call);
        call.start()
    }

    /// Waits for the end of a run that was started.
    pub(crate) fn finish(&self, running: Running) -> Run {
        let run = running.finish();
        self.told(&run);
        run
    }

    /// Calls the program with these arguments and nothing else, in the sandbox's directory.
    pub(crate) fn call<A: AsRef<OsStr>>(&self, args: &[A]) -> Run {
        self.call_with_stdin(args, "")
    }

    /// What a line of shell prints on both streams, with the program on its `PATH`.
    pub(crate) fn shell(&self, line: &str) -> String {
        let program = process::program();
        let folder = program.parent().expect("the program lies in a directory");
        let path = std::env::var("PATH").unwrap_or_default();
        let output = std::process::Command::new("sh")
            .args(["-c", &format!("exec 2>&1; {line}")])
            .current_dir(self.directory.path())
            .env_clear()
            .envs(self.env.borrow().iter())
            .env("PATH", format!("{}:{path}", folder.display()))
            .output()
            .expect("sh can be started");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn call_with_stdin<A: AsRef<OsStr>>(&self, args: &[A], stdin: &str) -> Run {
        let mut call = self.bare_call(args.iter().map(|arg| arg.as_ref().to_owned()).collect());
        call.stdin = stdin.into();
        self.tell("before", &call);
        let run = call.run();
        self.told(&run);
        run
    }

    fn call_with_config<A: AsRef<OsStr>>(&self, args: &[A]) -> Call {
        let config = self.path("config.yaml");
        // Another run may be reading it.
        if fs::read_to_string(&config).ok().as_deref() != Some(&self.config()) {
            fs::write(&config, self.config()).expect("write the config");
        }
        let mut all = vec!["--config".into(), config.into_os_string()];
        all.extend(args.iter().map(|arg| arg.as_ref().to_owned()));
        self.bare_call(all)
    }

    fn bare_call(&self, args: Vec<OsString>) -> Call {
        let mut call = Call {
            program: process::program(),
            args,
            env: self.env.borrow().clone(),
            directory: self.directory.path().to_owned(),
            launcher: self.launcher.borrow().clone(),
            ..Call::default()
        };
        if let Some(user) = self.unprivileged.get() {
            let user = user.to_string();
            let words = [
                "setpriv",
                "--reuid",
                &user,
                "--regid",
                &user,
                "--clear-groups",
                "--",
            ];
            call.launcher.extend(words.map(OsString::from));
            call.program = self.program_for_everybody();
        }
        call.launcher.extend(process::runner());
        call
    }

    /// The target directory may lie where only root gets to.
    fn program_for_everybody(&self) -> PathBuf {
        let program = self.path("bots-mover");
        if !program.exists() {
            let built = process::program();
            fs::hard_link(&built, &program)
                .or_else(|_| fs::copy(&built, &program).map(drop))
                .expect("link or copy the program");
        }
        program
    }

    fn tell(&self, when: &str, call: &Call) {
        let mut story = self.story.borrow_mut();
        writeln!(story, "=== {when} {:?}", call.args).unwrap();
        self.describe(&mut story);
    }

    fn told(&self, run: &Run) {
        self.keeps_its_secrets(run);
        let mut story = self.story.borrow_mut();
        writeln!(story, "=== {run:?}\n=== after").unwrap();
        self.describe(&mut story);
    }

    /// Nothing that a run prints holds a credential, a signature or a presigned URL.
    fn keeps_its_secrets(&self, run: &Run) {
        let termination = fs::read(self.path("termination")).unwrap_or_default();
        let termination = String::from_utf8_lossy(&termination);
        let signed = [
            "X-Amz-",
            "x-amz-signature",
            "AWS4-HMAC-SHA256",
            "Signature=",
        ];
        let names = [
            "MINIO_ACCESS_KEY",
            "MINIO_SECRET_KEY",
            "MINIO_SESSION_TOKEN",
        ];
        let values = names.iter().filter_map(|name| run.call.env.get(*name));
        let mut secrets: Vec<String> = values
            .map(|value| value.to_string_lossy().trim().to_owned())
            // Shorter ones are parts of ordinary words.
            .filter(|value| value.len() >= SECRET_MIN_BYTES)
            .collect();
        let encoded = |secret: &String| secret.replace('/', "%2F").replace('+', "%2B");
        secrets.extend(secrets.iter().map(encoded).collect::<Vec<_>>());
        for secret in signed.into_iter().chain(secrets.iter().map(String::as_str)) {
            for text in [&run.stdout, &run.stderr, &*termination] {
                assert!(!text.contains(secret), "{secret:?} was told by {run:?}");
            }
        }
    }

    fn describe(&self, story: &mut String) {
        for line in tree::listing(self.directory.path()) {
            writeln!(story, "{line}").unwrap();
        }
        if let Some(bucket) = self.bucket.get() {
            for (key, size_bytes) in bucket.sizes() {
                writeln!(story, "s3://{}/{key:?}  {size_bytes} bytes", bucket.name()).unwrap();
            }
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let environment: Vec<_> = self.env.borrow().clone().into_iter().collect();
            eprintln!("=== config\n{}", self.config());
            eprintln!("=== environment\n{environment:?}\n{}", self.story.borrow());
        }
        // What a test took the rights from would stay behind.
        make_removable(self.directory.path());
    }
}

/// Sets a file's modification time.
pub(crate) fn set_mtime(path: &Path, time: SystemTime) {
    let file = fs::File::options()
        .write(true)
        .open(path)
        .expect("open to set the time");
    file.set_modified(time).expect("set the time");
}

/// The permission bits of a path.
pub(crate) fn mode(path: &Path) -> u32 {
    let meta = fs::symlink_metadata(path);
    let meta = meta.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    meta.permissions().mode() & 0o7777
}

/// Sets the permission bits of a path.
pub(crate) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set the mode");
}

fn give_away(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).expect("root may give files away");
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("read our own directory") {
            give_away(&entry.expect("an entry").path(), user);
        }
    }
}

fn make_removable(path: &Path) {
    if path.is_dir() && !path.is_symlink() {
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            make_removable(&entry.path());
        }
    }
}
