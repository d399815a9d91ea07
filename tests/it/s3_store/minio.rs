//! A real `MinIO` on a free port with a data directory of its own; killed when dropped.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bots_mover::environment::{Addressing, Connection, Verify};

pub(super) const ACCESS_KEY: &str = "moveraccess";
pub(super) const SECRET_KEY: &str = "moversecret";

const START_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Minio {
    process: Child,
    pub(super) port: u16,
    pub(super) data: tempfile::TempDir,
}

impl Minio {
    /// One that all tests which run at this moment share.
    pub(super) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Minio>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let minio = Arc::new(Self::start(&[], &[]));
            *shared = Arc::downgrade(&minio);
            minio
        })
    }

    pub(super) fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let (port, console) = (free_port(), free_port());
        let process = Command::new(binary("minio"))
            .arg("server")
            .args(arguments)
            .args(["--address", &format!("127.0.0.1:{port}")])
            .args(["--console-address", &format!("127.0.0.1:{console}")])
            .arg(data.path().join("drive"))
            .env("MINIO_ROOT_USER", ACCESS_KEY)
            .env("MINIO_ROOT_PASSWORD", SECRET_KEY)
            .env("MINIO_UPDATE", "off")
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let minio = Self {
            process,
            port,
            data,
        };
        minio.await_start();
        minio
    }

    fn await_start(&self) {
        let started = Instant::now();
        while !self.is_ready() {
            assert!(started.elapsed() < START_TIMEOUT, "MinIO does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// With TLS a plain request is answered, too: by a 400.
    fn is_ready(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else {
            return false;
        };
        let request = "GET /minio/health/cluster HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n";
        let mut answer = String::new();
        let asked = stream.write_all(request.as_bytes());
        let _ = asked.and_then(|()| stream.read_to_string(&mut answer));
        answer.contains(" 200 ") || answer.contains(" 400 ")
    }

    /// How to reach it; the tests change what they are about.
    pub(super) fn connection(&self) -> Connection {
        Connection {
            endpoint: format!("http://127.0.0.1:{}", self.port).parse().unwrap(),
            access_key: ACCESS_KEY.into(),
            secret_key: SECRET_KEY.into(),
            session_token: None,
            region: "us-east-1".into(),
            verify: Verify::Public,
            style: Addressing::Path,
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(20),
        }
    }
}

impl Drop for Minio {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(super) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// `minio` or `mc` from PATH, or from where `go install` puts it.
pub(super) fn binary(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|directory| directory.join(program));
    let found = in_path.into_iter().find(|file| file.is_file());
    found.unwrap_or_else(|| {
        let go = Command::new("go").args(["env", "GOPATH"]).output();
        let root = go.map(|output| output.stdout).unwrap_or_default();
        let file = PathBuf::from(String::from_utf8_lossy(&root).trim())
            .join("bin")
            .join(program);
        assert!(
            fs::metadata(&file).is_ok(),
            "no {program} in PATH or {}",
            file.display()
        );
        file
    })
}
