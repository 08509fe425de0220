//! One port, three languages: gRPC by its content type, JSON by its path, and everything else is a page (etcd-contract 5).

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::Full;
use tower_service::Service as TowerService;

use crate::api::grpc::{self, GrpcBody};
use crate::api::pieces::Pieces;
use crate::api::service::Service;
use crate::gateway::{Gateway, GatewayBody};
use crate::listen::{ClientConnection, OpenCall, RequestBody};
use crate::pages::{self, Pages, Serves};

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
    /// One of both, with its place among the open calls, until all is said.
    Placed(Box<EdgeBody>, OpenCall),
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
            EdgeBody::Placed(body, _) => Pin::new(&mut **body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            EdgeBody::Grpc(body) => body.is_end_stream(),
            EdgeBody::Page(body) => body.is_end_stream(),
            EdgeBody::Gateway(body) => body.is_end_stream(),
            EdgeBody::Placed(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            EdgeBody::Grpc(body) => body.size_hint(),
            EdgeBody::Page(body) => body.size_hint(),
            EdgeBody::Gateway(body) => body.size_hint(),
            EdgeBody::Placed(body, _) => body.size_hint(),
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
        let (edge, (mut head, body)) = (self.clone(), request.into_parts());
        Box::pin(async move {
            // A websocket is a connection of its own, which has its place.
            if edge.gateway_of(&head).is_some() && Gateway::is_websocket(&head) {
                return Ok(edge.answer(&head, body).await);
            }
            let place = place_of(&mut head);
            if matches!(place, Some(None)) {
                return Ok(edge.refuse_place(&head));
            }
            let response = edge.answer(&head, body).await;
            Ok(match place.flatten() {
                Some(place) => response.map(|body| EdgeBody::Placed(Box::new(body), place)),
                None => response,
            })
        })
    }
}

/// A place among the open calls, before anything is made or waited for; `Some(None)` if there is none, `None` where nobody
/// counts.
fn place_of(head: &mut Parts) -> Option<Option<OpenCall>> {
    let client = head.extensions.get_mut::<ClientConnection>()?;
    client.has_place = true;
    Some(client.request_room.open_call())
}

impl Edge {
    /// The gateway, if a request is for it.
    fn gateway_of(&self, head: &Parts) -> Option<&Arc<Gateway>> {
        self.gateway.as_ref().filter(|_| Gateway::serves(head.uri.path()))
    }

    fn refuse_place(&self, head: &Parts) -> Response<EdgeBody> {
        match self.gateway_of(head) {
            Some(_) => Gateway::refuse_place().map(EdgeBody::Gateway),
            None => pages::too_many().map(EdgeBody::Page),
        }
    }

    /// Answers what is no gRPC.
    async fn answer(&self, head: &Parts, body: RequestBody) -> Response<EdgeBody> {
        let Self { pages, serves, .. } = self;
        let Some(gateway) = self.gateway_of(head) else {
            return Box::pin(pages.respond(head, *serves)).await.map(EdgeBody::Page);
        };
        if let Some(page) = pages.keep_out(head, *serves) {
            return page.map(EdgeBody::Page);
        }
        if Gateway::is_websocket(head) {
            // Of a websocket nobody asks which pages may read it: it is refused, or open.
            return match pages.keep_foreign_page_out(head) {
                Some(page) => page.map(EdgeBody::Page),
                None => gateway.respond(head, body).await.map(EdgeBody::Gateway),
            };
        }
        pages.open_to(head, gateway.respond(head, body).await.map(EdgeBody::Gateway))
    }
}
