//! The connections of the [`Client`](super::Client): ureq's own, asked less often if they live.
//!
//! A pooled connection is probed when it is given back and again when it is taken: three system
//! calls each time, for every request. The second probe finds all that the first one would, and is
//! the one that counts: right before the next request.

use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport,
};

/// Opens ureq's connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    inner: DefaultConnector,
}

impl Connector for Connections {
    type Out = PooledConnection;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<()>,
    ) -> Result<Option<PooledConnection>, ureq::Error> {
        let inner = self.inner.connect(details, chained)?;
        Ok(inner.map(|inner| PooledConnection { inner, busy: true }))
    }
}

/// A connection that is only probed when it is taken.
#[derive(Debug)]
pub(super) struct PooledConnection {
    inner: Box<dyn Transport>,
    /// It carried something since it was last asked whether it is open.
    busy: bool,
}

impl Transport for PooledConnection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.busy = true;
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.busy = true;
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        // The first question after use is whether to keep it.
        std::mem::take(&mut self.busy) || self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
