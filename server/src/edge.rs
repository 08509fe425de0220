//! One port, three languages: gRPC by its content type, JSON by its path, and everything else is a page (etcd-contract 5).

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::Full;
use tower_service::Service as TowerService;

use crate::api::grpc::{self, GrpcBody};
use crate::api::pieces::Pieces;
use crate::api::service::Service;
use crate::gateway::{Gateway, GatewayBody};
use crate::listen::RequestBody;
use crate::pages::{Pages, Serves};

/// The service of one port.
#[derive(Clone)]
pub struct Edge {
    /// Handlers of gRPC calls.
    pub service: Arc<Service>,
    /// Pages.
    pub pages: Arc<Pages>,
    /// The JSON gateway, unless it is turned off (`--enable-grpc-gateway`).
    pub gateway: Option<Arc<Gateway>>,
    /// What this port serves.
    pub serves: Serves,
}

/// A body of either language.
pub enum EdgeBody {
    /// A gRPC answer.
    Grpc(GrpcBody),
    /// A page.
    Page(Full<Bytes>),
    /// An answer of the JSON gateway.
    Gateway(GatewayBody),
}

impl Body for EdgeBody {
    type Data = Pieces;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Pieces>, Infallible>>> {
        match self.get_mut() {
            EdgeBody::Grpc(body) => Pin::new(body).poll_frame(context),
            EdgeBody::Page(body) => {
                let page = Pin::new(body).poll_frame(context);
                page.map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(Pieces::from))))
            }
            EdgeBody::Gateway(body) => {
                let page = Pin::new(body).poll_frame(context);
                page.map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(Pieces::from))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            EdgeBody::Grpc(body) => body.is_end_stream(),
            EdgeBody::Page(body) => body.is_end_stream(),
            EdgeBody::Gateway(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            EdgeBody::Grpc(body) => body.size_hint(),
            EdgeBody::Page(body) => body.size_hint(),
            EdgeBody::Gateway(body) => body.size_hint(),
        }
    }
}

/// Whether each call's authority goes to standard error, in the words of Go's HTTP/2: etcd's tests turn that on by this variable
/// and wait for the line (etcd-contract 5).
static TELLS_AUTHORITY: LazyLock<bool> = LazyLock::new(|| {
    let settings = std::env::var("GODEBUG").unwrap_or_default();
    settings.split(',').any(|setting| setting == "http2debug=2")
});

fn tell_authority(request: &Request<RequestBody>) {
    if let Some(authority) = request.uri().authority() {
        eprintln!("http2: decoded hpack field header field \":authority\" = {:?}", authority.as_str());
    }
}

impl TowerService<Request<RequestBody>> for Edge {
    type Response = Response<EdgeBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let talks_grpc = matches!(self.serves, Serves::Everything | Serves::GrpcOnly);
        if talks_grpc && grpc::is_grpc(&request) {
            if *TELLS_AUTHORITY {
                tell_authority(&request);
            }
            if let Some(refusal) = grpc::refuse_head(&request) {
                return Box::pin(std::future::ready(Ok(refusal.map(EdgeBody::Grpc))));
            }
            let service = self.service.clone();
            return Box::pin(async move { Ok(grpc::serve(service, request).await.map(EdgeBody::Grpc)) });
        }
        let (pages, gateway, serves) = (self.pages.clone(), self.gateway.clone(), self.serves);
        let (request, body) = request.into_parts();
        Box::pin(async move {
            let Some(gateway) = gateway.filter(|_| Gateway::serves(request.uri.path())) else {
                return Ok(pages.respond(&request, serves).await.map(EdgeBody::Page));
            };
            if let Some(page) = pages.keep_out(&request, serves) {
                return Ok(page.map(EdgeBody::Page));
            }
            if Gateway::is_websocket(&request) {
                // Of a websocket nobody asks which pages may read it: it is refused, or open.
                let kept_out = pages.keep_foreign_page_out(&request).map(|page| page.map(EdgeBody::Page));
                let upgraded = async { gateway.respond(&request, body).await.map(EdgeBody::Gateway) };
                return Ok(match kept_out {
                    Some(page) => page,
                    None => upgraded.await,
                });
            }
            Ok(pages.open_to(&request, gateway.respond(&request, body).await.map(EdgeBody::Gateway)))
        })
    }
}
