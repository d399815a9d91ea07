//! Where a rule takes from and brings to: buckets with prefixes, and directories.

use std::path::{Component, Path as FilePath, PathBuf};

use super::problems::Diagnostics;
use super::schema;
use super::written::{Located, Table, quoted};
use crate::object::{Base, KEY_MAX_BYTES, Place};

pub(super) const PLACES: &[(&str, PlaceType)] = &[("s3", PlaceType::S3), ("file", PlaceType::File)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlaceType {
    S3,
    File,
}

/// What places get that do not say it themselves.
#[derive(Default)]
pub(super) struct Fallback<'a> {
    bucket: Option<String>,
    base: Option<Base>,
    /// `defaults` says something wrong about the bucket, so rules without one get no complaint of
    /// their own.
    bucket_is_flawed: bool,
    /// The same for `base_file_path`.
    base_is_flawed: bool,
    /// `MINIO_BUCKET`.
    environment: Option<&'a str>,
}

impl<'a> Fallback<'a> {
    /// Only what the environment says.
    pub(super) fn new(environment: Option<&'a str>) -> Self {
        Self {
            environment,
            ..Self::default()
        }
    }

    /// `defaults` is no mapping, so rules get no complaint about what it might have said.
    pub(super) fn flawed(self) -> Self {
        Self {
            bucket_is_flawed: true,
            base_is_flawed: true,
            ..self
        }
    }

    /// Reads `defaults`.
    pub(super) fn with(self, defaults: &Table<'_>, report: &mut Diagnostics) -> Self {
        let bucket = defaults
            .plain_text("default_bucket", report)
            .and_then(|found| bucket_name(&found, report));
        let base = defaults
            .plain_text("base_file_path", report)
            .and_then(|found| base_path(&found, report));
        let require_mount = defaults.boolean("require_mount", report);
        if let Some(found) = &require_mount
            && found.value
            && !is_meant(defaults, "base_file_path")
        {
            let text = "found true without a base_file_path; allowed: with one, which it is about";
            report.value(&found.path, text);
        }
        let must_be_mount = require_mount.is_some_and(|found| found.value);
        let base = base.map(|path| Base {
            path,
            must_be_mount,
        });
        Self {
            bucket_is_flawed: bucket.is_none() && is_meant(defaults, "default_bucket"),
            base_is_flawed: base.is_none() && is_meant(defaults, "base_file_path"),
            bucket,
            base,
            ..self
        }
    }

    /// What `src` or `dest` says of its place; the kind is known before the rest is sound.
    pub(super) fn place(
        &self,
        table: &Table<'_>,
        report: &mut Diagnostics,
    ) -> (Option<PlaceType>, Option<Place>) {
        let kind = table
            .choice("type", PLACES, report)
            .map(|found| found.value);
        let path = table.plain_text("path", report);
        let bucket = table.plain_text("bucket", report);
        let Some(kind) = kind else {
            table.missing("type", "s3, file", report);
            return (None, None);
        };
        let place = match kind {
            PlaceType::S3 => {
                let bucket = self.bucket(table, bucket, report);
                if path.is_none() {
                    let allowed = "a prefix, such as in/850, or / for the whole bucket";
                    table.missing("path", allowed, report);
                }
                let prefix = path.and_then(|found| prefix(&found, report));
                bucket
                    .zip(prefix)
                    .map(|(bucket, prefix)| Place::S3 { bucket, prefix })
            }
            PlaceType::File => {
                if let Some(bucket) = bucket {
                    report.key(
                        &bucket.path,
                        "a directory is in no bucket; allowed: no bucket, or `type: s3`",
                    );
                }
                if path.is_none() {
                    let allowed = "a directory, such as inbound/850";
                    table.missing("path", allowed, report);
                }
                path.and_then(|found| self.directory(&found, report))
            }
        };
        (Some(kind), place)
    }

    fn bucket(
        &self,
        table: &Table<'_>,
        written: Option<Located<&str>>,
        report: &mut Diagnostics,
    ) -> Option<String> {
        if let Some(found) = written {
            return bucket_name(&found, report);
        }
        if table.get("bucket").is_some() {
            return None;
        }
        if let Some(bucket) = &self.bucket {
            return Some(bucket.clone());
        }
        let Some(fallback) = self.environment else {
            if !self.bucket_is_flawed {
                let allowed = "a bucket here, in defaults.default_bucket, or in MINIO_BUCKET";
                table.missing("bucket", allowed, report);
            }
            return None;
        };
        match bucket_flaw(fallback) {
            None => Some(fallback.to_owned()),
            Some(flaw) => {
                let found = quoted(fallback);
                report.key(
                    &table.path.missing("bucket"),
                    format!("found {found} in MINIO_BUCKET; {flaw}"),
                );
                None
            }
        }
    }

    fn directory(&self, found: &Located<&str>, report: &mut Diagnostics) -> Option<Place> {
        let written = FilePath::new(found.value);
        if found.value.is_empty() {
            report.value(
                &found.path,
                "found an empty text; allowed: a directory (`.` is base_file_path itself)",
            );
            return None;
        }
        let plain = plain_path(found, report)?;
        let base = self.base.as_ref();
        if written.is_absolute() {
            let base = base.filter(|base| plain.starts_with(&base.path)).cloned();
            return Some(Place::File { path: plain, base });
        }
        let Some(base) = base else {
            if !self.base_is_flawed {
                let text = quoted(found.value);
                report.value(
                    &found.path,
                    format!(
                        "found the relative path {text} without defaults.base_file_path; allowed: \
                         an absolute path, or a base_file_path in defaults"
                    ),
                );
            }
            return None;
        };
        Some(Place::File {
            // Not `join`, which leaves a `/` behind the base when the path is `.`.
            path: base.path.iter().chain(&plain).collect(),
            base: Some(base.clone()),
        })
    }
}

/// Whether `defaults` has the key with some value, or one that is probably a slip for it.
fn is_meant(defaults: &Table<'_>, key: &str) -> bool {
    let is_slip = |written: &str| {
        let hint = schema::hint(written, schema::DEFAULTS);
        !schema::DEFAULTS.contains(&written) && hint.is_some_and(|hint| hint.contains(key))
    };
    defaults.get(key).is_some() || defaults.entries().any(|(written, ..)| is_slip(written))
}

fn bucket_name(found: &Located<&str>, report: &mut Diagnostics) -> Option<String> {
    if let Some(flaw) = bucket_flaw(found.value) {
        let text = quoted(found.value);
        report.value(&found.path, format!("found the text {text}; {flaw}"));
        return None;
    }
    Some(found.value.to_owned())
}

/// What `MinIO` refuses in a bucket's name (minio-go `s3utils.CheckValidBucketNameStrict`; `minio`
/// itself is reserved by the server).
fn bucket_flaw(name: &str) -> Option<&'static str> {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    let sound = (3..=63).contains(&bytes.len())
        && bytes
            .iter()
            .all(|&b| is_plain(b) || matches!(b, b'.' | b'-'))
        && bytes.first().copied().is_some_and(is_plain)
        && bytes.last().copied().is_some_and(is_plain)
        && !["..", ".-", "-."].iter().any(|pair| name.contains(pair))
        && name.parse::<std::net::Ipv4Addr>().is_err()
        && name != "minio";
    (!sound).then_some(
        "allowed: a bucket of MinIO: 3 to 63 of a-z, 0-9, `.` and `-`, first and last a letter \
         or digit, no IP address",
    )
}

/// A prefix without a `/` in front and with one behind; empty for the whole bucket.
fn prefix(found: &Located<&str>, report: &mut Diagnostics) -> Option<String> {
    let plain = found.value.trim_matches('/');
    if plain.is_empty() {
        return Some(String::new());
    }
    let text = quoted(found.value);
    let mut refuse = |what: &str, allowed: &str| {
        report.value(
            &found.path,
            format!("found {what} in {text}; allowed: {allowed}"),
        );
        None
    };
    if plain.split('/').any(str::is_empty) {
        return refuse(
            "a doubled `/`",
            "one `/` between two parts (MinIO refuses more)",
        );
    }
    if plain.split('/').any(|part| matches!(part, "." | "..")) {
        return refuse(
            "a part `.` or `..`",
            "parts with names (MinIO refuses these)",
        );
    }
    if plain.len() + 1 >= KEY_MAX_BYTES {
        return refuse(
            "more than a key can hold",
            "less than 1023 bytes, so that a name has room",
        );
    }
    Some(format!("{plain}/"))
}

fn base_path(found: &Located<&str>, report: &mut Diagnostics) -> Option<PathBuf> {
    if !FilePath::new(found.value).is_absolute() {
        let text = quoted(found.value);
        report.value(
            &found.path,
            format!("found the text {text}; allowed: an absolute path, such as /home/bots/.bots"),
        );
        return None;
    }
    plain_path(found, report)
}

/// The path without `.` and doubled `/`; a `..` is refused.
fn plain_path(found: &Located<&str>, report: &mut Diagnostics) -> Option<PathBuf> {
    let text = quoted(found.value);
    let components = FilePath::new(found.value).components();
    if components.clone().any(|part| part == Component::ParentDir) {
        report.value(
            &found.path,
            format!("found a `..` in {text}; allowed: the directory's own path without it"),
        );
        return None;
    }
    Some(
        components
            .filter(|part| *part != Component::CurDir)
            .collect(),
    )
}
