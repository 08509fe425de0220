//! Values of flags: text in, checked and typed out, with Go's rules of what a number or a bool looks like.

use super::duration::parse_nanoseconds;
use super::feature_gates::FeatureGates;
use super::flag::Kind;
use super::url::Url;

/// The value of a flag. Its variant follows from the [`Kind`] of the flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Nanoseconds(i64),
    Urls(Vec<Url>),
    List(Vec<String>),
    /// `None` allows all.
    Origins(Option<Vec<String>>),
    Gates(FeatureGates),
}

impl Value {
    /// Reads `text` as `kind`.
    ///
    /// # Errors
    /// What is wrong with it, in one clause.
    pub(super) fn parse(kind: Kind, text: &str) -> Result<Self, String> {
        let not = |what: &str| format!("it is not {what}");
        Ok(match kind {
            Kind::Text | Kind::Unread => Self::Text(text.to_owned()),
            Kind::OneOf(words) if words.contains(&text) => Self::Text(text.to_owned()),
            Kind::OneOf(words) => return Err(format!("it is not one of {}", words.join(", "))),
            Kind::Bool => Self::Bool(parse_bool(text).ok_or_else(|| not("true or false"))?),
            Kind::Unsigned => Self::Unsigned(parse_unsigned(text).ok_or_else(|| not("a number of 0 or more"))?),
            Kind::Unsigned32 => {
                let value = parse_unsigned(text).filter(|value| *value <= u64::from(u32::MAX));
                Self::Unsigned(value.ok_or_else(|| not("a number from 0 to 4294967295"))?)
            }
            Kind::Signed => Self::Signed(parse_signed(text).ok_or_else(|| not("a whole number"))?),
            Kind::Duration => {
                let value = parse_nanoseconds(text).ok_or_else(|| not("a duration such as 300ms, 5s or 1h30m"));
                Self::Nanoseconds(value?)
            }
            Kind::Urls if text.is_empty() => Self::Urls(Vec::new()),
            Kind::Urls => Self::Urls(Url::parse_list(text)?),
            Kind::List if text.is_empty() => Self::List(Vec::new()),
            Kind::List => Self::List(text.split(',').map(str::to_owned).collect()),
            Kind::Origins if text.is_empty() || text == "*" => Self::Origins(None),
            Kind::Origins => {
                let origins = Url::parse_list(text)?;
                Self::Origins(Some(origins.iter().map(|url| url.as_str().to_owned()).collect()))
            }
            Kind::Gates => {
                let mut gates = FeatureGates::default();
                gates.add(text)?;
                Self::Gates(gates)
            }
        })
    }
}

/// A bool as Go reads it (`strconv.ParseBool`).
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A number as Go's flags read it: decimal, or with the prefix `0x`, `0o`, `0b` or `0`.
fn parse_unsigned(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (lower.as_str(), 10),
    };
    // `from_str_radix` takes a sign of its own, which Go does not take here.
    u64::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+'))
}

/// As [`parse_unsigned`], with an optional sign.
fn parse_signed(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = i128::from(parse_unsigned(digits)?);
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_go_reads_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("10", Some(10)),
            ("0x1F", Some(31)),
            ("017", Some(15)),
            ("0b11", Some(3)),
            ("0o7", Some(7)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("08", None),
            ("0x", None),
            ("1e3", None),
            ("18446744073709551616", None),
        ] {
            assert_eq!(parse_unsigned(text), expected, "{text}");
        }
        assert_eq!(parse_signed("-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_signed("9223372036854775808"), None);
        assert_eq!(parse_signed("-"), None);
    }

    #[test]
    fn origins() {
        assert_eq!(Value::parse(Kind::Origins, "*"), Ok(Value::Origins(None)));
        let one = Value::parse(Kind::Origins, "http://a:1").expect("a URL");
        assert_eq!(one, Value::Origins(Some(vec!["http://a:1".to_owned()])));
        assert!(Value::parse(Kind::Origins, "nope").is_err());
    }
}
