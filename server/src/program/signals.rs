//! What the system says to the process, and what it is told.

use std::future::Future;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::warn;

use crate::logging::{LevelControl, Step};

/// SIGTERM and SIGINT, caught from the moment of installation on.
pub(super) struct StopSignals(Option<[Signal; 2]>);

impl StopSignals {
    /// To be called inside a runtime.
    pub(super) fn install() -> Self {
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(terminate), Ok(interrupt)) => Self(Some([terminate, interrupt])),
            _ => {
                warn!("signals cannot be caught: kill -9 is the way to stop, and is safe");
                Self(None)
            }
        }
    }

    /// Waits for either.
    pub(super) async fn received(&mut self) {
        let Some([terminate, interrupt]) = &mut self.0 else { return std::future::pending().await };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// SIGUSR1 makes the log say more, SIGUSR2 less, one level each. To be called inside a runtime.
pub(super) fn listen_for_level_signals(level: LevelControl) {
    let (Ok(mut more), Ok(mut fewer)) = (signal(SignalKind::user_defined1()), signal(SignalKind::user_defined2()))
    else {
        return warn!("signals cannot be caught: the log level stays what it is");
    };
    // It ends with the runtime.
    tokio::spawn(async move {
        loop {
            let step = tokio::select! {
                Some(()) = more.recv() => Step::More,
                Some(()) = fewer.recv() => Step::Fewer,
                else => return,
            };
            level.step(step);
        }
    });
}

/// What `work` comes to, or nothing if the stop comes first.
pub(super) async fn unless_stopped<T>(stop: impl Future<Output = ()>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = stop => None,
        done = work => Some(done),
    }
}

/// Tells systemd that the service is up (sd_notify), if it asked for it.
pub(super) fn notify_systemd() {
    let Ok(socket) = std::env::var("NOTIFY_SOCKET") else { return };
    let told = std::os::unix::net::UnixDatagram::unbound().and_then(|sender| {
        if let Some(name) = socket.strip_prefix('@') {
            use std::os::linux::net::SocketAddrExt;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            return sender.send_to_addr(b"READY=1", &address);
        }
        sender.send_to(b"READY=1", &socket)
    });
    if let Err(error) = told {
        warn!(%error, "systemd could not be told that the service is ready");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stop_is_heard_while_the_node_starts() {
        let mut signals = StopSignals::install();
        assert_eq!(unless_stopped(std::future::pending(), std::future::ready(1)).await, Some(1));
        let this = rustix::process::getpid();
        rustix::process::kill_process(this, rustix::process::Signal::TERM).expect("we may");
        let start_without_end = std::future::pending::<()>();
        assert_eq!(unless_stopped(signals.received(), start_without_end).await, None);
    }
}
