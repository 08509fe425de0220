//! Which page a path leads to.

use std::sync::Arc;

use serde::Serialize;

use super::access::Access;
use super::checks::Endpoint;
use super::health;
use super::message::{PageRequest, PageResponse};
use super::probe::{Probe, Versions};
use crate::config::{HttpConfig, etcd_version};
use crate::metrics::Metrics;

/// What Prometheus' Go client calls its text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// The page of all figures.
const FIGURES: &str = "/metrics";

/// Which listener a request came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// One of `--listen-client-urls` or `--listen-client-http-urls`.
    Clients,
    /// One of `--listen-metrics-urls`: health and metrics, without rules of access.
    Metrics,
}

/// All pages of a node.
#[derive(Clone)]
pub struct Site {
    access: Access,
    metrics: Arc<Metrics>,
}

impl Site {
    /// The pages, under the rules of `config`.
    pub fn new(config: &HttpConfig, metrics: Arc<Metrics>) -> Self {
        let access = Access { origins: config.cors.clone(), hosts: config.host_whitelist.clone() };
        Self { access, metrics }
    }

    /// The page for `request`.
    ///
    /// Reads `/proc` for `/metrics`: for a thread that may wait.
    pub fn respond(&self, listener: Listener, request: &PageRequest<'_>, node: &dyn Probe) -> PageResponse {
        match listener {
            Listener::Metrics => self.watched_page(request, node).unwrap_or_else(PageResponse::not_found),
            Listener::Clients => self.refuse(listener, request).unwrap_or_else(|| {
                let page = self.watched_page(request, node).unwrap_or_else(|| self.client_page(request, node));
                self.open(listener, request, page)
            }),
        }
    }

    /// Whether a page is that of all figures, which has a way of its own: [`refuse`](Self::refuse), then
    /// [`figures_page`](Self::figures_page), then [`open`](Self::open).
    pub fn is_figures(request: &PageRequest<'_>) -> bool {
        request.path == FIGURES
    }

    /// The answer, if a request does not reach a page.
    pub fn refuse(&self, listener: Listener, request: &PageRequest<'_>) -> Option<PageResponse> {
        if listener == Listener::Clients { self.access.answer(request) } else { None }
    }

    /// The page of all figures. One at a time: it sets what another would read amid.
    ///
    /// Reads `/proc`: for a thread that may wait.
    pub fn figures_page(&self, node: &dyn Probe) -> PageResponse {
        self.metrics.refresh(&node.figures());
        PageResponse::ok(METRICS, self.metrics.render())
    }

    /// Says which web pages may read a page.
    pub fn open(&self, listener: Listener, request: &PageRequest<'_>, page: PageResponse) -> PageResponse {
        if listener == Listener::Clients { self.access.allow_origin(request, page) } else { page }
    }

    /// The answer, if a request does not reach the JSON gateway, which asks for the same as pages.
    pub fn keep_out(&self, listener: Listener, request: &PageRequest<'_>) -> Option<PageResponse> {
        match listener {
            Listener::Metrics => Some(PageResponse::not_found()),
            Listener::Clients => self.access.answer(request),
        }
    }

    /// The answer to a web page that may not have a websocket.
    pub fn keep_foreign_page_out(&self, request: &PageRequest<'_>) -> Option<PageResponse> {
        (!self.access.lets_page_in(request)).then(|| PageResponse::error(403, "Forbidden"))
    }

    /// The headers that say which web pages may read an answer of the gateway.
    pub fn origins(&self, request: &PageRequest<'_>) -> Vec<(&'static str, String)> {
        self.access.allow_origin(request, PageResponse::ok("", "")).headers
    }

    /// The pages that every listener has.
    fn watched_page(&self, request: &PageRequest<'_>, node: &dyn Probe) -> Option<PageResponse> {
        match request.path {
            "/health" => Some(health::page(request, node, &self.metrics)),
            FIGURES => Some(self.figures_page(node)),
            path => {
                let (endpoint, check) = Endpoint::from_path(path)?;
                Some(endpoint.page(check, request, node, &self.metrics))
            }
        }
    }

    fn client_page(&self, request: &PageRequest<'_>, node: &dyn Probe) -> PageResponse {
        let read = request.method == "GET";
        match request.path {
            "/version" if read => version_page(node.versions()),
            "/debug/vars" if read => self.vars_page(),
            "/version" | "/debug/vars" => PageResponse::get_only(),
            _ => PageResponse::not_found(),
        }
    }

    /// Go's `expvar` without what only a Go program has.
    fn vars_page(&self) -> PageResponse {
        let limit = self.metrics.descriptor_limit();
        let body = format!("{{\n\"file_descriptor_limit\": {limit}\n}}\n");
        PageResponse::ok("application/json; charset=utf-8", body)
    }
}

fn version_page(versions: Versions) -> PageResponse {
    #[derive(Serialize)]
    struct Page {
        etcdserver: &'static str,
        etcdcluster: String,
        storage: String,
    }
    let page = Page {
        etcdserver: etcd_version(),
        etcdcluster: versions.cluster.unwrap_or_else(|| "not_decided".to_owned()),
        storage: versions.storage.unwrap_or_else(|| "unknown".to_owned()),
    };
    PageResponse::ok("application/json", serde_json::to_string(&page).expect("three strings always encode"))
}
