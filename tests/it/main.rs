//! The integration tests, one binary.

mod local_store;
