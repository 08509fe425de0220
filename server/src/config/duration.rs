//! Durations as Go writes them: `300ms`, `1h30m`, `1.5s`.

/// Nanoseconds of each unit, longest name first so that `ms` is not read as `m`.
const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
];

/// Digits of a fraction that can still matter: a nanosecond is 1/3.6e12 of an hour.
const FRACTION_DIGITS_MAX: usize = 15;

/// Nanoseconds of a duration in Go's syntax (`time.ParseDuration`): a sign, then numbers with units; `0` needs none.
///
/// `None` if it is not one, or does not fit into 64 bits.
pub(crate) fn parse_nanoseconds(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (nanoseconds, tail) = parse_component(rest)?;
        total = total.checked_add(nanoseconds)?;
        rest = tail;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// One number with its unit, and what follows it.
fn parse_component(text: &str) -> Option<(i128, &str)> {
    let (whole, rest) = split_digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(after_point) => split_digits(after_point),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (unit_length, unit) = unit_at(rest)?;
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction = &fraction[..fraction.len().min(FRACTION_DIGITS_MAX)];
    let fraction_part = match fraction {
        "" => 0,
        digits => digits.parse::<i128>().ok()? * unit / 10_i128.pow(digits.len() as u32),
    };
    Some((whole.checked_mul(unit)?.checked_add(fraction_part)?, &rest[unit_length..]))
}

/// The leading digits of `text`, and what follows them.
fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// Length of the unit's name at the start of `text`, and its nanoseconds.
fn unit_at(text: &str) -> Option<(usize, i128)> {
    UNITS.iter().find(|(name, _)| text.starts_with(name)).map(|(name, nanoseconds)| (name.len(), *nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_syntax() {
        let cases = [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("5s", Some(5_000_000_000)),
            ("300ms", Some(300_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            (".5s", Some(500_000_000)),
            ("2µs", Some(2_000)),
            ("-5s", Some(-5_000_000_000)),
            ("5", None),
            ("", None),
            ("s", None),
            (".s", None),
            ("-", None),
            ("5 s", None),
            ("5d", None),
            ("9999999999h", None),
            ("99999999999999999999999999999999999999999999h", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_nanoseconds(text), expected, "{text}");
        }
    }
}
