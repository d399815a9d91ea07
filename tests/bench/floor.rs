//! The bare requests of a benchmark's work in a loop: no disk, no checksum, no rule, no log. What
//! a program needs beyond this is its own doing.
//!
//! Usage: floor in|out BUCKET PREFIX COUNT BYTES THREADS, with `MINIO_*` in the environment. `in`
//! gets, looks at and deletes the first COUNT keys of PREFIX; `out` puts COUNT objects of BYTES.

use std::collections::VecDeque;
use std::env;
use std::error::Error;
use std::io::{self, Read};
use std::sync::Mutex;
use std::thread::scope;
use std::time::Duration;

use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use ureq::{Agent, SendBody};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const LIFETIME: Duration = Duration::from_secs(900);

/// The most keys that one answer lists.
const PAGE_MAX: usize = 1000;

struct Floor {
    agent: Agent,
    bucket: Bucket,
    credentials: Credentials,
    size_bytes: u64,
}

fn main() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [direction, bucket, prefix, count, size_bytes, threads] = words.as_slice() else {
        return Err("usage: floor in|out BUCKET PREFIX COUNT BYTES THREADS".into());
    };
    let (count, threads): (usize, usize) = (count.parse()?, threads.parse()?);
    let floor = Floor::new(bucket, size_bytes.parse()?)?;
    let inwards = direction == "in";
    let keys = if inwards {
        floor.list(prefix, count)?
    } else {
        (0..count).map(|n| format!("{prefix}{n:06}.edi")).collect()
    };
    let keys = Mutex::new(keys);
    let next = || keys.lock().ok()?.pop_front();
    scope(|scope| {
        let work = || -> Result<()> {
            while let Some(key) = next() {
                if inwards {
                    floor.take(&key)?;
                } else {
                    floor.put(&key)?;
                }
            }
            Ok(())
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| "a thread panicked")?)
    })
}

impl Floor {
    fn new(bucket: &str, size_bytes: u64) -> Result<Self> {
        let endpoint = env::var("MINIO_ENDPOINT")?.parse()?;
        let (key, secret) = (env::var("MINIO_ACCESS_KEY")?, env::var("MINIO_SECRET_KEY")?);
        let config = Agent::config_builder()
            .proxy(None)
            .max_idle_connections(64)
            .max_idle_connections_per_host(64);
        Ok(Self {
            agent: config.build().new_agent(),
            bucket: Bucket::new(endpoint, UrlStyle::Path, bucket.to_owned(), "us-east-1")?,
            credentials: Credentials::new(key, secret),
            size_bytes,
        })
    }

    fn list(&self, prefix: &str, count: usize) -> Result<VecDeque<String>> {
        let mut keys = VecDeque::new();
        let mut token = None;
        loop {
            let mut list = self.bucket.list_objects_v2(Some(&self.credentials));
            list.with_prefix(prefix);
            list.with_max_keys((count - keys.len()).min(PAGE_MAX));
            if let Some(token) = token {
                list.with_continuation_token(token);
            }
            let mut answer = self.agent.get(list.sign(LIFETIME).as_str()).call()?;
            let text = answer.body_mut().read_to_string()?;
            let page = ListObjectsV2::parse_response(&text)?;
            keys.extend(page.contents.into_iter().map(|object| object.key));
            token = page.next_continuation_token;
            if keys.len() >= count || token.is_none() {
                return Ok(keys);
            }
        }
    }

    fn take(&self, key: &str) -> Result<()> {
        let credentials = Some(&self.credentials);
        let get = self.bucket.get_object(credentials, key).sign(LIFETIME);
        let mut answer = self.agent.get(get.as_str()).call()?;
        let mut buffer = vec![0; 128 << 10];
        let mut body = answer.body_mut().as_reader();
        while body.read(&mut buffer)? > 0 {}
        let head = self.bucket.head_object(credentials, key).sign(LIFETIME);
        self.agent.head(head.as_str()).call()?;
        let delete = self.bucket.delete_object(credentials, key).sign(LIFETIME);
        self.agent.delete(delete.as_str()).call()?;
        Ok(())
    }

    fn put(&self, key: &str) -> Result<()> {
        let put = self.bucket.put_object(Some(&self.credentials), key);
        let put = put.sign(LIFETIME);
        let mut body = io::repeat(b'x').take(self.size_bytes);
        let request = self.agent.put(put.as_str());
        request
            .header("content-length", self.size_bytes)
            .send(SendBody::from_reader(&mut body))?;
        Ok(())
    }
}
