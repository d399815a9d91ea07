//! How the store reaches the real `MinIO` of the tests.

use std::time::Duration;

use bots_mover::environment::{Addressing, Connection, Verify};

pub(super) use crate::support::minio::{
    ACCESS_KEY, Identity, Minio, SECRET_KEY, free_port, program,
};

/// The tests change what they are about.
pub(super) fn connection(minio: &Minio) -> Connection {
    Connection {
        endpoint: format!("http://{}", minio.address).parse().unwrap(),
        access_key: ACCESS_KEY.into(),
        secret_key: SECRET_KEY.into(),
        session_token: None,
        region: "us-east-1".into(),
        verify: Verify::Public,
        style: Addressing::Path,
        connect_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_secs(20),
    }
}
