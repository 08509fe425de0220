//! A server that this program starts, with its own ports and folder, and ends again.

use std::env;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use basalt_proto::etcdserverpb::StatusRequest;
use basalt_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Endpoint;

use crate::access::{Access, Entrance};
use crate::process_usage::ProcessId;

const READY_MAX: Duration = Duration::from_secs(30);
const READY_POLL: Duration = Duration::from_millis(50);
/// Above what the longest run can write, so that no alarm ends it.
const QUOTA_BYTES: u64 = 8 << 30;
/// How much of a failed server's log is shown.
const LOG_SHOWN_BYTES: usize = 2048;

/// How to start a server.
#[derive(Clone, Debug)]
pub struct ServerProgram {
    /// What is started.
    pub kind: ServerKind,
    /// Flags beside ours.
    pub flags: Vec<String>,
    /// How clients come to it.
    pub access: Access,
    /// Where its temporary folder is made. The disk below it is part of what is measured.
    pub data_root: PathBuf,
}

/// What is started.
#[derive(Clone, Debug)]
pub enum ServerKind {
    /// A program that understands etcd's flags.
    Etcd(PathBuf),
    /// This program as a server without a store.
    Floor {
        /// How long its list is.
        list_keys: usize,
    },
}

impl ServerKind {
    /// A program, or the floor if the name is just `floor`.
    pub fn named(name: PathBuf, list_keys: usize) -> Self {
        if name.as_os_str() == "floor" { Self::Floor { list_keys } } else { Self::Etcd(name) }
    }

    /// The command with the flags that each start needs.
    fn command(&self, data: &Path, client: &str, peer: &str) -> Result<Command> {
        let mut command;
        match self {
            Self::Etcd(binary) => {
                command = Command::new(binary);
                command
                    .arg("--name=bench")
                    .arg(format!("--data-dir={}", data.display()))
                    .arg(format!("--listen-client-urls={client}"))
                    .arg(format!("--advertise-client-urls={client}"))
                    .arg(format!("--listen-peer-urls={peer}"))
                    .arg(format!("--initial-advertise-peer-urls={peer}"))
                    .arg(format!("--initial-cluster=bench={peer}"))
                    .arg(format!("--quota-backend-bytes={QUOTA_BYTES}"))
                    .arg("--log-level=error");
            }
            Self::Floor { list_keys } => {
                command = Command::new(env::current_exe().context("find this program")?);
                command.arg("floor").arg(format!("--listen={client}")).arg(format!("--list-keys={list_keys}"));
            }
        }
        Ok(command)
    }
}

/// A running cluster of one member; dropping it kills the process and deletes its data.
pub struct ServerProcess {
    child: Child,
    folder: TempDir,
    endpoint: String,
    metrics_url: String,
    entrance: Entrance,
}

impl ServerProcess {
    /// Starts the program on free ports of 127.0.0.1 and waits until it has a leader.
    ///
    /// # Errors
    /// It cannot be started, ends, or is not ready in 30 s; the error shows the end of its log.
    pub async fn start(program: &ServerProgram) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("basalt-bench-").tempdir_in(&program.data_root)?;
        let [client, peer, metrics] = free_ports()?;
        let endpoint = format!("{}://{client}", program.access.scheme());
        let log = File::create(log_path(folder.path()))?;
        let mut command = program.kind.command(&folder.path().join("data"), &endpoint, &format!("http://{peer}"))?;
        command.args(program.access.flags()).args(&program.flags);
        let mut metrics_url = endpoint.clone();
        if program.access.is_encrypted() {
            metrics_url = format!("http://{metrics}");
            command.arg(format!("--listen-metrics-urls={metrics_url}"));
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        let mut server = Self { child, folder, endpoint, metrics_url, entrance: Entrance::default() };
        let ready = server.open(program.access.clone()).await;
        ready.with_context(|| format!("{name} is not ready; the end of its log:\n{}", server.log_end()))?;
        Ok(server)
    }

    /// Where clients connect to.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The URL under which it shows its metrics to everybody, not encrypted.
    pub fn metrics_url(&self) -> &str {
        &self.metrics_url
    }

    /// What its clients need.
    pub fn entrance(&self) -> &Entrance {
        &self.entrance
    }

    /// The process.
    pub fn process(&self) -> ProcessId {
        ProcessId(self.child.id())
    }

    /// Waits until it has a leader, and lets clients in.
    async fn open(&mut self, access: Access) -> Result<()> {
        let deadline = Instant::now() + READY_MAX;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended: {status}");
            }
            if let Ok(true) = timeout(READY_MAX, has_leader(&self.endpoint, &access)).await {
                self.entrance = Entrance::prepare(access, &self.endpoint).await?;
                return Ok(());
            }
            sleep(READY_POLL).await;
        }
        bail!("no answer with a leader in {READY_MAX:?}")
    }

    fn log_end(&self) -> String {
        let log = fs::read(log_path(self.folder.path())).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_SHOWN_BYTES)..]).into_owned()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is reaped here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn has_leader(endpoint: &str, access: &Access) -> bool {
    let Ok(endpoint) = Endpoint::from_shared(endpoint.to_owned()) else { return false };
    let Ok(channel) = access.connect(endpoint).await else { return false };
    let status = MaintenanceClient::new(channel).status(StatusRequest {}).await;
    status.is_ok_and(|status| status.get_ref().leader != 0)
}

fn log_path(folder: &Path) -> PathBuf {
    folder.join("server.log")
}

/// Ports of 127.0.0.1. All are held together, so they differ; another process may still take one before the server does, and
/// then the start fails.
fn free_ports<const COUNT: usize>() -> Result<[SocketAddr; COUNT]> {
    let mut ports = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); COUNT];
    let mut held = Vec::with_capacity(COUNT);
    for port in &mut ports {
        let listener = TcpListener::bind(*port)?;
        *port = listener.local_addr()?;
        held.push(listener);
    }
    Ok(ports)
}

/// The names of the programs, or of the sides where the programs have the same.
pub fn side_names(left: &Path, right: &Path) -> [String; 2] {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    match (name(left), name(right)) {
        (Some(left), Some(right)) if left != right => [left, right],
        _ => ["left".to_owned(), "right".to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_named_after_programs_that_differ() {
        let name = |left: &str, right: &str| side_names(Path::new(left), Path::new(right));
        assert_eq!(name("/bin/etcd", "target/basalt"), ["etcd", "basalt"]);
        assert_eq!(name("a/etcd", "b/etcd"), ["left", "right"]);
    }
}
