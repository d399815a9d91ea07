//! The stores of a real run: directories of this machine, and one MinIO.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::object::Place;
use crate::run::Stores;
use crate::store::local::LocalStore;
use crate::store::s3::{Client, S3Store};
use crate::store::{Finding, OnFinding, Right, Store};

/// Opens directories, and bucket prefixes where there is a client.
pub(crate) struct RealStores {
    /// The connection to MinIO; `None` when no rule uses s3.
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
                Ok(Box::new(self.bucket(bucket, prefix, excluded)?))
            }
        }
    }
}

impl RealStores {
    /// Tries what these rights need at a place; see [`Right`]. `recursive`: also reads the
    /// directories below.
    pub(crate) fn probe(
        &self,
        place: &Place,
        rights: &BTreeSet<Right>,
        recursive: bool,
        report: &mut OnFinding<'_>,
    ) -> ControlFlow<()> {
        match place {
            Place::File { .. } => {
                let context = Arc::clone(&self.context);
                LocalStore::new(place.clone(), None, context).probe(rights, recursive, report)
            }
            Place::S3 { bucket, prefix } => match self.bucket(bucket, prefix, None) {
                Ok(store) => store.probe(rights, report),
                Err(error) => report("bucket", Finding::Bad(error)),
            },
        }
    }

    /// The endpoint, for people, and the first of the places that is a bucket.
    pub(crate) fn any_bucket<'a>(
        &self,
        places: impl IntoIterator<Item = &'a Place>,
    ) -> Option<(&str, S3Store)> {
        let endpoint = self.client.as_ref()?.endpoint();
        let store = places.into_iter().find_map(|place| match place {
            Place::S3 { bucket, prefix } => self.bucket(bucket, prefix, None).ok(),
            Place::File { .. } => None,
        })?;
        Some((endpoint, store))
    }

    fn bucket(&self, bucket: &str, prefix: &str, excluded: Option<String>) -> Result<S3Store> {
        let client = self.client.as_ref().ok_or_else(|| {
            let what = format!("open s3://{bucket}/{prefix}");
            Error::new(Kind::Other, what).because("no MinIO connection")
        })?;
        S3Store::new(Arc::clone(client), bucket, prefix, excluded)
    }
}
