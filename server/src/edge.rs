//! One port, two languages: gRPC by its content type, everything else is a page (etcd-contract 5).

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::Full;
use tower_service::Service as TowerService;

use crate::api::grpc::{self, GrpcBody};
use crate::api::pieces::Pieces;
use crate::api::service::Service;
use crate::listen::RequestBody;
use crate::pages::{Pages, Serves};

/// The service of one port.
#[derive(Clone)]
pub struct Edge {
    /// Handlers of gRPC calls.
    pub service: Arc<Service>,
    /// Pages.
    pub pages: Arc<Pages>,
    /// What this port serves.
    pub serves: Serves,
}

/// A body of either language.
pub enum EdgeBody {
    /// A gRPC answer.
    Grpc(GrpcBody),
    /// A page.
    Page(Full<Bytes>),
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
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            EdgeBody::Grpc(body) => body.is_end_stream(),
            EdgeBody::Page(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            EdgeBody::Grpc(body) => body.size_hint(),
            EdgeBody::Page(body) => body.size_hint(),
        }
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
            if let Some(refusal) = grpc::refuse_head(&request) {
                return Box::pin(std::future::ready(Ok(refusal.map(EdgeBody::Grpc))));
            }
            let service = self.service.clone();
            return Box::pin(async move { Ok(grpc::serve(service, request).await.map(EdgeBody::Grpc)) });
        }
        let (pages, serves) = (self.pages.clone(), self.serves);
        let (request, _body) = request.into_parts();
        Box::pin(async move { Ok(pages.respond(&request, serves).await.map(EdgeBody::Page)) })
    }
}
