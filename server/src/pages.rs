//! Binds the pages of [`crate::http`] to the node and to hyper.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use basalt_storage::mvcc::key_range::KeyRange;
use basalt_storage::mvcc::range::RangeQuery;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header};
use http_body_util::Full;

use crate::api::service::Service;
use crate::config::Config;
use crate::http::{AlarmKind, Listener, PageRequest, PageResponse, Probe, SharedPage, Site, Versions};
use crate::listen::{ClientConnection, LargePage};
use crate::metrics::{ClassFigures, Figures, Metrics, ShardFigures};
use crate::profiles::{Answer, Profiles};

/// What a port serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    /// gRPC and pages.
    Everything,
    /// gRPC alone: pages have a port of their own (`--listen-client-http-urls`).
    GrpcOnly,
    /// Pages alone.
    PagesOnly,
    /// Metrics and health alone (`--listen-metrics-urls`).
    Probes,
}

/// The key that health checks read, as etcd's do.
const HEALTH_KEY: &[u8] = b"health";

/// The page of all figures as all have it who share it: what stands around it, and the page.
type Figured = (PageResponse, Bytes);

/// All pages.
pub struct Pages {
    site: Site,
    figures: SharedPage<Figured>,
    profiles: Option<Profiles>,
    service: Arc<Service>,
}

impl Pages {
    /// The pages of a node under the rules of `config`.
    pub fn new(service: Arc<Service>, metrics: Arc<Metrics>, config: &Config) -> Self {
        let profiles = config.http.profiles.then(Profiles::start);
        Self { site: Site::new(&config.http, metrics), figures: SharedPage::default(), profiles, service }
    }

    /// Answers a request that is no gRPC call.
    pub async fn respond(self: &Arc<Self>, request: &Parts, serves: Serves) -> Response<Full<Bytes>> {
        if has_no_pages(request, serves) {
            return unsupported();
        }
        let page = page_of(request);
        let profiles = self.profiles.as_ref().filter(|_| serves != Serves::Probes && Profiles::serves(page.path));
        if let Some(profiles) = profiles {
            return self.profile(request, serves, profiles).await;
        }
        let listener = if serves == Serves::Probes { Listener::Metrics } else { Listener::Clients };
        if Site::is_figures(&page) {
            return self.figures(request, listener).await;
        }
        let read = if page.reads_linearizably() { self.linearizable_read().await } else { Ok(()) };
        response(self.site.respond(listener, &page, &Asked { pages: self, read }), request.method == http::Method::HEAD)
    }

    /// What somebody is told who is not let to the gateway: a stranger's host name, a browser's question, a port without it.
    pub fn keep_out(&self, request: &Parts, serves: Serves) -> Option<Response<Full<Bytes>>> {
        let page = page_of(request);
        if has_no_pages(request, serves) {
            return Some(unsupported());
        }
        let listener = if serves == Serves::Probes { Listener::Metrics } else { Listener::Clients };
        self.site.keep_out(listener, &page).map(|page| response(page, request.method == http::Method::HEAD))
    }

    /// What the web page of a stranger is told that wants a websocket; CORS is no rule of theirs.
    pub fn keep_foreign_page_out(&self, request: &Parts) -> Option<Response<Full<Bytes>>> {
        self.site.keep_foreign_page_out(&page_of(request)).map(|page| response(page, false))
    }

    /// Says which web pages may read an answer of the gateway.
    pub fn open_to<B>(&self, request: &Parts, mut response: Response<B>) -> Response<B> {
        add_headers(response.headers_mut(), self.site.origins(&page_of(request)));
        response
    }

    /// The page of all figures, in its place: made once for all who ask meanwhile, on a thread that may wait.
    async fn figures(self: &Arc<Self>, request: &Parts, listener: Listener) -> Response<Full<Bytes>> {
        let (page, without_body) = (page_of(request), request.method == http::Method::HEAD);
        if let Some(refusal) = self.site.refuse(listener, &page) {
            return response(refusal, without_body);
        }
        let Some(place) = large_page(request) else { return too_many() };
        let pages = self.clone();
        let made = self.figures.get(move || {
            let mut page = pages.site.figures_page(&Asked { pages: &pages, read: Ok(()) });
            let body = std::mem::take(&mut page.body);
            (page, Bytes::from(body))
        });
        let Ok((around, body)) = made.await else {
            // It panicked, which is told where it happened, or the process ends.
            return too_many();
        };
        let around = self.site.open(listener, &page, around);
        match held(place, if without_body { Bytes::new() } else { body }) {
            Some(body) => response(around, true).map(|_| Full::new(body)),
            None => too_many(),
        }
    }

    /// A profile of this process, for whoever may see pages. None outlives the begin of a stop.
    async fn profile(&self, request: &Parts, serves: Serves, profiles: &Profiles) -> Response<Full<Bytes>> {
        if let Some(page) = self.keep_out(request, serves) {
            return page;
        }
        let Some(place) = large_page(request) else { return too_many() };
        let page = page_of(request);
        let mut stopping = self.service.stopping.clone();
        let answer = tokio::select! {
            biased;
            answer = profiles.respond(page.path, page.query) => answer,
            _ = stopping.wait_for(|stop| *stop) => Answer::stopping(),
        };
        let body = if request.method == http::Method::HEAD { Bytes::new() } else { Bytes::from(answer.body) };
        let Some(body) = held(place, body) else { return too_many() };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        add_headers(response.headers_mut(), answer.headers);
        self.open_to(request, response)
    }

    /// What etcd's checks read: with the consent of a quorum, as any client.
    async fn linearizable_read(&self) -> Result<(), String> {
        let service = &self.service;
        if service.node.leader().is_none() {
            return Err("etcdserver: no leader".to_owned());
        }
        service.linearizable_view().await.map_err(|status| status.message)?;
        // The View is as new as what was acknowledged; but where nothing is acknowledged any more, as when the log's disk
        // hangs, a node is not well.
        if service.node.oldest_proposal_wait() > service.request_timeout {
            return Err("etcdserver: request timed out".to_owned());
        }
        Ok(())
    }
}

/// The node as one request sees it: what has to wait was waited for.
struct Asked<'a> {
    pages: &'a Pages,
    /// Of the linearizable read, if the page wants one.
    read: Result<(), String>,
}

fn is_encrypted(request: &Parts) -> bool {
    request.extensions.get::<ClientConnection>().is_some_and(|connection| connection.tls)
}

/// Without TLS, HTTP/2 reaches etcd's gRPC server alone, which answers so (etcd-contract 5). A port for gRPC alone has no pages
/// in whatever version.
fn has_no_pages(request: &Parts, serves: Serves) -> bool {
    let grpc_only = request.version == Version::HTTP_2 && !is_encrypted(request) && serves == Serves::Everything;
    grpc_only || serves == Serves::GrpcOnly
}

fn page_of(request: &Parts) -> PageRequest<'_> {
    let text = |name| request.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let host = text(header::HOST).or_else(|| request.uri.authority().map(|authority| authority.as_str()));
    PageRequest {
        method: request.method.as_str(),
        path: request.uri.path(),
        query: request.uri.query().unwrap_or_default(),
        host: host.unwrap_or_default(),
        origin: text(header::ORIGIN),
        encrypted: is_encrypted(request),
    }
}

fn add_headers(headers: &mut HeaderMap, added: Vec<(&'static str, String)>) {
    for (name, value) in added {
        if let (Ok(name), Ok(value)) = (http::HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
}

fn response(page: PageResponse, without_body: bool) -> Response<Full<Bytes>> {
    let body = if without_body { Bytes::new() } else { Bytes::from(page.body) };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = StatusCode::from_u16(page.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(content_type) = page.content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    add_headers(response.headers_mut(), page.headers);
    response
}

/// What is answered where there is no place for a page, or no room.
pub fn too_many() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"too many requests\n")));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A place for a large page, `Some(None)` where nobody counts; `None` if there is none.
fn large_page(request: &Parts) -> Option<Option<LargePage>> {
    match request.extensions.get::<ClientConnection>() {
        Some(client) => client.request_room.large_page().map(Some),
        None => Some(None),
    }
}

/// The body in its place; `None` if there is no room for it.
fn held(place: Option<LargePage>, body: Bytes) -> Option<Bytes> {
    match place {
        Some(place) => place.hold(body),
        None => Some(body),
    }
}

fn unsupported() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"invalid gRPC request content-type \"\"")));
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

impl Probe for Asked<'_> {
    fn alarms(&self) -> Vec<AlarmKind> {
        let gauges = &self.pages.service.node.gauges;
        let no_space = gauges.no_space.load(Ordering::Relaxed).then_some(AlarmKind::NoSpace);
        let corrupt = gauges.corrupt.load(Ordering::Relaxed).then_some(AlarmKind::Corrupt);
        no_space.into_iter().chain(corrupt).collect()
    }

    fn is_damaged(&self) -> bool {
        self.pages.service.metrics.damaged_answers_total.get() > 0
    }

    fn has_leader(&self) -> bool {
        self.pages.service.node.leader().is_some()
    }

    fn is_learner(&self) -> bool {
        self.pages.service.is_learner()
    }

    fn serializable_read(&self) -> Result<(), String> {
        let query = RangeQuery::all(KeyRange::single(HEALTH_KEY));
        self.pages.service.node.view().plan(&query).map(drop).map_err(|error| error.to_string())
    }

    fn linearizable_read(&self) -> Result<(), String> {
        self.read.clone()?;
        self.serializable_read()
    }

    fn versions(&self) -> Versions {
        let version = self.pages.service.node.downgrade.load().cluster_version().to_string();
        Versions { cluster: Some(version.clone()), storage: Some(version) }
    }

    fn figures(&self) -> Figures {
        let node = &self.pages.service.node;
        let (view, gauges) = (node.view(), &node.gauges);
        let shards = view.shard_map.shards().iter().zip(&view.shards).map(|(spec, shard)| ShardFigures {
            name: spec.name.clone(),
            keys: shard.index.len(),
            delta_bytes: shard.delta_bytes() as u64,
            db_in_use_bytes: shard.checkpointed.root.root.live_bytes + shard.delta_bytes() as u64,
        });
        let shards: Vec<_> = shards.collect();
        let names = std::iter::once("control").chain(shards.iter().map(|shard| shard.name.as_str()));
        let classes = names.zip(node.gate().loads()).map(|(name, load)| ClassFigures {
            name: name.to_owned(),
            waiting_requests: load.proposals,
            waiting_bytes: load.bytes,
            refused: load.refused,
        });
        let classes: Vec<_> = classes.collect();
        Figures {
            revision: view.revision,
            compact_revision: view.compact_revision,
            keys: shards.iter().map(|shard| shard.keys).sum(),
            db_size_bytes: gauges.db_size.load(Ordering::Relaxed),
            db_in_use_bytes: gauges.db_size_in_use.load(Ordering::Relaxed),
            quota_bytes: node.limits.quota_bytes,
            has_leader: self.has_leader(),
            is_learner: self.is_learner(),
            is_leader: gauges.leads.load(Ordering::Relaxed),
            term: gauges.term.load(Ordering::Relaxed),
            committed_index: gauges.committed_index.load(Ordering::Relaxed),
            applied_index: gauges.applied_index.load(Ordering::Relaxed),
            proposals_pending: node.proposals_pending(),
            watchers: gauges.watchers.load(Ordering::Relaxed),
            watch_streams: gauges.watch_streams.load(Ordering::Relaxed),
            slow_watchers: gauges.slow_watchers.load(Ordering::Relaxed),
            pending_events: gauges.pending_events.load(Ordering::Relaxed),
            events_sent: gauges.events_sent.load(Ordering::Relaxed),
            leases: gauges.leases.load(Ordering::Relaxed),
            member_id: node.identity.member_id,
            members: node.members.load().iter().map(|member| member.id).collect(),
            lags: node.lags(),
            auth_revision: node.auth.now().state.revision(),
            cluster_version: Some(node.downgrade.load().cluster_version().minor_text()),
            shards,
            classes,
            ..Figures::default()
        }
    }
}
