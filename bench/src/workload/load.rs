//! A prepared load on one server.

use std::future::Future;
use std::mem;
use std::pin::Pin;

use anyhow::Result;

use crate::closed_loop::{Caller, Pace, Tally, closed_loop};

/// A load that was prepared on one server and can be run there any number of times.
pub trait Load: Send {
    /// Runs it once, for the time of `pace`.
    ///
    /// # Errors
    /// Only a bug of the load; failed operations are counted in the tally.
    fn round(&mut self, pace: Pace) -> Pin<Box<dyn Future<Output = Result<Tally>> + Send + '_>>;
}

/// The plain load: callers, each of which calls in a loop.
pub(super) struct Callers<C>(pub(super) Vec<C>);

impl<C: Caller> Load for Callers<C> {
    fn round(&mut self, pace: Pace) -> Pin<Box<dyn Future<Output = Result<Tally>> + Send + '_>> {
        Box::pin(async move {
            let (callers, tally) = closed_loop(mem::take(&mut self.0), pace).await?;
            self.0 = callers;
            Ok(tally)
        })
    }
}
