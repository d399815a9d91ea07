//! Beside the real Bots: an unchanged engine with its own user reads what we bring and writes what
//! we fetch, and its own database says that it met each document once and without error.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::data::{edifact, x12};
use crate::support::minio::free_port;
use crate::support::process::{Call, Run, Running};
use crate::support::sandbox::chmod;
use crate::support::{End, Sandbox, Tree};

/// Whom Bots runs as where we are root. Its group is that of the program.
const USER: u32 = 1001;
const GROUP: u32 = 1000;

/// Runs of Bots until all has to be through; during each the program runs many times.
const ROUNDS_MAX: usize = 60;

#[test]
fn bots_passes_each_document_on_once_with_lock_files() {
    let locks = json!({"lockname": "bots.lock"});
    all_go_through(&locks, &locks, "lock_file: bots.lock");
}

#[test]
fn bots_passes_each_document_on_once_with_system_locks() {
    let locks = json!({"syslock": true});
    all_go_through(&locks, &locks, "min_age_seconds: 1");
}

#[test]
fn bots_passes_each_document_on_once_without_locks() {
    all_go_through(&json!({}), &json!({}), "min_age_seconds: 2");
}

/// Twenty documents go from the bucket through the program, Bots and the program again back to the
/// bucket, in portions, while Bots and the program run at the same time.
fn all_go_through(incoming: &Value, outgoing: &Value, rule: &str) {
    let sandbox = Sandbox::new();
    let (inbound, outbound) = (sandbox.mkdir("inbound"), sandbox.mkdir("outbound"));
    if outgoing.get("lockname").is_some() {
        // Bots makes a missing directory, but only after it has put its lock file there.
        chmod(&sandbox.mkdir("outbound/orders"), 0o775);
    }
    // What a volume that two pods share has: one group that may write.
    for directory in [&sandbox.path(""), &sandbox.base(), &inbound, &outbound] {
        chmod(directory, 0o775);
    }
    sandbox.unprivileged();
    let bots = Bots::install(&[
        channel("in", &inbound.join("orders"), "*.edi", incoming),
        channel("out", &outbound.join("orders"), "{infile}", outgoing),
    ]);
    sandbox.env("BOTS_MOVER_UMASK", "0002");
    let orders = "dest: {type: file, path: inbound/orders}, if_exists: fail";
    sandbox.rule("inbound", &format!("src: {{type: s3, path: in}}, {orders}"));
    let invoices = "dest: {type: s3, path: out}, if_exists: fail";
    let source = "{type: file, path: outbound/orders}";
    sandbox.rule("outbound", &format!("src: {source}, {invoices}, {rule}"));

    let documents = documents();
    let all: Vec<_> = documents.0.iter().collect();
    let mut portions = all.chunks(5);
    for round in 0.. {
        assert!(round < ROUNDS_MAX, "{:?}", sandbox.at_end(End::S3, "out"));
        for (name, bytes) in portions.next().unwrap_or_default() {
            sandbox.bucket().put(&format!("in/{name}"), &bytes.0);
        }
        if round == 0 {
            // With a lock file Bots wants to have the directory from the beginning.
            sandbox.run().succeeds();
        }
        let engine = bots.start_engine();
        while !engine.has_ended() {
            sandbox.run().succeeds();
        }
        engine.finish().exits(0);
        if sandbox.at_end(End::S3, "out").len() == documents.len() {
            break;
        }
    }

    assert_eq!(sandbox.at_end(End::S3, "out"), documents);
    for end in [sandbox.at_end(End::S3, "in"), sandbox.files("")] {
        assert_eq!(end, Tree::default());
    }
    bots.noted_each_once(&documents);
}

/// A channel as Bots' form has it, with what else is to be set.
fn channel(inorout: &str, path: &Path, filename: &str, more: &Value) -> Value {
    let mut channel = json!({
        "idchannel": format!("orders_{inorout}"),
        "inorout": inorout,
        "path": path,
        "filename": filename,
        "remove": inorout == "in",
    });
    let more = more.as_object().expect("a mapping").clone();
    channel.as_object_mut().expect("a mapping").extend(more);
    channel
}

/// Half of them X12 850, half EDIFACT ORDERS, with the names that partners think of.
fn documents() -> Tree {
    let name = |number: usize| match number % 5 {
        0 => format!("PO_{number:04}.edi"),
        1 => format!("order {number} (urgent).edi"),
        2 => format!("Händler-{number}.edi"),
        3 => format!("850.{number}.X12.edi"),
        _ => format!("-[{number}] {{ORDERS}}.edi"),
    };
    let contents = |number: usize| match number % 2 {
        0 => x12(number, 10 * number, "~\r\n"),
        _ => edifact(number, 10 * number),
    };
    let all = 0..20;
    all.map(|number| (name(number), contents(number))).collect()
}

/// An installation of Bots with its own settings and database.
struct Bots {
    home: TempDir,
}

impl Bots {
    /// Each incoming channel is followed by the outgoing one that its files are passed on to.
    fn install(channels: &[Value]) -> Self {
        let home = tempfile::Builder::new()
            .prefix("bots-mover-bots-")
            .tempdir();
        let bots = Self {
            home: home.expect("a temporary directory"),
        };
        let root = bots.home.path();
        chmod(root, 0o755);
        for folder in ["config", "usersys", "botssys"] {
            fs::create_dir(root.join(folder)).unwrap();
        }
        for package in ["config", "usersys"] {
            fs::write(root.join(package).join("__init__.py"), "").unwrap();
        }
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/bots");
        for (from, to) in [
            ("settings.py", "config/settings.py"),
            ("sitecustomize.py", "sitecustomize.py"),
            ("installation.py", "installation.py"),
        ] {
            fs::copy(data.join(from), root.join(to)).unwrap();
        }
        let ini = fs::read_to_string(data.join("bots.ini")).unwrap();
        let ini = ini.replace("@root@", root.to_str().expect("a path in UTF-8"));
        let ini = ini.replace("@port@", &free_port().to_string());
        fs::write(root.join("config/bots.ini"), ini).unwrap();
        if rustix::process::geteuid().is_root() {
            chown(root.join("botssys"), Some(USER), Some(GROUP)).unwrap();
        }
        copy_packages(root);
        bots.installation(&["make", &Value::from(channels).to_string()]);
        bots
    }

    /// Reads what is there, translates nothing, writes it, ends.
    fn start_engine(&self) -> Running {
        self.python(&["-m", "bots.engine", "-cconfig", "--new"])
            .start()
    }

    fn installation(&self, words: &[&str]) -> Run {
        let run = self.python(&[&["installation.py"], words].concat()).run();
        run.exits(0);
        run
    }

    fn python(&self, words: &[&str]) -> Call {
        let user = USER.to_string();
        let group = GROUP.to_string();
        let mut launcher = Vec::new();
        if rustix::process::geteuid().is_root() {
            let words = ["--reuid", &user, "--regid", &group, "--clear-groups", "--"];
            launcher.push(OsString::from("setpriv"));
            launcher.extend(words.map(OsString::from));
        }
        let umask = ["sh", "-c", "umask 0002; exec \"$@\"", "sh"];
        launcher.extend(umask.map(OsString::from));
        let variables = [
            ("PATH", "/usr/bin:/bin".into()),
            ("LC_ALL", "C.UTF-8".into()),
            ("PYTHONPATH", self.home.path().into()),
        ];
        Call {
            launcher,
            program: self.home.path().join("python/bin/python"),
            args: words.iter().map(OsString::from).collect(),
            env: BTreeMap::from(variables.map(|(name, value)| (name.to_owned(), value))),
            directory: self.home.path().to_owned(),
            ..Call::default()
        }
    }

    /// Its own database: each document was read once and written once, and nothing went wrong.
    fn noted_each_once(&self, documents: &Tree) {
        let run = self.installation(&["report"]);
        let report: Value = serde_json::from_str(&run.stdout).unwrap();
        let none: [&str; 0] = [];
        assert_eq!(report["errors"], json!(none), "{report:#}");
        assert_eq!(report["not_done"], json!(none), "{report:#}");
        assert_eq!(report["failed"], 0, "{report:#}");
        for count in ["received", "sent"] {
            assert_eq!(report[count], documents.len(), "{report:#}");
        }
        for list in ["read", "written"] {
            let paths = report[list].as_array().expect("a list");
            let names = paths.iter().map(|path| Path::new(path.as_str().unwrap()));
            let mut names: Vec<_> = names.map(|path| path.file_name().unwrap()).collect();
            names.sort();
            assert_eq!(names, documents.names(), "{report:#}");
        }
    }
}

/// Bots where its user gets to: the target directory may lie where only we do.
fn copy_packages(root: &Path) {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools");
    let installed = tools.join("bots");
    assert!(
        installed.join("bin/python").exists(),
        "the tests need Bots in {}: run `./build.sh test`, or leave them out by `--skip bots::`",
        installed.display()
    );
    let copy = root.join("python");
    // Links where both are on one filesystem.
    let copied = ["--link", "--force"].iter().any(|option| {
        let mut command = Command::new("cp");
        command
            .args(["--archive", "--no-target-directory", option])
            .args([&installed, &copy]);
        command.status().expect("start cp").success()
    });
    assert!(copied, "{} cannot be copied", installed.display());
}
