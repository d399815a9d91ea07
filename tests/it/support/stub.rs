//! A server that says `200` and an `ETag` to everything, and keeps nothing: what a web framework
//! does by itself, behind a wrong `MINIO_ENDPOINT`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// Starts it; gives its endpoint. It lives as long as the test process.
pub(crate) fn yes_to_everything() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind to a free port");
    let address = listener.local_addr().expect("its own address");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // An end of the connection is the end of this thread, nothing else.
            thread::spawn(move || drop(serve(client)));
        }
    });
    format!("http://{address}")
}

fn serve(mut client: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    loop {
        let mut length = 0;
        let mut asks_first = false;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            asks_first |= line.starts_with("expect:");
            if line.trim().is_empty() {
                break;
            }
        }
        if asks_first {
            client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
        client.write_all(
            b"HTTP/1.1 200 OK\r\nETag: \"9a0364b9e99bb480dd25e1f0284c8555\"\r\n\
              Last-Modified: Sat, 21 Nov 2026 08:10:04 GMT\r\nContent-Length: 0\r\n\r\n",
        )?;
    }
}
