//! The discovery service over gRPC: one endpoint at a time, the next one when it fails.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use basalt_proto::etcdserverpb::auth_client::AuthClient;
use basalt_proto::etcdserverpb::kv_client::KvClient;
use basalt_proto::etcdserverpb::watch_client::WatchClient;
use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{
    AuthenticateRequest, PutRequest, RangeRequest, WatchCreateRequest, WatchRequest, WatchResponse,
};
use basalt_proto::mvccpb::KeyValue;
use basalt_proto::mvccpb::event::EventType;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use super::error::DiscoveryError;
use super::join::{Changes, Entry, Service, Trouble};
use crate::config::{DiscoveryService, Url, UrlAddress};
use crate::listen::{ClientTls, Dial, ServiceTls};

/// How long a connection may take where the flag sets no limit.
const DIAL_TIMEOUT_DEFAULT: Duration = Duration::from_secs(20);
/// What a member without users says: no token is needed, as etcd's clients take it.
const AUTH_NOT_ENABLED: &str = "etcdserver: authentication is not enabled";

/// Calls the service, at the endpoint that answered last.
pub(super) struct ServiceClient {
    config: DiscoveryService,
    tls: Arc<ServiceTls>,
    /// Index of the endpoint that is asked.
    endpoint: usize,
    connection: Option<Connection>,
}

/// One endpoint, reached.
#[derive(Clone)]
struct Connection {
    channel: Channel,
    /// Says who calls.
    token: Option<MetadataValue<Ascii>>,
}

impl Connection {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }
}

impl ServiceClient {
    pub(super) fn new(config: &DiscoveryService) -> Self {
        let tls = Arc::new(ServiceTls::new(config.tls.clone()));
        Self { config: config.clone(), tls, endpoint: 0, connection: None }
    }

    /// Asks one endpoint after the other, each once, until one answers.
    async fn call<T, F: Future<Output = Result<T, Status>> + Send>(
        &mut self,
        call: impl Fn(Connection) -> F + Send + Sync,
    ) -> Result<T, Trouble> {
        let mut said = Vec::new();
        for _ in 0..self.config.endpoints.len() {
            let url = self.config.endpoints[self.endpoint].clone();
            let answer = match self.connection(&url).await {
                Ok(connection) => {
                    let answer = timeout(self.config.request_timeout, call(connection)).await;
                    let limit = self.config.request_timeout;
                    answer.map_or_else(|_| Err(format!("no answer within {limit:?}")), |answer| answer.map_err(words))
                }
                Err(Trouble::Passing(why)) => Err(why),
                Err(lasting) => return Err(lasting),
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(why) => said.push(format!("{url}: {why}")),
            }
            self.connection = None;
            self.endpoint = (self.endpoint + 1) % self.config.endpoints.len();
        }
        Err(Trouble::Passing(said.join("; ")))
    }

    async fn connection(&mut self, url: &Url) -> Result<Connection, Trouble> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        let channel = self.channel(url).await.map_err(Trouble::Passing)?;
        let token = self.token(&channel).await?;
        let connection = Connection { channel, token };
        self.connection = Some(connection.clone());
        Ok(connection)
    }

    async fn channel(&self, url: &Url) -> Result<Channel, String> {
        let tls: Option<Arc<dyn ClientTls>> = if url.is_tls() { Some(self.tls.clone()) } else { None };
        let authority = match url.address() {
            UrlAddress::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            UrlAddress::Tcp { host, port } => format!("{host}:{port}"),
            UrlAddress::Unix { .. } => "localhost".to_owned(),
        };
        let limit = self.config.dial_timeout.unwrap_or(DIAL_TIMEOUT_DEFAULT);
        let mut endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(|error| error.to_string())?;
        if let Some(interval) = self.config.keepalive_time {
            // Between calls too: a watch may be quiet for hours.
            endpoint = endpoint
                .http2_keep_alive_interval(interval)
                .keep_alive_timeout(self.config.keepalive_timeout.unwrap_or(self.config.request_timeout));
        }
        let dialed = Dial::new(url.address().clone(), tls, limit).channel(endpoint);
        timeout(limit, dialed).await.map_err(|_| format!("no connection within {limit:?}"))?
    }

    /// Says who calls, if anybody does, and gives what proves it from then on.
    async fn token(&self, channel: &Channel) -> Result<Option<MetadataValue<Ascii>>, Trouble> {
        let Some(user) = &self.config.user else { return Ok(None) };
        let request = AuthenticateRequest { name: user.name.clone(), password: user.password.clone() };
        let mut client = AuthClient::new(channel.clone());
        let late = |_| Trouble::Passing("no answer to who we are".to_owned());
        match timeout(self.config.request_timeout, client.authenticate(request)).await.map_err(late)? {
            Ok(answer) => {
                let bad = |_| Trouble::Passing("the service gives a token that cannot be sent".to_owned());
                answer.into_inner().token.parse().map(Some).map_err(bad)
            }
            Err(status) if status.message() == AUTH_NOT_ENABLED => Ok(None),
            Err(status) => Err(refused(status)),
        }
    }
}

/// A wrong name or password stays wrong; what else is said of an attempt passes.
fn refused(status: Status) -> Trouble {
    match status.code() {
        Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated => {
            Trouble::Lasting(DiscoveryError::Unauthenticated(status.message().to_owned()))
        }
        _ => Trouble::Passing(words(status)),
    }
}

fn words(status: Status) -> String {
    if status.message().is_empty() { status.code().description().to_owned() } else { status.message().to_owned() }
}

/// The first key that does not begin with `prefix`, where etcd's ranges end.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    // Text in UTF-8 has no byte 0xff.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

fn entry(pair: KeyValue) -> Entry {
    Entry { key: pair.key.to_vec(), value: pair.value.to_vec(), create_revision: pair.create_revision }
}

impl Service for ServiceClient {
    type Changes = Watch;

    async fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, Trouble> {
        let range = RangeRequest { key: key.as_bytes().to_vec().into(), ..RangeRequest::default() };
        let answer = self.call(|connection| {
            let request = connection.request(range.clone());
            async move { KvClient::new(connection.channel).range(request).await }
        });
        Ok(answer.await?.into_inner().kvs.into_iter().next().map(|pair| pair.value.to_vec()))
    }

    async fn list(&mut self, prefix: &str) -> Result<(Vec<Entry>, i64), Trouble> {
        let (key, range_end) = (prefix.as_bytes().to_vec().into(), end_of(prefix).into());
        let range = RangeRequest { key, range_end, ..RangeRequest::default() };
        let answer = self.call(|connection| {
            let request = connection.request(range.clone());
            async move { KvClient::new(connection.channel).range(request).await }
        });
        let answer = answer.await?.into_inner();
        let header = answer.header.ok_or_else(|| Trouble::Passing("an answer without header".to_owned()))?;
        Ok((answer.kvs.into_iter().map(entry).collect(), header.revision))
    }

    async fn put(&mut self, key: &str, value: &str) -> Result<(), Trouble> {
        let (key, value) = (key.as_bytes().to_vec().into(), value.as_bytes().to_vec().into());
        let put = PutRequest { key, value, ..PutRequest::default() };
        let answer = self.call(|connection| {
            let request = connection.request(put.clone());
            async move { KvClient::new(connection.channel).put(request).await }
        });
        answer.await.map(drop)
    }

    async fn watch(&mut self, prefix: &str, revision: i64) -> Result<Watch, Trouble> {
        let (key, range_end) = (prefix.as_bytes().to_vec().into(), end_of(prefix).into());
        let create = WatchCreateRequest { key, range_end, start_revision: revision, ..WatchCreateRequest::default() };
        let answer = self.call(|connection| {
            let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create.clone())) };
            async move {
                let (requests, sent) = mpsc::channel(1);
                requests.try_send(create).expect("there is room for one");
                let request = connection.request(ReceiverStream::new(sent));
                let answers = WatchClient::new(connection.channel.clone()).watch(request).await?.into_inner();
                Ok(Watch { answers, _requests: requests })
            }
        });
        answer.await
    }

    async fn pause(&mut self, pause: Duration) {
        tokio::time::sleep(pause).await;
    }
}

/// A watch of the service; it ends when this is dropped.
pub(super) struct Watch {
    answers: Streaming<WatchResponse>,
    /// The stream of requests must stay open, for its end is that of the watch.
    _requests: mpsc::Sender<WatchRequest>,
}

impl Changes for Watch {
    async fn next(&mut self) -> Result<Vec<Entry>, String> {
        loop {
            let answer = self.answers.message().await.map_err(words)?;
            let answer = answer.ok_or_else(|| "the service ended the watch".to_owned())?;
            if answer.canceled || answer.compact_revision != 0 {
                let (reason, revision) = (answer.cancel_reason, answer.compact_revision);
                return Err(format!("the service cancelled the watch (compacted at {revision}): {reason}"));
            }
            let puts = answer.events.into_iter().filter(|event| event.r#type() == EventType::Put);
            let entries: Vec<Entry> = puts.filter_map(|event| event.kv).map(entry).collect();
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_behind_its_last_byte() {
        assert_eq!(end_of("/a/members"), b"/a/membert");
    }

    #[test]
    fn a_wrong_password_stays_wrong() {
        let lasting =
            refused(Status::invalid_argument("etcdserver: authentication failed, invalid user ID or password"));
        assert!(matches!(lasting, Trouble::Lasting(DiscoveryError::Unauthenticated(_))));
        assert_eq!(
            refused(Status::unavailable("")),
            Trouble::Passing("The service is currently unavailable".to_owned())
        );
    }

    #[test]
    fn who_is_not_reached_is_named_with_each_endpoint() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let directory = tempfile::tempdir().expect("a directory");
        let socket = |name: &str| {
            let path = directory.path().join(name);
            Url::parse(&format!("unix://{}", path.display())).expect("a URL")
        };
        let mut client = ServiceClient::new(&DiscoveryService {
            token: "t".to_owned(),
            endpoints: vec![socket("a"), socket("b")],
            dial_timeout: None,
            request_timeout: Duration::from_secs(5),
            keepalive_time: None,
            keepalive_timeout: None,
            tls: crate::config::DiscoveryTls::default(),
            user: None,
        });
        let Err(Trouble::Passing(why)) = runtime.block_on(client.get("k")) else { panic!("nobody is there") };
        assert!(why.contains("/a: ") && why.contains("/b: ") && why.contains("; unix://"), "{why}");
    }
}
