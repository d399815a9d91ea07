//! How the server is reached: what each `MINIO_*` variable does on the wire.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{AddressFamily, SocketAddrV4, SocketType};
use sha2::{Digest as _, Sha256};

use crate::support::data::noise;
use crate::support::minio::{ACCESS_KEY, DOMAIN, Minio, SECRET_KEY};
use crate::support::{End, Op, Sandbox, ends, tree};

const S3_TO_FILE: (End, End) = (End::S3, End::File);
const FILE_TO_S3: (End, End) = (End::File, End::S3);

#[test]
fn virtual_addressing_puts_the_bucket_into_the_host_name() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    sandbox.fill(End::S3, "in", &tree(&[("a b", "1"), ("c", "2")]));
    sandbox.rule("r", &ends(S3_TO_FILE));
    sandbox.rule(
        "s",
        "src: {type: s3, path: in2}, dest: {type: s3, path: out2}",
    );
    sandbox.fill(End::S3, "in2", &tree(&[("d", "3")]));
    // A resolver of its own for the program: a hosts file in a mount namespace.
    let hosts = sandbox.path("hosts");
    let bucket = sandbox.bucket().name();
    let line = format!("127.0.0.1 localhost {DOMAIN} {bucket}.{DOMAIN}\n");
    fs::write(&hosts, line).unwrap();
    let mount = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    let mut namespace = vec!["unshare", "--mount"];
    // A changed root, such as a CI job's, allows root no user namespaces; root needs none.
    if !rustix::process::geteuid().is_root() {
        namespace.push("--map-root-user");
    }
    namespace.extend(["sh", "-c", mount]);
    sandbox.launch_through(&namespace);
    sandbox.launch_through(&[&hosts]);
    let endpoint = proxy.endpoint().replace("127.0.0.1", DOMAIN);
    sandbox.env("MINIO_ENDPOINT", &endpoint);
    sandbox.env("MINIO_ADDRESSING_STYLE", "virtual");
    sandbox.run().succeeds();
    assert_eq!(sandbox.files("out").names(), ["a b", "c"]);
    assert_eq!(sandbox.bucket().keys(), ["out2/d"]);
    let host = format!("{bucket}.{}", endpoint.trim_start_matches("http://"));
    let requests = proxy.requests();
    assert!(!requests.is_empty());
    for request in requests {
        assert_eq!(request.host, host, "{request}");
    }
}

#[test]
fn credentials_with_a_session_token_work() {
    let sandbox = Sandbox::new();
    let (access_key, secret_key, token) = assume_role(Minio::plain());
    sandbox.env("MINIO_ACCESS_KEY", access_key);
    sandbox.env("MINIO_SECRET_KEY", secret_key);
    sandbox.env("MINIO_SESSION_TOKEN", format!("{token}\n"));
    sandbox.fill(End::S3, "in", &tree(&[("a", "1")]));
    sandbox.write("files/b", noise(17 << 20, 1));
    sandbox.rule("r", &ends(S3_TO_FILE));
    sandbox.rule(
        "s",
        "src: {type: file, path: files}, dest: {type: s3, path: out}",
    );
    sandbox.run().succeeds().never_says(&token);
    assert_eq!(sandbox.files("out"), tree(&[("a", "1")]));
    assert_eq!(sandbox.bucket().keys(), ["out/b"]);

    sandbox.env("MINIO_SESSION_TOKEN", "");
    sandbox.fill(End::S3, "in", &tree(&[("c", "1")]));
    sandbox.run().fails();
}

/// Credentials for a while.
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>
fn assume_role(minio: &Minio) -> (String, String, String) {
    let body = "Action=AssumeRole&Version=2011-06-15&DurationSeconds=900";
    let now = jiff::Timestamp::now();
    let stamp = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let scope = format!("{}/us-east-1/sts/aws4_request", &stamp[..8]);
    let body_hash = hex(&Sha256::digest(body));
    let head = format!(
        "host:{}\nx-amz-content-sha256:{body_hash}\nx-amz-date:{stamp}\n",
        minio.address
    );
    let names = "host;x-amz-content-sha256;x-amz-date";
    let canonical = format!("POST\n/\n\n{head}\n{names}\n{body_hash}");
    let canonical_hash = hex(&Sha256::digest(canonical));
    let text = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{canonical_hash}");
    let secret = format!("AWS4{SECRET_KEY}").into_bytes();
    let key = scope
        .split('/')
        .fold(secret, |key, part| hmac(&key, part.as_bytes()));
    let signature = hex(&hmac(&key, text.as_bytes()));
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={names}, \
         Signature={signature}"
    );
    let answer = ureq::post(minio.endpoint())
        .header("authorization", authorization)
        .header("x-amz-date", stamp)
        .header("x-amz-content-sha256", body_hash)
        .content_type("application/x-www-form-urlencoded")
        .send(body);
    let text = answer.unwrap().body_mut().read_to_string().unwrap();
    let field = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>")).expect(name);
        rest.split('<').next().unwrap().to_owned()
    };
    let token = field("SessionToken");
    (field("AccessKeyId"), field("SecretAccessKey"), token)
}

/// RFC 2104, for keys of at most one block.
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        for (out, key) in block.iter_mut().zip(key) {
            *out ^= key;
        }
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text);
    let outer = Sha256::new().chain_update(pad(0x5c));
    outer.chain_update(inner.finalize()).finalize().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[test]
fn a_connection_that_does_not_come_about_fails_the_attempt_at_once() {
    // Linux drops a connection attempt where nobody accepts those that wait already.
    let deaf = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let anywhere = SocketAddrV4::new([127, 0, 0, 1].into(), 0);
    rustix::net::bind(&deaf, &anywhere).unwrap();
    rustix::net::listen(&deaf, 0).unwrap();
    let address = rustix::net::getsockname(&deaf).unwrap();
    let address = SocketAddrV4::try_from(address).unwrap();
    let connect = || TcpStream::connect_timeout(&address.into(), Duration::from_millis(200));
    let waiting: Vec<_> = std::iter::from_fn(|| connect().ok()).take(9).collect();
    assert!(waiting.len() < 9, "connections do come about");

    let sandbox = Sandbox::new();
    sandbox.env("MINIO_ENDPOINT", format!("http://{address}"));
    sandbox.env("MINIO_CONNECT_TIMEOUT", "1");
    sandbox.write("in/a", "1");
    sandbox.rule("r", &ends(FILE_TO_S3));
    let start = Instant::now();
    let run = sandbox.run();
    let elapsed = start.elapsed();
    run.fails()
        .says("failed", &[&address.to_string(), "MINIO_CONNECT_TIMEOUT"]);
    assert!(elapsed >= Duration::from_millis(900), "{elapsed:?}");
    assert!(
        elapsed < Duration::from_secs(3),
        "no quick tries: {elapsed:?}"
    );
}

/// The server takes longer for the whole than `MINIO_READ_TIMEOUT`, and never as long for a piece.
#[test]
fn an_upload_that_keeps_flowing_never_times_out() {
    const BODY_BYTES: usize = 15 << 20;
    const CHECKSUM: &str = "x-amz-checksum-crc64nvme:";
    let sandbox = Sandbox::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // What the kernel holds for the server to read looks like progress to nobody.
    set_socket_recv_buffer_size(&listener, 64 << 10).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    sandbox.env("MINIO_ENDPOINT", endpoint);
    sandbox.env("MINIO_READ_TIMEOUT", "2");
    sandbox.write("in/a", noise(BODY_BYTES, 1));
    sandbox.rule("r", &format!("{}, mode: copy", ends(FILE_TO_S3)));
    let server = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut piece = vec![0; 512 << 10];
        // Whether the bucket exists, by HEAD.
        assert_ne!(client.read(&mut piece).unwrap(), 0);
        client
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        let mut received = client.read(&mut piece).unwrap();
        let head = String::from_utf8_lossy(&piece[..received]).into_owned();
        let checksum = head.lines().find(|line| line.starts_with(CHECKSUM));
        let checksum = checksum.expect("the body has a checksum").to_owned();
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        let start = Instant::now();
        while received < BODY_BYTES {
            let due = start + Duration::from_secs(3).mul_f64(fraction(received, BODY_BYTES));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            received += client.read(&mut piece).unwrap();
        }
        let answer =
            format!("HTTP/1.1 200 OK\r\nETag: \"x\"\r\n{checksum}\r\nContent-Length: 0\r\n\r\n");
        client.write_all(answer.as_bytes()).unwrap();
        start.elapsed()
    });
    sandbox.run().succeeds().logs("copied", &[("attempt", "1")]);
    let elapsed = server.join().unwrap();
    assert!(elapsed > Duration::from_millis(2500), "{elapsed:?}");
}

fn fraction(part: usize, whole: usize) -> f64 {
    f64::from(u32::try_from(part).unwrap()) / f64::from(u32::try_from(whole).unwrap())
}

#[test]
fn the_bucket_of_the_environment_and_the_region_are_trimmed() {
    let sandbox = Sandbox::new();
    let proxy = sandbox.proxy();
    let bucket = sandbox.bucket().name().to_owned();
    sandbox.without_default("default_bucket");
    sandbox.env("MINIO_BUCKET", format!(" {bucket}\n"));
    sandbox.env("MINIO_REGION", " us-east-1\r\n");
    sandbox.env("MINIO_VERIFY", "true\n");
    sandbox.env("MINIO_ADDRESSING_STYLE", "path\n");
    sandbox.env("MINIO_CONNECT_TIMEOUT", " 5\n");
    sandbox.env("MINIO_READ_TIMEOUT", "5s \n");
    sandbox.env("MINIO_SESSION_TOKEN", " \n");
    sandbox.env("TZ", "Europe/Berlin\n");
    sandbox.env("BOTS_MOVER_UMASK", "0022\n");
    sandbox.env("BOTS_MOVER_LOG_LEVEL", "info\n");
    sandbox.env("TMPDIR", format!("{}\n", sandbox.tmp().display()));
    sandbox.bucket().put("in/a", noise(200_000, 1));
    sandbox.rule("r", &ends(S3_TO_FILE));
    sandbox.run().succeeds();
    assert_eq!(sandbox.files("out").len(), 1);
    assert!(proxy.count(Op::Get) == 1);
}
