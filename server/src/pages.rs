//! Temporary.
use std::sync::Arc;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use crate::api::service::Service;
use crate::config::Config;
use crate::edge::Serves;
use crate::metrics::Metrics;
/// Pages.
pub struct Pages;
impl Pages {
    /// New.
    pub fn new(_: Arc<Service>, _: Arc<Metrics>, _: &Config) -> Self { Self }
    /// Answers.
    pub async fn respond<B>(&self, _: &Request<B>, _: Serves) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from_static(b"404 page not found\n")));
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    }
}
