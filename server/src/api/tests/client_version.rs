//! A client says which version of the API it calls; what is no text is no version (etcd `v3rpc/interceptor.go`).

use basalt_proto::etcdserverpb::{PutRequest, WatchCreateRequest, WatchRequest, watch_request};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Request};
use http_body_util::Full;
use prost::Message;

use super::super::grpc;
use super::rig::Rig;

fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).expect("small"));
    message.encode(&mut bytes).expect("room");
    bytes.freeze()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_no_text_is_refused() {
    let rig = Rig::start();
    let put = PutRequest { key: "a".into(), ..PutRequest::default() };
    let create = WatchCreateRequest { key: "a".into(), ..WatchCreateRequest::default() };
    let watch = WatchRequest { request_union: Some(watch_request::RequestUnion::CreateRequest(create)) };
    for (path, message) in [("/etcdserverpb.KV/Put", framed(&put)), ("/etcdserverpb.Watch/Watch", framed(&watch))] {
        let refused = async |version: &[u8]| {
            let version = HeaderValue::from_bytes(version).expect("a header may hold it");
            let request = Request::post(path).header("client-api-version", version);
            let request = request.body(Full::new(message.clone())).expect("a request");
            let response = grpc::serve(rig.service.clone(), request).await;
            let told = |name| response.headers().get(name).map(|value| value.to_str().expect("ASCII").to_owned());
            told("grpc-status").zip(told("grpc-message"))
        };
        let expected = ("3".to_owned(), "etcdserver: invalid client api version".to_owned());
        assert_eq!(refused(b"3.\xff").await, Some(expected), "{path}");
        assert_eq!(refused("3.\u{e9}".as_bytes()).await, None, "{path}");
    }
}
