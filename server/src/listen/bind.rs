//! Opening the socket that a URL names.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};

use super::error::ListenError;
use super::transport::Socket;
use crate::config::{KeepaliveConfig, SocketConfig, Url, UrlAddress};

/// Connections that wait for accept; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: u32 = 4096;
/// A silent TCP connection is probed after this many seconds, and as often; Go does the same.
const TCP_KEEPALIVE_SECONDS: u64 = 15;

/// An open listening socket.
#[derive(Debug)]
pub(super) enum BoundSocket {
    Tcp(TcpListener, UserTimeout),
    Unix(UnixListener, PathBuf),
}

impl BoundSocket {
    /// Opens the socket of `url`. Needs a running runtime.
    pub(super) fn open(url: &Url, options: SocketConfig, keepalive: KeepaliveConfig) -> Result<Self, ListenError> {
        let user_timeout = UserTimeout::of(keepalive);
        let opened = match url.address() {
            UrlAddress::Tcp { host, port } => {
                open_tcp(host, *port, options).map(|listener| Self::Tcp(listener, user_timeout))
            }
            UrlAddress::Unix { path } => open_unix(Path::new(path)),
        };
        opened.map_err(|cause| match cause.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse { url: url.clone() },
            _ => ListenError::Bind { url: url.clone(), cause },
        })
    }

    /// The address of a TCP socket.
    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener, _) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    /// The next connection and, over TCP, who it is from. Cancel-safe.
    pub(super) async fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener, user_timeout) => {
                let (stream, remote) = listener.accept().await?;
                prepare(&stream, *user_timeout)?;
                Ok((Socket::Tcp(stream), Some(remote)))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::Unix(stream), None))
            }
        }
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // Nobody could connect to it any more; a leftover is removed by the next start too.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// As Go: `localhost` is 127.0.0.1, and the wildcard of either family takes both where the machine has IPv6.
fn open_tcp(host: &str, port: u16, options: SocketConfig) -> io::Result<TcpListener> {
    let address: IpAddr = match host {
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        host => host.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
    };
    if address.is_unspecified() {
        let both = listen_tcp((Ipv6Addr::UNSPECIFIED, port).into(), options);
        return match (both, address) {
            (Err(error), IpAddr::V4(_)) if error.kind() != io::ErrorKind::AddrInUse => {
                listen_tcp((address, port).into(), options)
            }
            (both, _) => both,
        };
    }
    listen_tcp((address, port).into(), options)
}

fn listen_tcp(address: SocketAddr, options: SocketConfig) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    // Without it a restart waits for connections in TIME_WAIT; Go sets it on every listener.
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(options.reuse_port)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A socket file that a dead process left is removed, as etcd does; anything else in its place is left alone.
fn open_unix(path: &Path) -> io::Result<BoundSocket> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    Ok(BoundSocket::Unix(UnixListener::bind(path)?, path.to_owned()))
}

/// How long bytes that we sent may wait for a peer that takes none, in milliseconds; `None` for ever.
///
/// A client that leaves its socket full holds what was meant for it. The answer to a ping would be as late, so it is the
/// same deadline (grpc-go: the same, where it has the connection by itself).
#[derive(Clone, Copy, Debug)]
pub(super) struct UserTimeout(Option<u32>);

impl UserTimeout {
    fn of(keepalive: KeepaliveConfig) -> Self {
        let timeout = keepalive.server_interval.and(keepalive.server_timeout);
        Self(timeout.map(|timeout| u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX)))
    }
}

/// Answers are small and must not wait for more; a peer that vanished, or takes nothing, must be found out.
fn prepare(stream: &TcpStream, user_timeout: UserTimeout) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    let seconds = std::time::Duration::from_secs(TCP_KEEPALIVE_SECONDS);
    sockopt::set_tcp_keepidle(stream, seconds)?;
    sockopt::set_tcp_keepintvl(stream, seconds)?;
    if let UserTimeout(Some(milliseconds)) = user_timeout {
        sockopt::set_tcp_user_timeout(stream, milliseconds)?;
    }
    Ok(())
}
