//! A TCP proxy that adds a delay in each direction and takes no bandwidth away: a server that is
//! farther away. Opening a connection costs one round trip more, as it does there.
//!
//! Usage: delay TARGET MILLISECONDS; prints the address that it listens on.

#![allow(clippy::print_stdout, reason = "its address is its output")]

use std::env::args;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// How much is read at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// How many chunks are on their way in one direction of one connection at the most.
const CHUNKS_MAX: usize = 4096;

/// A chunk, and when it arrives.
type Parcel = (Instant, Vec<u8>);

fn main() -> io::Result<()> {
    let mut words = args().skip(1);
    let (Some(target), Some(Ok(millis)), None) = (
        words.next(),
        words.next().map(|word| word.parse()),
        words.next(),
    ) else {
        return Err(io::Error::other("usage: delay TARGET MILLISECONDS"));
    };
    let delay = Duration::from_millis(millis);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    for client in listener.incoming() {
        let client = client?;
        let server = TcpStream::connect(&target)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        // The client's SYN and its answer took one way each.
        let opened = Instant::now() + 2 * delay;
        carry(&client, &server, delay, opened)?;
        carry(&server, &client, delay, opened)?;
    }
    Ok(())
}

/// Carries what `from` sends to `to`, until `from` ends.
fn carry(from: &TcpStream, to: &TcpStream, delay: Duration, opened: Instant) -> io::Result<()> {
    let (from, to) = (from.try_clone()?, to.try_clone()?);
    let (sender, receiver) = sync_channel(CHUNKS_MAX);
    spawn(move || take(from, &sender, delay, opened));
    spawn(move || give(to, &receiver));
    Ok(())
}

fn take(mut from: TcpStream, sender: &SyncSender<Parcel>, delay: Duration, opened: Instant) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(amount @ 1..) = from.read(&mut chunk) {
        let arrives = Instant::now().max(opened) + delay;
        if sender.send((arrives, chunk[..amount].to_vec())).is_err() {
            break;
        }
    }
}

fn give(mut to: TcpStream, receiver: &Receiver<Parcel>) {
    for (arrives, chunk) in receiver {
        sleep(arrives.saturating_duration_since(Instant::now()));
        if to.write_all(&chunk).is_err() {
            break;
        }
    }
    // Whoever it was may have closed it already.
    let _ = to.shutdown(Shutdown::Both);
}
