//! An HTTP/1.1 proxy before the real `MinIO`, with scripted faults and a log of requests.
//!
//! The program signs the Host header, so it is passed on as it came. Each request gets a fresh
//! connection to `MinIO` and is answered as a whole; only faults cut, bend or delay what is sent.
//! A fault that was asked for and never fired fails the test.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::minio::DOMAIN;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Op {
    HeadBucket,
    List,
    Head,
    Get,
    Put,
    Delete,
    CreateUpload,
    UploadPart,
    /// The server itself copies one.
    CopyPart,
    CompleteUpload,
    AbortUpload,
    Other,
}

/// One request as it came in, and what became of it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) op: Op,
    pub(crate) method: String,
    /// The Host header.
    pub(crate) host: String,
    /// Decoded, without the bucket; empty for requests to the bucket itself.
    pub(crate) key: String,
    /// The query's names, and the values of those that are no secret.
    pub(crate) query: Vec<(String, String)>,
    /// How long its body is said to be.
    pub(crate) body_bytes: usize,
    /// The Range header, and whether the request depends on an `ETag`.
    pub(crate) range: Option<(String, bool)>,
    /// The fault that fired, as text.
    pub(crate) fault: Option<String>,
    head: Vec<u8>,
    body: Vec<u8>,
}

/// An answer that a fault may bend.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// Which requests a fault is for.
#[derive(Debug, Clone)]
pub(crate) struct When {
    op: Option<Op>,
    key: Option<String>,
    skip: usize,
    times: Option<usize>,
}

type Bend = Arc<dyn Fn(&mut Answer) + Send + Sync>;
type Hook = Arc<dyn Fn() + Send + Sync>;

/// What goes wrong.
#[derive(Clone)]
pub(crate) enum Fault {
    /// The server is not asked; this is the answer.
    Answer(Answer),
    /// The server is not asked; the answer to a listing is a page of so many made-up keys in all,
    /// each made longer by so many bytes.
    Keys(usize, usize),
    /// The connection is closed; the server is not asked.
    CloseBefore,
    /// The connection is reset; the server is not asked.
    ResetBefore,
    /// The server acts, and its answer is lost.
    LoseAnswer,
    /// The server acts, this happens, and the answer is lost.
    LoseAnswerAfter(Hook),
    /// The answer ends after so many bytes of its body.
    Truncate(usize),
    /// The connection is reset after so many bytes of the answer's body.
    Reset(usize),
    /// Nothing more is sent after so many bytes of the answer's body, until the gate opens.
    Stall(usize, Gate),
    /// The connection is reset after so many bytes of the request's body; the server is not asked.
    ResetInRequest(usize),
    /// The server acts, and its answer ends within the head.
    CutHead,
    /// The server acts, and its answer says that its body is so many bytes longer than it is.
    WrongLength(i64),
    /// These bytes come in place of an answer; the server is not asked.
    Garbage(Vec<u8>),
    /// The answer's body comes in pieces of so many bytes, with a pause before each.
    Trickle(usize, Duration),
    /// One bit of this byte of the answer's body is another.
    CorruptAnswer(usize),
    /// One bit of this byte of the request's body is another.
    CorruptRequest(usize),
    /// The connection is closed after a whole answer that promised to keep it.
    CloseAfter,
    /// The request waits before the server is asked.
    Delay(Duration),
    /// The request is held before the server is asked, until the gate opens.
    Hold(Gate),
    /// This happens before the server is asked.
    Before(Hook),
    /// This happens after the server acted, before the answer is passed on.
    After(Hook),
    /// The answer is changed.
    Bend(Bend),
}

/// Holds a request back until the test lets it go.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Default)]
struct GateState {
    arrived: usize,
    open: bool,
}

pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    script: Mutex<Vec<Scripted>>,
    log: Mutex<Vec<Request>>,
    connections: Mutex<usize>,
    /// Says that a hook of the test panicked.
    broken: AtomicBool,
}

struct Scripted {
    when: When,
    fault: Fault,
    seen: usize,
    fired: usize,
}

/// No single wait of the proxy is longer.
const PATIENCE: Duration = Duration::from_secs(60);

impl Proxy {
    /// Listens on a free port before the server at `upstream`.
    pub(crate) fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind to a free port");
        let address = listener.local_addr().expect("its own address");
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            script: Mutex::default(),
            log: Mutex::default(),
            connections: Mutex::default(),
            broken: AtomicBool::new(false),
        });
        let ours = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&ours);
                *shared.connections.lock().unwrap() += 1;
                // An end of either connection is the end of this thread, nothing else.
                std::thread::spawn(move || {
                    let served = AssertUnwindSafe(|| drop(serve(&client, &shared)));
                    if std::panic::catch_unwind(served).is_err() {
                        shared.broken.store(true, Ordering::SeqCst);
                    }
                });
            }
        });
        Self { address, shared }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// One more fault. Of several that are for the same request the first fires.
    pub(crate) fn fault(&self, when: When, fault: Fault) -> &Self {
        let scripted = Scripted {
            when,
            fault,
            seen: 0,
            fired: 0,
        };
        self.shared.script.lock().unwrap().push(scripted);
        self
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.log.lock().unwrap().clone()
    }

    /// How many requests of this kind came.
    pub(crate) fn count(&self, op: Op) -> usize {
        self.requests()
            .iter()
            .filter(|request| request.op == op)
            .count()
    }

    /// How many connections were opened.
    pub(crate) fn connections(&self) -> usize {
        *self.shared.connections.lock().unwrap()
    }

    /// How many requests met a fault.
    pub(crate) fn fired(&self) -> usize {
        self.requests()
            .iter()
            .filter(|request| request.fault.is_some())
            .count()
    }

    /// Forgets the script and the log; each fault must have fired.
    pub(crate) fn reset(&self) {
        self.check();
        self.forget();
    }

    /// Forgets the script and the log, whether or not the faults fired.
    pub(crate) fn forget(&self) {
        self.shared.script.lock().unwrap().clear();
        self.shared.log.lock().unwrap().clear();
    }

    fn check(&self) {
        assert!(
            !self.shared.broken.load(Ordering::SeqCst),
            "a fault's own code panicked"
        );
        for scripted in self.shared.script.lock().unwrap().iter() {
            let enough = scripted.when.times.unwrap_or(1);
            let Scripted {
                when, fault, fired, ..
            } = scripted;
            assert!(
                *fired >= enough,
                "{fault:?} on {when:?} fired {fired} times only"
            );
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for request in self.requests() {
                eprintln!("proxy: {request}");
            }
        } else {
            self.check();
        }
    }
}

impl When {
    /// The first request of this kind.
    pub(crate) fn op(op: Op) -> Self {
        Self {
            op: Some(op),
            key: None,
            skip: 0,
            times: Some(1),
        }
    }

    /// The first request of any kind.
    pub(crate) fn any() -> Self {
        Self {
            op: None,
            key: None,
            skip: 0,
            times: Some(1),
        }
    }

    /// Only for this key.
    pub(crate) fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// Not for the first so many.
    pub(crate) fn after(mut self, skip: usize) -> Self {
        self.skip = skip;
        self
    }

    /// For so many in a row.
    pub(crate) fn times(mut self, times: usize) -> Self {
        self.times = Some(times);
        self
    }

    /// For all of them.
    pub(crate) fn always(mut self) -> Self {
        self.times = None;
        self
    }

    fn is_for(&self, request: &Request) -> bool {
        self.op.is_none_or(|op| op == request.op)
            && self.key.as_ref().is_none_or(|key| *key == request.key)
    }
}

impl Fault {
    /// An answer as `MinIO` words it, with an error code where there is one.
    pub(crate) fn status(status: u16, code: &str) -> Self {
        let body = if code.is_empty() {
            String::new()
        } else {
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
                 <Message>made up by the test</Message><Resource>/</Resource></Error>"
            )
        };
        Self::Answer(Answer {
            status,
            headers: vec![("Content-Type".into(), "application/xml".into())],
            body: body.into(),
        })
    }

    /// A redirect to `location`.
    pub(crate) fn redirect(status: u16, location: &str) -> Self {
        let headers = vec![("Location".into(), location.into())];
        Self::Answer(Answer {
            status,
            headers,
            body: Vec::new(),
        })
    }

    pub(crate) fn before(hook: impl Fn() + Send + Sync + 'static) -> Self {
        Self::Before(Arc::new(hook))
    }

    pub(crate) fn after(hook: impl Fn() + Send + Sync + 'static) -> Self {
        Self::After(Arc::new(hook))
    }

    pub(crate) fn lose_answer_after(hook: impl Fn() + Send + Sync + 'static) -> Self {
        Self::LoseAnswerAfter(Arc::new(hook))
    }

    pub(crate) fn bend(bend: impl Fn(&mut Answer) + Send + Sync + 'static) -> Self {
        Self::Bend(Arc::new(bend))
    }

    /// The answer's body with each `from` replaced.
    pub(crate) fn replace(from: &'static str, to: &'static str) -> Self {
        Self::bend(move |answer| {
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(text.contains(from), "nothing to replace in {text}");
            answer.body = text.replace(from, to).into_bytes();
        })
    }
}

impl Answer {
    /// Sets a header, or takes it away where the value is empty.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.headers
            .retain(|(old, _)| !old.eq_ignore_ascii_case(name));
        if !value.is_empty() {
            self.headers.push((name.to_owned(), value.to_owned()));
        }
    }
}

impl Gate {
    pub(crate) fn open(&self) {
        self.0.0.lock().unwrap().open = true;
        self.0.1.notify_all();
    }

    /// Waits until so many requests are held.
    pub(crate) fn wait_for_arrivals(&self, amount: usize) {
        let guard = self.0.0.lock().unwrap();
        let few = |state: &mut GateState| state.arrived < amount;
        let waited = self.0.1.wait_timeout_while(guard, PATIENCE, few).unwrap();
        assert!(!waited.1.timed_out(), "no request arrived at the gate");
    }

    /// Waits until a request is held, or `over` says that none will come.
    pub(crate) fn arrives_or(&self, over: impl Fn() -> bool) -> bool {
        loop {
            if self.0.0.lock().unwrap().arrived > 0 {
                return true;
            }
            if over() {
                return self.0.0.lock().unwrap().arrived > 0;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Arrives, and waits for the gate to open.
    pub(crate) fn pass(&self) {
        let mut guard = self.0.0.lock().unwrap();
        guard.arrived += 1;
        self.0.1.notify_all();
        let shut = |state: &mut GateState| !state.open;
        drop(self.0.1.wait_timeout_while(guard, PATIENCE, shut).unwrap());
    }
}

/// Serves one client's connection until it ends.
fn serve(client: &TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_nodelay(true)?;
    let mut reader = BufReader::new(client);
    while let Some(mut request) = Request::read(&mut reader)? {
        let fault = shared.fault_for(&request);
        request.fault = fault.as_ref().map(|fault| format!("{fault:?}"));
        let mut logged = request.clone();
        logged.head = Vec::new();
        shared.log.lock().unwrap().push(logged);
        if let Some(Fault::ResetInRequest(bytes)) = fault {
            request.read_body(&mut reader, client, bytes)?;
            return reset(client);
        }
        request.read_body(&mut reader, client, usize::MAX)?;
        if !answer(client, &mut request, fault.as_ref(), shared)? {
            break;
        }
    }
    Ok(())
}

/// Answers one request; says whether the connection stays.
fn answer(
    client: &TcpStream,
    request: &mut Request,
    fault: Option<&Fault>,
    shared: &Shared,
) -> io::Result<bool> {
    let head_only = request.method == "HEAD";
    match fault {
        Some(Fault::Answer(answer)) => return send(client, answer, head_only).map(|()| true),
        Some(Fault::Keys(total, pad)) => {
            let answer = request.page_of(*total, *pad);
            return send(client, &answer, false).map(|()| true);
        }
        Some(Fault::CloseBefore) => return Ok(false),
        Some(Fault::ResetBefore) => return reset(client).map(|()| false),
        Some(Fault::Garbage(bytes)) => return (&*client).write_all(bytes).map(|()| false),
        Some(Fault::CorruptRequest(at)) => bend_bit(&mut request.body, *at),
        Some(Fault::Delay(pause)) => std::thread::sleep(*pause),
        Some(Fault::Hold(gate)) => gate.pass(),
        Some(Fault::Before(hook)) => hook(),
        _ => {}
    }
    let mut answer = request.forward(&shared.upstream)?;
    match fault {
        Some(Fault::LoseAnswer) => return Ok(false),
        Some(Fault::LoseAnswerAfter(hook)) => {
            hook();
            return Ok(false);
        }
        Some(Fault::After(hook)) => hook(),
        Some(Fault::Bend(bend)) => bend(&mut answer),
        Some(Fault::CorruptAnswer(at)) => bend_bit(&mut answer.body, *at),
        Some(Fault::CutHead) => {
            let head = answer.head(head_only);
            (&*client).write_all(&head.as_bytes()[..head.len() / 2])?;
            return Ok(false);
        }
        Some(Fault::WrongLength(by)) => return send_wrong(client, &answer, *by, head_only),
        Some(Fault::Truncate(bytes)) => {
            send_some(client, &answer, *bytes)?;
            return Ok(false);
        }
        Some(Fault::Reset(bytes)) => {
            send_some(client, &answer, *bytes)?;
            // What is on its way must arrive before the reset throws it away.
            std::thread::sleep(Duration::from_millis(50));
            return reset(client).map(|()| false);
        }
        Some(Fault::Stall(bytes, gate)) => {
            send_some(client, &answer, *bytes)?;
            gate.pass();
            return Ok(false);
        }
        Some(Fault::Trickle(bytes, pause)) => {
            send_some(client, &answer, 0)?;
            for piece in answer.body.chunks(*bytes) {
                std::thread::sleep(*pause);
                (&*client).write_all(piece)?;
            }
            return Ok(true);
        }
        _ => {}
    }
    send(client, &answer, head_only)?;
    Ok(!matches!(fault, Some(Fault::CloseAfter)))
}

impl Shared {
    fn fault_for(&self, request: &Request) -> Option<Fault> {
        let mut script = self.script.lock().unwrap();
        for scripted in script
            .iter_mut()
            .filter(|scripted| scripted.when.is_for(request))
        {
            scripted.seen += 1;
            let left = scripted
                .when
                .times
                .is_none_or(|times| scripted.fired < times);
            if left && scripted.seen > scripted.when.skip {
                scripted.fired += 1;
                return Some(scripted.fault.clone());
            }
        }
        None
    }
}

impl Request {
    /// The head; `None` at the end of the connection.
    fn read(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Self>> {
        let head = read_head(reader)?;
        if head.is_empty() {
            return Ok(None);
        }
        let first = String::from_utf8_lossy(&head)
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        let mut words = first.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default();
        let url = url::Url::parse("http://proxy").and_then(|base| base.join(target));
        let url = url.map_err(io::Error::other)?;
        // Values such as the signature have no place in a log, not even in a test's.
        let query: Vec<_> = url
            .query_pairs()
            .map(|(name, value)| {
                let secret = name.to_ascii_lowercase().starts_with("x-amz-");
                (
                    name.into_owned(),
                    if secret {
                        String::new()
                    } else {
                        value.into_owned()
                    },
                )
            })
            .collect();
        let host = header_of(&head, "host").unwrap_or_default();
        let path = url.path().trim_start_matches('/');
        let key = if host.contains(&format!(".{DOMAIN}")) {
            path
        } else {
            path.split_once('/').map_or("", |(_bucket, key)| key)
        };
        let names = query.iter().map(|(name, _)| name.as_str()).collect();
        let op = match Op::of(&method, key, &names) {
            Op::UploadPart if header_of(&head, "x-amz-copy-source").is_some() => Op::CopyPart,
            op => op,
        };
        Ok(Some(Self {
            op,
            method,
            host,
            key: percent_decoded(key),
            query,
            fault: None,
            range: header_of(&head, "range")
                .map(|range| (range, header_of(&head, "if-match").is_some())),
            body_bytes: header_of(&head, "content-length").map_or(0, |v| v.parse().unwrap_or(0)),
            head,
            body: Vec::new(),
        }))
    }

    /// The page that a server with so many keys would give; its token is a number.
    fn page_of(&self, total: usize, pad: usize) -> Answer {
        let asked = |name: &str| {
            let found = self.query.iter().find(|(known, _)| known == name);
            found.map_or("", |(_, value)| value)
        };
        let first: usize = asked("continuation-token").parse().unwrap_or(0);
        let most: usize = asked("max-keys").parse().unwrap_or(1000);
        let end = total.min(first + most.min(1000));
        let (prefix, pad) = (asked("prefix"), "x".repeat(pad));
        let mut body = format!(
            "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <NextContinuationToken>{end}</NextContinuationToken><IsTruncated>{}</IsTruncated>",
            end < total
        );
        for number in first..end {
            let entry = format!(
                "<Contents><Key>{prefix}{pad}{number:06}</Key>\
                 <LastModified>2026-11-28T09:20:34.101Z</LastModified>\
                 <ETag>&#34;900150983cd24fb0d6963f7d28e17f72&#34;</ETag><Size>3</Size>\
                 <Owner><ID></ID><DisplayName></DisplayName></Owner>\
                 <StorageClass>STANDARD</StorageClass></Contents>"
            );
            body += &entry;
        }
        body += "<EncodingType>url</EncodingType></ListBucketResult>";
        Answer {
            status: 200,
            headers: vec![("Content-Type".into(), "application/xml".into())],
            body: body.into(),
        }
    }

    /// The body, or so many bytes of it.
    fn read_body(
        &mut self,
        reader: &mut BufReader<&TcpStream>,
        mut client: &TcpStream,
        bytes: usize,
    ) -> io::Result<()> {
        if header_of(&self.head, "expect").is_some() {
            client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        self.body = vec![0; self.body_bytes.min(bytes)];
        reader.read_exact(&mut self.body)
    }

    /// Asks the server over a connection of its own.
    fn forward(&self, upstream: &str) -> io::Result<Answer> {
        let mut server = TcpStream::connect(upstream)?;
        server.set_read_timeout(Some(PATIENCE))?;
        let head = String::from_utf8_lossy(&self.head);
        let hop_by_hop = ["connection:", "expect:"];
        for line in head.lines().filter(|line| !line.is_empty()) {
            let name = line.to_ascii_lowercase();
            if !hop_by_hop.iter().any(|hop| name.starts_with(hop)) {
                write!(server, "{line}\r\n")?;
            }
        }
        server.write_all(b"connection: close\r\n\r\n")?;
        // The server may answer and close before it has read all.
        let _ = server.write_all(&self.body);
        Answer::read(&mut BufReader::new(server), self.method == "HEAD")
    }
}

impl Answer {
    fn read(reader: &mut BufReader<TcpStream>, head_only: bool) -> io::Result<Self> {
        let head = String::from_utf8_lossy(&read_head(reader)?).into_owned();
        let mut lines = head.lines();
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or_else(|| io::Error::other("no status line"))?;
        let mut answer = Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            answer
                .headers
                .push((name.to_owned(), value.trim().to_owned()));
        }
        let header = |name: &str| {
            let found = answer
                .headers
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone())
        };
        let length: Option<usize> = header("content-length").and_then(|v| v.parse().ok());
        let chunked = header("transfer-encoding").is_some();
        answer.set("connection", "");
        answer.set("transfer-encoding", "");
        if head_only || status == 204 || status == 304 {
            return Ok(answer);
        }
        match (chunked, length) {
            (true, _) => answer.body = read_chunked(reader)?,
            (false, Some(length)) => {
                answer.body = vec![0; length];
                reader.read_exact(&mut answer.body)?;
            }
            (false, None) => drop(reader.read_to_end(&mut answer.body)?),
        }
        Ok(answer)
    }

    /// Status line and headers, with the length of the body where it does not say one itself.
    fn head(&self, head_only: bool) -> String {
        let mut head = format!("HTTP/1.1 {} From the proxy\r\n", self.status);
        let mut lengths = BTreeSet::new();
        for (name, value) in &self.headers {
            let is_length = name.eq_ignore_ascii_case("content-length");
            if !is_length || head_only {
                head = head + name + ": " + value + "\r\n";
            }
            lengths.insert(is_length);
        }
        if !(head_only && lengths.contains(&true)) && self.status != 204 {
            head = head + "Content-Length: " + &self.body.len().to_string() + "\r\n";
        }
        head + "\r\n"
    }
}

impl Op {
    fn of(method: &str, key: &str, query: &BTreeSet<&str>) -> Self {
        let upload = query.contains("uploadId");
        match (method, key.is_empty()) {
            ("HEAD", true) => Self::HeadBucket,
            ("GET", true) if query.contains("list-type") => Self::List,
            ("HEAD", false) => Self::Head,
            ("GET", false) => Self::Get,
            ("PUT", false) if upload => Self::UploadPart,
            ("PUT", false) => Self::Put,
            ("DELETE", false) if upload => Self::AbortUpload,
            ("DELETE", false) => Self::Delete,
            ("POST", false) if query.contains("uploads") => Self::CreateUpload,
            ("POST", false) if upload => Self::CompleteUpload,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.op, self.key)?;
        for (name, value) in self.query.iter().filter(|(_, value)| !value.is_empty()) {
            write!(f, " {name}={value:?}")?;
        }
        self.fault
            .iter()
            .try_for_each(|fault| write!(f, " !{fault}"))
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(answer) => write!(f, "Answer({})", answer.status),
            Self::CloseBefore => f.write_str("CloseBefore"),
            Self::ResetBefore => f.write_str("ResetBefore"),
            Self::LoseAnswer => f.write_str("LoseAnswer"),
            Self::LoseAnswerAfter(_) => f.write_str("LoseAnswerAfter"),
            Self::Truncate(bytes) => write!(f, "Truncate({bytes})"),
            Self::Reset(bytes) => write!(f, "Reset({bytes})"),
            Self::Stall(bytes, _) => write!(f, "Stall({bytes})"),
            Self::ResetInRequest(bytes) => write!(f, "ResetInRequest({bytes})"),
            Self::CutHead => f.write_str("CutHead"),
            Self::WrongLength(by) => write!(f, "WrongLength({by})"),
            Self::Garbage(bytes) => write!(f, "Garbage({} bytes)", bytes.len()),
            Self::Trickle(bytes, pause) => write!(f, "Trickle({bytes}, {pause:?})"),
            Self::CorruptAnswer(at) => write!(f, "CorruptAnswer({at})"),
            Self::CorruptRequest(at) => write!(f, "CorruptRequest({at})"),
            Self::CloseAfter => f.write_str("CloseAfter"),
            Self::Delay(pause) => write!(f, "Delay({pause:?})"),
            Self::Hold(_) => f.write_str("Hold"),
            Self::Before(_) => f.write_str("Before"),
            Self::After(_) => f.write_str("After"),
            Self::Bend(_) => f.write_str("Bend"),
            Self::Keys(total, _) => write!(f, "Keys({total})"),
        }
    }
}

/// Bends a bit of this byte, or of the last one where there are fewer.
fn bend_bit(body: &mut [u8], at: usize) {
    let last = body.len() - 1;
    body[at.min(last)] ^= 1;
}

fn send(mut client: &TcpStream, answer: &Answer, head_only: bool) -> io::Result<()> {
    client.write_all(answer.head(head_only).as_bytes())?;
    if !head_only {
        client.write_all(&answer.body)?;
    }
    client.flush()
}

/// Sends the head, which promises the whole body, and the first bytes of it.
fn send_some(mut client: &TcpStream, answer: &Answer, bytes: usize) -> io::Result<()> {
    assert!(bytes < answer.body.len().max(1), "nothing would be missing");
    client.write_all(answer.head(false).as_bytes())?;
    client.write_all(&answer.body[..bytes])?;
    client.flush()
}

/// Sends an answer whose length is wrong by so many bytes; says whether the connection stays. What
/// is too much stands before the next answer.
fn send_wrong(
    mut client: &TcpStream,
    answer: &Answer,
    by: i64,
    head_only: bool,
) -> io::Result<bool> {
    let mut head = String::new();
    for line in answer.head(head_only).split_inclusive("\r\n") {
        match line.split_once("Content-Length: ") {
            Some(("", told)) => {
                let told: i64 = told.trim().parse().map_err(io::Error::other)?;
                head = head + "Content-Length: " + &(told + by).max(0).to_string() + "\r\n";
            }
            _ => head += line,
        }
    }
    client.write_all(head.as_bytes())?;
    if !head_only {
        client.write_all(&answer.body)?;
    }
    Ok(by < 0)
}

/// Ends the connection with RST in place of FIN.
fn reset(client: &TcpStream) -> io::Result<()> {
    rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO))?;
    // The last handle is closed by the caller; a read half that still waits would keep it open.
    client.shutdown(Shutdown::Read)
}

fn header_of(head: &[u8], name: &str) -> Option<String> {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.trim().to_owned())
}

fn read_head(reader: &mut impl io::BufRead) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    loop {
        let amount = reader.read_until(b'\n', &mut head)?;
        if amount == 0 || head.ends_with(b"\r\n\r\n") {
            return Ok(head);
        }
    }
}

fn read_chunked(reader: &mut impl io::BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = line.trim().split(';').next().unwrap_or_default();
        let size = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
        reader.by_ref().take(size).read_to_end(&mut body)?;
        if size == 0 {
            drop(read_head(&mut io::Cursor::new(Vec::new()))?);
            return Ok(body);
        }
        reader.read_line(&mut String::new())?;
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        if let (b'%', Some(byte)) = (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
