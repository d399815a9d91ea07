//! Credentials with fewer rights than root's, as `MinIO`'s `AssumeRole` gives them: no tool and no
//! admin API is needed, and the policy is the server's to enforce.
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::minio::{ACCESS_KEY, SECRET_KEY};

/// Temporary credentials.
pub(crate) struct Session {
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    pub(crate) token: String,
}

impl Session {
    /// May do what `policy` (JSON) allows, and nothing else.
    pub(crate) fn with(agent: &ureq::Agent, endpoint: &str, policy: &str) -> Self {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("Action", "AssumeRole")
            .append_pair("Version", "2011-06-15")
            .append_pair("Policy", policy)
            .finish();
        let host = endpoint.split("://").last().unwrap_or_default();
        let date = jiff::Timestamp::now()
            .strftime("%Y%m%dT%H%M%SZ")
            .to_string();
        let answer = agent
            .post(endpoint)
            .header("content-type", FORM)
            .header("x-amz-date", &date)
            .header("authorization", authorization(host, &date, &body))
            .send(body.as_str());
        let mut answer = answer.expect("the server answers");
        let text = answer.body_mut().read_to_string().expect("text");
        assert_eq!(answer.status().as_u16(), 200, "AssumeRole: {text}");
        let inside = |tag: &str| {
            let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
            let rest = text.split(&open).nth(1).expect("the tag opens");
            rest.split(&close).next().unwrap_or_default().to_owned()
        };
        Self {
            access_key: inside("AccessKeyId"),
            secret_key: inside("SecretAccessKey"),
            token: inside("SessionToken"),
        }
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

/// Signature Version 4 in a header, for the service `sts`.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>
fn authorization(host: &str, date: &str, body: &str) -> String {
    let day = &date[..8];
    let scope = format!("{day}/us-east-1/sts/aws4_request");
    let signed = "content-type;host;x-amz-date";
    let request = format!(
        "POST\n/\n\ncontent-type:{FORM}\nhost:{host}\nx-amz-date:{date}\n\n{signed}\n{}",
        hex(&Sha256::digest(body))
    );
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
        hex(&Sha256::digest(request))
    );
    let mut key = format!("AWS4{SECRET_KEY}").into_bytes();
    for text in [day, "us-east-1", "sts", "aws4_request"] {
        key = hmac(&key, text);
    }
    let signature = hex(&hmac(&key, &to_sign));
    format!(
        "AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={signed}, \
         Signature={signature}"
    )
}

/// RFC 2104, for keys no longer than a block.
fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = Sha256::new()
        .chain_update(block.map(|byte| byte ^ 0x36))
        .chain_update(text);
    let outer = Sha256::new()
        .chain_update(block.map(|byte| byte ^ 0x5c))
        .chain_update(inner.finalize());
    outer.finalize().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}
