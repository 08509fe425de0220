//! gofail's HTTP protocol (gofail `runtime/http.go`), on a thread of its own: it answers while all others are held up.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::registry::{self, ANSWERING, FailpointError};

/// Longest body: all points with their terms many times over.
const BODY_BYTES_MAX: usize = 64 << 10;

/// How long a client may take to say what it wants.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// After a connection that could not be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) fn serve(address: &str) -> io::Result<()> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name("basalt-failpoint".to_owned())
        .spawn(move || runtime.block_on(accept(listener)))?;
    Ok(())
}

async fn accept(listener: std::net::TcpListener) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        let (socket, _) = next(async || listener.accept().await).await;
        let answering = ANSWERING.get().expect("set before anybody is served").lock().await;
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_TIMEOUT)
            .keep_alive(false)
            .serve_connection(
                TokioIo::new(socket),
                service_fn(|request| async { Ok::<_, Infallible>(answer(request).await) }),
            );
        // A client that went away, or says nothing, is its own affair.
        _ = tokio::time::timeout(REQUEST_TIMEOUT, connection).await;
        drop(answering);
    }
}

/// The next connection, whatever became of those before it: where no descriptors are left, points are wanted too.
async fn next<T>(accept: impl AsyncFn() -> io::Result<T>) -> T {
    loop {
        match accept().await {
            Ok(accepted) => return accepted,
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn answer(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let name = request.uri().path().trim_start_matches('/').to_owned();
    match *request.method() {
        Method::PUT => {
            let Ok(body) = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await else {
                return failure(StatusCode::BAD_REQUEST, "failed ReadAll in PUT");
            };
            put(&name, &String::from_utf8_lossy(&body.to_bytes()))
        }
        Method::GET => get(&name),
        Method::DELETE => match registry::disable(&name) {
            Ok(()) => text(StatusCode::NO_CONTENT, String::new()),
            Err(error) => failure(StatusCode::BAD_REQUEST, &format!("failed to delete failpoint {error}")),
        },
        _ => {
            let mut refused = failure(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed");
            refused.headers_mut().insert(http::header::ALLOW, http::HeaderValue::from_static("PUT, GET, DELETE"));
            refused
        }
    }
}

fn put(name: &str, body: &str) -> Response<Full<Bytes>> {
    let pairs = if name.eq_ignore_ascii_case("failpoints") { registry::pairs(body) } else { Ok(vec![(name, body)]) };
    let pairs = match pairs {
        Ok(pairs) => pairs,
        Err(error) => return failure(StatusCode::BAD_REQUEST, &format!("fail to parse failpoint: {error}")),
    };
    for (name, words) in pairs {
        if let Err(error) = registry::enable(name, words) {
            return failure(StatusCode::BAD_REQUEST, &format!("fail to set failpoint: {error}"));
        }
    }
    text(StatusCode::NO_CONTENT, String::new())
}

fn get(name: &str) -> Response<Full<Bytes>> {
    if name.is_empty() {
        return text(StatusCode::OK, registry::list());
    }
    let (point, counts) = name.strip_suffix("/count").map_or((name, false), |point| (point, true));
    match registry::status(point) {
        Ok((_, count)) if counts => text(StatusCode::OK, count.to_string()),
        Ok((words, _)) => text(StatusCode::OK, words + "\n"),
        Err(error) => {
            let is_off = counts && error == FailpointError::Disabled;
            let code = if is_off { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::NOT_FOUND };
            failure(code, &format!("failed to GET: {error}"))
        }
    }
}

fn failure(code: StatusCode, what: &str) -> Response<Full<Bytes>> {
    text(code, format!("{what}\n"))
}

fn text(code: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    response
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn connections_that_cannot_be_taken_do_not_end_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let tries = Cell::new(0);
        let accept = async || {
            tries.set(tries.get() + 1);
            // ECONNABORTED, EMFILE, and one that is well.
            match tries.get() {
                1 => Err(io::Error::from_raw_os_error(103)),
                2 => Err(io::Error::from_raw_os_error(24)),
                _ => Ok("a connection"),
            }
        };
        assert_eq!(runtime.block_on(next(accept)), "a connection");
        assert_eq!(tries.get(), 3);
    }
}
