//! A proxy before `MinIO` that does harm on request. Each request has a connection of its own.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What happens to one request.
#[derive(Clone)]
pub(super) enum Fault {
    /// Nothing bad.
    Pass,
    /// The connection is closed, the server sees nothing.
    Close,
    /// The server acts, its answer is lost.
    LoseAnswer,
    /// So many bytes of the answer come through, then the connection is closed.
    CutAnswer(usize),
    /// This is the answer; the server sees nothing.
    Answer(String),
    /// Nothing ever comes.
    Stall,
    /// So many bytes of the answer come through, then nothing.
    StallAnswer(usize),
}

/// A whole answer with a body.
pub(super) fn answer(head: &str, body: &str) -> Fault {
    let length = body.len();
    Fault::Answer(format!(
        "HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n{body}"
    ))
}

type Decide = dyn Fn(usize, &str) -> Fault + Send + Sync;

pub(super) struct Proxy {
    pub(super) port: u16,
    /// The first line of each request.
    requests: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// `decide` gets the number of a request, from 0, and its head.
    pub(super) fn start(
        upstream: u16,
        decide: impl Fn(usize, &str) -> Fault + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (decide, log): (Arc<Decide>, _) = (Arc::new(decide), Arc::clone(&requests));
        // Lives as long as the test process: it holds nothing but a port.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (decide, log) = (Arc::clone(&decide), Arc::clone(&log));
                thread::spawn(move || serve(client, upstream, &*decide, &log));
            }
        });
        Self { port, requests }
    }

    /// Method and path with query of each request so far.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(mut client: TcpStream, upstream: u16, decide: &Decide, log: &Mutex<Vec<String>>) {
    let Some(head) = read_head(&mut client) else {
        return;
    };
    let number = {
        let mut log = log.lock().unwrap();
        log.push(head.lines().next().unwrap_or_default().to_owned());
        log.len() - 1
    };
    match decide(number, &head) {
        Fault::Pass => forward(&client, upstream, &head, None),
        Fault::Close => drop(client),
        Fault::LoseAnswer => forward(&client, upstream, &head, Some(0)),
        Fault::CutAnswer(bytes) => forward(&client, upstream, &head, Some(bytes)),
        Fault::StallAnswer(bytes) => {
            let _ = client.write_all(&answer_part(upstream, &head, bytes));
            let _ = std::io::copy(&mut client, &mut std::io::sink());
        }
        Fault::Answer(text) => {
            let _ = client.write_all(text.as_bytes());
            let _ = client.shutdown(Shutdown::Write);
            let _ = std::io::copy(&mut client, &mut std::io::sink());
        }
        Fault::Stall => {
            let _ = std::io::copy(&mut client, &mut std::io::sink());
        }
    }
}

fn read_head(client: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn forward(client: &TcpStream, upstream: u16, head: &str, limit: Option<usize>) {
    let mut server = TcpStream::connect(("127.0.0.1", upstream)).unwrap();
    // The answer then ends with its connection, and no second request comes by this one.
    let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    server.write_all(head.as_bytes()).unwrap();
    let (mut from_client, mut to_server) =
        (client.try_clone().unwrap(), server.try_clone().unwrap());
    let body = thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
    });
    let mut to_client = client.try_clone().unwrap();
    match limit {
        None => {
            let _ = std::io::copy(&mut server, &mut to_client);
        }
        Some(bytes) => {
            let _ = std::io::copy(
                &mut Read::by_ref(&mut server).take(bytes as u64),
                &mut to_client,
            );
            let _ = std::io::copy(&mut server, &mut std::io::sink());
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
    let _ = body.join();
}

/// The first bytes of the server's answer to a request without a body.
fn answer_part(upstream: u16, head: &str, bytes: usize) -> Vec<u8> {
    let mut server = TcpStream::connect(("127.0.0.1", upstream)).unwrap();
    server.write_all(head.as_bytes()).unwrap();
    let mut part = vec![0; bytes];
    server.read_exact(&mut part).unwrap();
    part
}
