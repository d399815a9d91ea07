//! The stores of a real run: directories of this machine, and one MinIO.

use std::sync::Arc;

use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::object::Place;
use crate::run::Stores;
use crate::store::Store;
use crate::store::local::LocalStore;
use crate::store::s3::{Client, S3Store};

/// Opens directories, and bucket prefixes where there is a client.
pub struct RealStores {
    /// The connection to MinIO; `None` where no rule needs one.
    pub client: Option<Arc<Client>>,
    /// The world of the run.
    pub context: Arc<Context>,
}

impl Stores for RealStores {
    fn resolve(&self, place: &Place) -> Place {
        LocalStore::resolve(place)
    }

    fn open(&self, place: &Place, excluded: Option<&Place>) -> Result<Box<dyn Store>> {
        match place {
            Place::File { .. } => {
                let excluded = match excluded {
                    Some(Place::File { path, .. }) => Some(path.clone()),
                    _ => None,
                };
                let context = Arc::clone(&self.context);
                Ok(Box::new(LocalStore::new(place.clone(), excluded, context)))
            }
            Place::S3 { bucket, prefix } => {
                let excluded = match excluded {
                    Some(Place::S3 { prefix, .. }) => Some(prefix.clone()),
                    _ => None,
                };
                let client = self.client.as_ref().ok_or_else(|| {
                    Error::new(Kind::Other, format!("open {place}")).because("no MinIO connection")
                })?;
                Ok(Box::new(S3Store::new(
                    Arc::clone(client),
                    bucket,
                    prefix,
                    excluded,
                )?))
            }
        }
    }
}
