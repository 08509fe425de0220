//! The server and its flags.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use clap::Args;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::calls::Floor;

/// What the command line says.
#[derive(Args, Debug)]
pub struct FloorArgs {
    /// Where to listen, `http://127.0.0.1:2379`; port 0 takes a free one
    #[arg(long, value_name = "URL", value_parser = address)]
    listen: SocketAddr,
    /// Keys of 4 KiB in the list
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    list_keys: u64,
    /// Threads of the server
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub threads: u64,
}

impl FloorArgs {
    /// Serves until the process is ended.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn run(self) -> Result<bool> {
        let floor = Floor::new(self.list_keys as usize);
        let incoming = TcpIncoming::bind(self.listen).with_context(|| format!("listen on {}", self.listen))?;
        println!("listening on http://{}", incoming.local_addr()?);
        let served = Server::builder().serve_with_incoming(floor, incoming.with_nodelay(Some(true))).await;
        served.context("serve")?;
        Ok(true)
    }
}

fn address(url: &str) -> Result<SocketAddr> {
    let address = url.strip_prefix("http://").context("it does not begin with http://")?;
    address.trim_end_matches('/').parse().context("it names no address and port, as in http://127.0.0.1:2379")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_an_address_and_a_port() {
        assert_eq!(address("http://127.0.0.1:2379/").expect("a URL"), "127.0.0.1:2379".parse().expect("an address"));
        for url in
            ["", "127.0.0.1:2379", "https://127.0.0.1:1", "http://localhost:1", "http://127.0.0.1", "http://[::1"]
        {
            address(url).expect_err(url);
        }
    }
}
