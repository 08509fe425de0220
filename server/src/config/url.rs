//! The URLs that etcd's flags take: `http`, `https`, `unix` and `unixs`, and nothing behind the port.

use std::fmt;

/// A URL of a listener or an advertised address. Ordered and compared by its text, as etcd does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    text: String,
    tls: bool,
    address: UrlAddress,
}

/// Where a [`Url`] points.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UrlAddress {
    /// A host, without the brackets of an IPv6 address, and a port.
    Tcp {
        /// Name or IP address.
        host: String,
        /// TCP port; 0 asks the operating system for a free one.
        port: u16,
    },
    /// A socket in the file system.
    Unix {
        /// Its path, absolute or relative to the working directory.
        path: String,
    },
}

impl Url {
    /// Reads one URL; blanks around it are dropped, as etcd does.
    ///
    /// # Errors
    /// What is wrong with it, in one clause.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (scheme, rest) = text.split_once(':').unwrap_or(("", text));
        let tls = match scheme {
            "http" | "unix" => false,
            "https" | "unixs" => true,
            _ => return Err(format!("URL scheme must be http, https, unix, or unixs: {text}")),
        };
        let address = if scheme.starts_with("unix") { unix_address(rest, text)? } else { tcp_address(rest, text)? };
        Ok(Self { text: text.to_owned(), tls, address })
    }

    /// Reads URLs separated by commas; the result is sorted and holds each one once.
    ///
    /// # Errors
    /// What is wrong with the first bad one.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        let mut urls = text.split(',').map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        urls.sort();
        urls.dedup();
        Ok(urls)
    }

    /// As it was written, without blanks around it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it asks for TLS: `https` or `unixs`.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Where it points.
    pub fn address(&self) -> &UrlAddress {
        &self.address
    }
}

impl fmt::Display for Url {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

fn unix_address(rest: &str, text: &str) -> Result<UrlAddress, String> {
    // etcd takes host and path together, so `unix://localhost:7` is the relative path `localhost:7`.
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if path.is_empty() || path.contains('\0') {
        return Err(format!("URL names no socket path: {text}"));
    }
    Ok(UrlAddress::Unix { path: path.to_owned() })
}

fn tcp_address(rest: &str, text: &str) -> Result<UrlAddress, String> {
    let form = || format!("URL address does not have the form \"host:port\": {text}");
    let authority = rest.strip_prefix("//").ok_or_else(form)?;
    if authority.contains(['/', '?', '#', '@']) {
        return Err(format!("URL must not contain a path: {text}"));
    }
    let (host, port) = authority.rsplit_once(':').ok_or_else(form)?;
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.strip_suffix(']').ok_or_else(form)?,
        None if host.contains(':') => return Err(form()),
        None => host,
    };
    let digits_only = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|_| digits_only).ok_or_else(form)?;
    Ok(UrlAddress::Tcp { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Option<UrlAddress> {
        Some(UrlAddress::Tcp { host: host.to_owned(), port })
    }

    fn unix(path: &str) -> Option<UrlAddress> {
        Some(UrlAddress::Unix { path: path.to_owned() })
    }

    #[test]
    fn forms() {
        let cases = [
            ("http://localhost:2379", tcp("localhost", 2379)),
            (" https://10.0.0.1:2379 ", tcp("10.0.0.1", 2379)),
            ("http://[::1]:2379", tcp("::1", 2379)),
            ("unix:///run/basalt.sock", unix("/run/basalt.sock")),
            ("unixs:/run/basalt.sock", unix("/run/basalt.sock")),
            ("unix://localhost:7", unix("localhost:7")),
            ("http://localhost", None),
            ("http://localhost:", None),
            ("http://localhost:+1", None),
            ("http://localhost:70000", None),
            ("http://a:1/", None),
            ("http://a@b:1", None),
            ("http://::1:2379", None),
            ("http:a:1", None),
            ("ftp://a:1", None),
            ("localhost:2379", None),
            ("unix://", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Url::parse(text).ok().map(|url| url.address), expected, "{text}");
        }
    }

    #[test]
    fn lists_are_sorted_and_unique() {
        let urls = Url::parse_list("https://b:1,http://a:1, http://a:1").expect("valid");
        assert_eq!(urls.iter().map(Url::as_str).collect::<Vec<_>>(), ["http://a:1", "https://b:1"]);
        assert!(Url::parse_list("http://a:1,").is_err());
    }
}
