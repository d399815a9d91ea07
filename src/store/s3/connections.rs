//! The connections of the [`Client`](super::Client): sockets of our own below ureq's HTTP and TLS.
//!
//! What the kernel keeps for a connection counts in a pod's memory, and it keeps megabytes for each
//! where a disk is slower than the server: so it is told how much. A pooled connection is probed
//! when it is given back and again when it is taken. The second probe finds all that the first one
//! would, and is the one that counts: right before the next request.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, connect, recv, socket_with, sockopt,
};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, RustlsConnector,
    ShutdownHandle, Transport,
};

/// What a connection may hold in the kernel for each direction, in bytes; the kernel counts twice
/// as much for what it takes beside. Less than `net.core.rmem_max` and `wmem_max` are by default.
/// <https://man7.org/linux/man-pages/man7/socket.7.html>
const SOCKET_BYTES: usize = 192 << 10;

/// How long an address is tried at the least, where others before it took the time.
const PATIENCE_MIN: Duration = Duration::from_millis(10);

/// Opens connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    tls: RustlsConnector,
}

impl Connector for Connections {
    type Out = <RustlsConnector as Connector<Socket>>::Out;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let socket = Socket::to_any(details)?;
        let weak = Arc::downgrade(&socket.stream);
        (details.register_shutdown)(weak as Weak<dyn ShutdownHandle>)?;
        self.tls.connect(details, Some(socket))
    }
}

/// A TCP connection that is only probed when it is taken.
pub(super) struct Socket {
    /// ureq shuts it down from another thread when transfers are broken off.
    stream: Arc<TcpStream>,
    buffers: LazyBuffers,
    /// What the kernel was told last.
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    /// It carried something since it was last asked whether it is open.
    busy: bool,
}

// Without its buffers: what they hold is nobody's business.
impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").finish_non_exhaustive()
    }
}

impl Socket {
    /// Tries one address after the other. Each has half of the time that is left, the last one all.
    fn to_any(details: &ConnectionDetails<'_>) -> Result<Self, ureq::Error> {
        let config = details.config;
        let mut left = details.timeout.not_zero().map(|left| *left);
        let mut fault = io::Error::from(io::ErrorKind::ConnectionRefused);
        for (at, address) in details.addrs.iter().enumerate() {
            let share = if at + 1 < details.addrs.len() { 2 } else { 1 };
            let patience = left.map(|left| (left / share).max(PATIENCE_MIN));
            let started = Instant::now();
            match open(*address, patience) {
                Ok(stream) => {
                    let (input, output) = (config.input_buffer_size(), config.output_buffer_size());
                    return Ok(Self {
                        stream: Arc::new(stream),
                        buffers: LazyBuffers::new(input, output),
                        read_timeout: None,
                        write_timeout: patience,
                        busy: true,
                    });
                }
                Err(error) => fault = error,
            }
            left = left.map(|left| left.saturating_sub(started.elapsed()));
        }
        Err(failed(fault, details.timeout))
    }

    /// Whether the server neither closed it nor sent what nobody asked for.
    fn is_silent(&self) -> bool {
        let answer = recv(&*self.stream, &mut [0], RecvFlags::DONTWAIT);
        matches!(answer, Err(Errno::AGAIN))
    }
}

/// Connects to `address` in that time at the most.
fn open(address: SocketAddr, patience: Option<Duration>) -> io::Result<TcpStream> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Later the kernel would not widen the window any more.
    sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BYTES)?;
    sockopt::set_socket_send_buffer_size(&socket, SOCKET_BYTES)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    // It holds for connecting, too.
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, patience)?;
    loop {
        match connect(&socket, &address) {
            Ok(()) | Err(Errno::ISCONN) => return Ok(TcpStream::from(socket)),
            Err(Errno::INTR) => {}
            Err(Errno::INPROGRESS | Errno::ALREADY) => return Err(Errno::TIMEDOUT.into()),
            Err(error) => return Err(error.into()),
        }
    }
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.busy = true;
        let timeout = timeout.for_write();
        let limit = limit_of(timeout)?;
        if limit != self.write_timeout {
            self.stream.set_write_timeout(limit)?;
            self.write_timeout = limit;
        }
        let output = &self.buffers.output()[..amount];
        let sent = (&*self.stream).write_all(output);
        sent.map_err(|error| failed(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.busy = true;
        let timeout = timeout.for_read();
        let limit = limit_of(timeout)?;
        if limit != self.read_timeout {
            self.stream.set_read_timeout(limit)?;
            self.read_timeout = limit;
        }
        loop {
            match (&*self.stream).read(self.buffers.input_append_buf()) {
                Ok(amount) => {
                    self.buffers.input_appended(amount);
                    return Ok(amount > 0);
                }
                // A signal. The kernel does not go on by itself where there is a time limit.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error, timeout)),
            }
        }
    }

    fn is_open(&mut self) -> bool {
        // The first question after use is whether to keep it.
        std::mem::take(&mut self.busy) || self.is_silent()
    }
}

/// What to tell the kernel; fails where the time is up.
fn limit_of(timeout: NextTimeout) -> Result<Option<Duration>, ureq::Error> {
    if timeout.after.is_zero() {
        return Err(ureq::Error::Timeout(timeout.reason));
    }
    Ok(timeout.not_zero().map(|limit| *limit))
}

/// The kernel says `WouldBlock` when a time limit is reached.
fn failed(error: io::Error, timeout: NextTimeout) -> ureq::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ureq::Error::Timeout(timeout.reason),
        _ => error.into(),
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by a panic"
)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A server that has much to send is read fast for a while, then not at all, as by somebody
    /// whose disk is slow.
    #[test]
    fn what_the_kernel_keeps_for_a_connection_is_bounded() {
        const FAST_BYTES: usize = 64 << 20;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            stream.write_all(&vec![0; FAST_BYTES]).unwrap();
            let patience = Some(Duration::from_secs(1));
            stream.set_write_timeout(patience).unwrap();
            while stream.write_all(&vec![0; 1 << 20]).is_ok() {}
            stream
        });
        let mut stream = open(address, Some(Duration::from_secs(10))).unwrap();
        let mut chunk = vec![0; 128 << 10];
        let mut read = 0;
        while read < FAST_BYTES {
            read += stream.read(&mut chunk).unwrap();
        }
        let open = server.join().unwrap();
        let kept = rustix::io::ioctl_fionread(&stream).unwrap();
        assert!(kept > 0 && kept <= 2 * SOCKET_BYTES as u64, "{kept} bytes");
        assert_eq!(
            sockopt::socket_send_buffer_size(&stream).unwrap(),
            2 * SOCKET_BYTES
        );
        drop(open);
    }

    #[test]
    fn a_server_that_does_not_answer_is_given_up_in_time() {
        // Its queue holds one connection, so that the next ones get no answer.
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        );
        let socket = socket.unwrap();
        let nowhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
        rustix::net::bind(&socket, &nowhere).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let patience = Some(Duration::from_millis(200));
        let mut queued = Vec::new();
        let started = Instant::now();
        let error = loop {
            match open(address, patience) {
                Ok(stream) => queued.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // By itself the kernel gives up after two minutes.
        assert!(started.elapsed() < Duration::from_secs(60));
    }
}
