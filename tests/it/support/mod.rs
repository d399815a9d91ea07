//! What the tests need: a world to run the built binary in, and a server to run it against.

pub(crate) mod data;
pub(crate) mod log;
pub(crate) mod minio;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod s3;
pub(crate) mod sandbox;
pub(crate) mod sts;
pub(crate) mod stub;
pub(crate) mod torture;
pub(crate) mod trace;
pub(crate) mod tree;
pub(crate) mod volume;

pub(crate) use proxy::{Fault, Gate, Op, When};
pub(crate) use sandbox::{DIRECTIONS, End, Sandbox, ends};
pub(crate) use tree::{Tree, tree};
