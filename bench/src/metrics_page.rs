//! The page that a server shows to Prometheus, read over HTTP/1.0.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A page takes milliseconds; a server that hangs must not hang this program.
const READ_MAX: Duration = Duration::from_secs(10);
/// Both servers' pages are below 200 KiB.
const PAGE_BYTES_MAX: u64 = 4 << 20;

/// Where the page is.
#[derive(Clone, Debug)]
pub struct MetricsPage {
    /// Host and port.
    authority: String,
}

/// The series of a page as they were at one time.
pub struct Metrics(String);

impl MetricsPage {
    /// The page of the server at `endpoint`, an `http://` URL.
    ///
    /// # Errors
    /// The URL is another.
    pub fn of(endpoint: &str) -> Result<Self> {
        let rest = endpoint.strip_prefix("http://");
        let rest = rest.with_context(|| format!("endpoint {endpoint} does not begin with http://"))?;
        Ok(Self { authority: rest.trim_end_matches('/').to_owned() })
    }

    /// Reads the page.
    ///
    /// # Errors
    /// The server does not answer in ten seconds, or not with a page.
    pub async fn read(&self) -> Result<Metrics> {
        let answer = timeout(READ_MAX, self.get()).await;
        let answer = answer.context("no answer in time").flatten();
        let answer = answer.with_context(|| format!("read http://{}/metrics", self.authority))?;
        Ok(Metrics(answer))
    }

    /// HTTP/1.0, so that the page comes in one piece and its end is that of the connection.
    async fn get(&self) -> Result<String> {
        let mut stream = TcpStream::connect(&self.authority).await?;
        let request = format!("GET /metrics HTTP/1.0\r\nHost: {}\r\n\r\n", self.authority);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(PAGE_BYTES_MAX).read_to_string(&mut answer).await?;
        let status = answer.lines().next().unwrap_or_default();
        ensure!(status.split(' ').nth(1) == Some("200"), "the answer begins with {status:?}");
        Ok(answer)
    }
}

impl Metrics {
    /// The sum of all series of a name, whatever their labels; `None` if there is none.
    pub fn sum(&self, name: &str) -> Option<f64> {
        let value = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let value = match rest.strip_prefix('{') {
                Some(labels) => labels.rsplit_once("} ")?.1,
                None => rest.strip_prefix(' ')?,
            };
            value.parse::<f64>().ok()
        };
        self.0.lines().filter_map(value).reduce(|left, right| left + right)
    }
}

#[cfg(test)]
impl Metrics {
    /// A page of a test.
    pub fn of(text: &str) -> Self {
        Self(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_a_name_are_added() {
        let page = Metrics::of(
            "# HELP a_bytes Bytes.\na_bytes{shard=\"x} y\"} 7\na_bytes{shard=\"z\"} 1e3\na_bytes_total 9\na 2.5\nbad x\n",
        );
        for (name, sum) in [("a_bytes", Some(1007.0)), ("a", Some(2.5)), ("bad", None), ("b", None)] {
            assert_eq!(page.sum(name), sum, "{name}");
        }
    }

    #[test]
    fn a_page_needs_a_url_that_can_be_read() {
        assert_eq!(MetricsPage::of("http://127.0.0.1:2379/").expect("a URL").authority, "127.0.0.1:2379");
        MetricsPage::of("https://127.0.0.1:2379").expect_err("TLS");
    }
}
