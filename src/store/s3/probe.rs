//! Tries the server and each right at it, leaving nothing behind by construction: what is read and
//! deleted is not there, and what is put is refused for its checksum.
//!
//! `MinIO` judges a request's key, time and signature first, then the policy, and only then what it
//! asks for. So whatever an answer says about the object also says that the right is there.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::S3Store;
use super::answer::Answer;
use super::client::{Headers, Payload};
use super::error::{Refusal, Subject, Target};
use super::list::Ask;
use super::page::read_page;
use super::put::REFUSE;
use crate::error::{Error, Kind, Result};
use crate::store::probe::{Finding, OnFinding, Right, probe_name};

/// `MinIO` refuses a request from a clock that is further off, in either direction.
const SKEW_MAX_SECONDS: u64 = 15 * 60;

/// A clock that is further off is worth a note.
const SKEW_NOTED_SECONDS: u64 = 60;

/// What is put, one byte, and the MD5 of something else. Every `MinIO` refuses that; one that does
/// not know a newer kind of checksum would store the object.
const BODY: &[u8] = b"?";
const WRONG_MD5: (&str, &str) = ("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==");

/// Too short. A server that knows this kind of checksum complains about it; one that does not
/// complains about the wrong MD5 only.
const BAD_CRC64: (&str, &str) = ("x-amz-checksum-crc64nvme", "AAAA");

/// How many keys are tried when they vanish before the server has answered.
const VANISHED_MAX: usize = 3;

/// What an answer says beside what was asked for.
struct Heard {
    /// Our clock less the server's.
    skew_seconds: Option<i64>,
    /// Only where no other request would succeed.
    refusal: Option<Refusal>,
}

impl S3Store {
    /// Tries what all buckets have in common: whether the server answers, its clock, the
    /// credentials. Says whether it is of use to try the rights.
    pub(crate) fn probe_server(&self, report: &mut OnFinding<'_>) -> ControlFlow<(), bool> {
        if self.client.trusts_anybody() {
            let note = "MINIO_VERIFY=false: whoever answers for MinIO is believed";
            report("certificate", Finding::Note(note.into()))?;
        }
        let target = self.target("reach", "");
        let heard = match self.knock(&target) {
            Ok(heard) => heard,
            Err(error) => {
                report("reach", Finding::Bad(error))?;
                return ControlFlow::Continue(false);
            }
        };
        report("reach", Finding::Good("it answers".into()))?;
        let usable = heard.refusal.is_none();
        let clock = clock(heard.skew_seconds, &target);
        let (clock, credentials) = match heard.refusal {
            None => (clock, Finding::Good("the server accepts them".into())),
            Some(refusal) if refusal.subject() == Subject::Clock => {
                let note = "not judged, because of the clock";
                let error = refusal.into_error(&target);
                (Finding::Bad(error), Finding::Note(note.into()))
            }
            Some(refusal) => (clock, Finding::Bad(refusal.into_error(&target))),
        };
        report("clock", clock)?;
        report("credentials", credentials)?;
        ControlFlow::Continue(usable)
    }

    /// Tries each right at this bucket and prefix.
    pub(crate) fn probe(
        &self,
        rights: &BTreeSet<Right>,
        report: &mut OnFinding<'_>,
    ) -> ControlFlow<()> {
        for right in rights {
            let (what, tried) = match right {
                Right::List => ("list", self.try_list()),
                Right::Read => ("read", self.try_read()),
                Right::Tags => ("tags", self.try_tags()),
                Right::Write => ("put", self.try_put()),
                Right::WriteNew => ("no-replace", self.must_refuse()),
                Right::Remove => ("delete", self.try_delete()),
            };
            match tried {
                // The other rights would only say the same.
                Err(error) if error.kind() == Kind::Missing => {
                    return report("bucket", Finding::Bad(error));
                }
                tried => report(what, Finding::of(tried, "allowed"))?,
            }
        }
        ControlFlow::Continue(())
    }

    /// Asks for anything, to hear how the server takes a request of ours.
    fn knock(&self, target: &Target<'_>) -> Result<Heard> {
        self.client.tries(|attempt| {
            let mut action = self.bucket.list_objects_v2(self.client.credentials());
            action.with_max_keys(1);
            let mut answer =
                self.client
                    .send(*target, action, &Headers::new(), Payload::None, attempt)?;
            let mut heard = Heard {
                skew_seconds: answer.skew_seconds(),
                refusal: None,
            };
            if answer.status() == 200 {
                // A server that answers every request with a page of its own is no S3 server.
                return read_page(&mut answer, 1, "", target, &|_| Ok(None)).map(|_| heard);
            }
            let refusal = answer.refusal();
            match refusal.subject() {
                Subject::Server => return Err(refusal.into_error(target)),
                Subject::Clock | Subject::Credentials => heard.refusal = Some(refusal),
                // The server accepted the credentials and understood the request.
                Subject::Request => {}
            }
            Ok(heard)
        })
    }

    fn try_list(&self) -> Result<()> {
        let target = self.target("list", &self.prefix);
        let ask = one_below(&self.prefix);
        self.page(&ask, &target, &|_| Ok(None)).map(drop)
    }

    fn try_read(&self) -> Result<()> {
        let key = self.probe_key();
        let target = self.target("get", &self.prefix);
        self.client.tries(|attempt| {
            let action = self.bucket.get_object(self.client.credentials(), &key);
            let answer =
                self.client
                    .send(target, action, &Headers::new(), Payload::None, attempt)?;
            self.is_none(answer, &target)
        })
    }

    /// Here `MinIO` looks for the object before it looks at the policy, so one that is there is
    /// asked about.
    fn try_tags(&self) -> Result<()> {
        let key = self.any_key(&self.prefix)?;
        let key = key.unwrap_or_else(|| self.probe_key());
        let target = self.target("get the tags of", &self.prefix);
        self.client.tries(|attempt| {
            let answer = self.ask_for_tags(&key, target, attempt)?;
            self.is_none(answer, &target)
        })
    }

    /// Makes sure that the server would refuse to replace an object: a `MinIO` of 2023 ignores
    /// `If-None-Match` on a `PUT`. Asked once a run, by requests that cannot store anything.
    ///
    /// # Errors
    /// `Invalid`: the server ignores it. Those of the requests.
    pub(super) fn must_refuse(&self) -> Result<()> {
        let refuses = if let Some(refuses) = self.client.refuses.get() {
            *refuses
        } else {
            let refuses = self.try_refuse()?;
            *self.client.refuses.get_or_init(|| refuses)
        };
        if refuses {
            return Ok(());
        }
        let why = "this server ignores `If-None-Match`, so it could replace what is there";
        let error = self.target("put", &self.prefix).error(Kind::Invalid, why);
        Err(error.advise(
            "use a MinIO of April 2025 or later, or `if_exists: overwrite` where replacing does \
             no harm",
        ))
    }

    /// Each request has a wrong MD5, so a server that ignores the condition refuses the body. A key
    /// that exists is used only after the server has shown that it checks the MD5. When the key
    /// vanishes meanwhile, the answer proves nothing. When there is no key to use, a server that
    /// knows CRC-64/NVME is new enough.
    fn try_refuse(&self) -> Result<bool> {
        let target = self.target("put", &self.prefix);
        let young = self.put_nothing(&self.probe_key(), BAD_CRC64, &target)?;
        for _ in 0..VANISHED_MAX {
            let key = match self.any_key(&self.prefix)? {
                Some(key) => Some(key),
                None => self.any_key("")?,
            };
            let Some(key) = key else {
                break;
            };
            match self.put_nothing(&key, REFUSE, &target) {
                Ok(true) => return Ok(true),
                Ok(false) if self.head(&key)?.is_some() => return Ok(false),
                Ok(false) => {}
                // The right to list may be limited to another prefix.
                Err(error) if error.kind() == Kind::Denied => break,
                Err(error) => return Err(error),
            }
        }
        Ok(young)
    }

    /// A key below `prefix`; `None` where there is none, or where it cannot be listed.
    fn any_key(&self, prefix: &str) -> Result<Option<String>> {
        let target = self.target("list", prefix);
        match self.page(&one_below(prefix), &target, &|_| Ok(None)) {
            Ok(page) => Ok(Some(page.last_key).filter(|key| !key.is_empty())),
            Err(error) if error.kind() == Kind::Denied => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts what cannot be stored; whether something else than the wrong MD5 was refused.
    fn put_nothing(&self, key: &str, more: (&str, &str), target: &Target<'_>) -> Result<bool> {
        let headers: Headers<'_> = vec![WRONG_MD5, more];
        self.client.tries(|attempt| {
            let action = self.bucket.put_object(self.client.credentials(), key);
            let payload = Payload::Bytes(BODY);
            let answer = self
                .client
                .send(*target, action, &headers, payload, attempt)?;
            if answer.status() == 200 {
                return Err(stored_nonsense(target));
            }
            let refusal = answer.refusal();
            match refusal.code() {
                "PreconditionFailed" | "InvalidArgument" => Ok(true),
                "BadDigest" => Ok(false),
                _ => Err(refusal.into_error(target)),
            }
        })
    }

    fn try_delete(&self) -> Result<()> {
        self.delete(&self.probe_key())
    }

    /// Also in a bucket that keeps versions no delete marker stays: `MinIO` makes none for a key
    /// that is not there.
    fn delete(&self, key: &str) -> Result<()> {
        let target = self.target("delete", &self.prefix);
        self.client.tries(|attempt| {
            let action = self.bucket.delete_object(self.client.credentials(), key);
            let answer = self.client.send_cleanup(target, action, attempt)?;
            self.is_none(answer, &target)
        })
    }

    fn try_put(&self) -> Result<()> {
        let key = self.probe_key();
        let target = self.target("put", &self.prefix);
        let headers: Headers<'_> = vec![WRONG_MD5];
        let stored = self.client.tries(|attempt| {
            let action = self.bucket.put_object(self.client.credentials(), &key);
            let payload = Payload::Bytes(BODY);
            let answer = self
                .client
                .send(target, action, &headers, payload, attempt)?;
            if answer.status() == 200 {
                return Ok(true);
            }
            let refusal = answer.refusal();
            match refusal.code() {
                "BadDigest" => Ok(false),
                _ => Err(refusal.into_error(&target)),
            }
        })?;
        if !stored {
            return Ok(());
        }
        self.delete(&key)?;
        Err(stored_nonsense(&target))
    }

    /// Whether the answer says that there is no such object. Only a user with the right gets this
    /// answer.
    fn is_none(&self, answer: Answer<'_>, target: &Target<'_>) -> Result<()> {
        match answer.status() {
            200 | 204 => Ok(()),
            404 => match self.not_found(answer, target) {
                error if error.kind() == Kind::Gone => Ok(()),
                error => Err(error),
            },
            _ => Err(answer.error()),
        }
    }

    /// A key that nobody has ever used.
    pub(super) fn probe_key(&self) -> String {
        format!("{}{}", self.prefix, probe_name())
    }
}

fn stored_nonsense(target: &Target<'_>) -> Error {
    target
        .error(Kind::Other, "a body whose MD5 was wrong was taken")
        .advise("this is no MinIO, or a proxy on the way takes Content-MD5 away")
}

fn clock(skew_seconds: Option<i64>, target: &Target<'_>) -> Finding {
    let Some(skew) = skew_seconds else {
        return Finding::Note("not compared: the server does not tell its time".into());
    };
    let off = skew.unsigned_abs();
    let told = match skew {
        0 => "this clock shows the server's time".to_owned(),
        1.. => format!("this clock is {off} s ahead of the server's"),
        _ => format!("this clock is {off} s behind the server's"),
    };
    if off > SKEW_MAX_SECONDS {
        let error = target.error(Kind::Denied, told);
        return Finding::Bad(error.advise("set the clock of this machine or of the server"));
    }
    if off > SKEW_NOTED_SECONDS {
        let limit = format!("{told}; MinIO refuses requests from {SKEW_MAX_SECONDS} s on");
        return Finding::Note(limit);
    }
    Finding::Good(told)
}

/// The first key that begins with `prefix`.
fn one_below(prefix: &str) -> Ask<'_> {
    Ask {
        prefix,
        keys: 1,
        recursive: true,
        ..Ask::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(skew_seconds: Option<i64>) -> (&'static str, String) {
        let target = Target {
            verb: "reach",
            endpoint: "http://minio:9000",
            bucket: "edi",
            key: "",
        };
        match clock(skew_seconds, &target) {
            Finding::Good(text) => ("good", text),
            Finding::Note(text) => ("note", text),
            Finding::Bad(error) => ("bad", error.chain()),
        }
    }

    #[test]
    fn clock_is_bad_beyond_fifteen_minutes_and_noted_beyond_one() {
        for (skew, verdict, says) in [
            (Some(0), "good", "shows the server's time"),
            (Some(-60), "good", "60 s behind"),
            (Some(61), "note", "61 s ahead"),
            (Some(900), "note", "900 s ahead"),
            (Some(-901), "bad", "901 s behind"),
            (None, "note", "not compared"),
        ] {
            let (judged, text) = judged(skew);
            assert_eq!(judged, verdict, "{skew:?}");
            assert!(text.contains(says), "{text}");
        }
    }
}
