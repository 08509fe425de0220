//! The part of a URL behind the `?`, as Go's `net/url` reads it.

/// Names and values in order.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `text`. A pair with a broken escape or a `;` is left out, as in Go.
    pub fn parse(text: &str) -> Self {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        };
        Self(text.split('&').filter(|text| !text.is_empty() && !text.contains(';')).filter_map(pair).collect())
    }

    /// Whether `name` occurs, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// The first value of `name`.
    pub fn first<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    /// Every value of `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Undoes `%41` and `+`; `None` for a broken escape. Bytes that are no UTF-8 match nothing that is asked for.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_broken_pairs_left_out() {
        let query = Query::parse("exclude=NO%53PACE&&exclude=&verbose&a=%4&b=1;c=2&d+e=f%2Bg&a=2=3");
        assert_eq!(query.all("exclude").collect::<Vec<_>>(), ["NOSPACE", ""]);
        assert!(query.has("verbose") && !query.has("b") && !query.has("c"));
        assert_eq!((query.first("d e"), query.first("a")), (Some("f+g"), Some("2=3")));
        assert!(!Query::parse("").has(""));
    }
}
